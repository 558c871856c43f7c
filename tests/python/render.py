"""Renders the VST3 in DawDreamer, a JUCE host that says real time and pulls as fast as it can.

Prints one JSON object: reported latency, parameter names. Writes the first two channels as interleaved float32.
"""

import argparse
import json
import sys

import dawdreamer as daw
import numpy as np


def parameter_index(plugin, name):
    """Index of the parameter whose name is exactly `name`."""
    for description in plugin.get_parameters_description():
        if description["name"] == name:
            return description["index"]
    sys.exit(f"no parameter named {name!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugin", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rate", type=int, default=48_000)
    parser.add_argument("--block", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--midi", help="a MIDI file played to the plugin")
    parser.add_argument("--automation", default="{}", help='{"Parameter name": [[sample, value], ...], ...}')
    parser.add_argument("--set", default="{}", help='{"Parameter name": value, ...}, before the render')
    options = parser.parse_args()

    engine = daw.RenderEngine(options.rate, options.block)
    plugin = engine.make_plugin_processor("tiller", options.plugin)
    for name, value in json.loads(options.set).items():
        plugin.set_parameter(parameter_index(plugin, name), value)
    length = int(options.seconds * options.rate)
    for name, points in json.loads(options.automation).items():
        # One value per sample; a step at each point.
        curve = np.zeros(length, np.float32)
        for sample, value in points:
            curve[int(sample):] = value
        plugin.set_automation(parameter_index(plugin, name), curve)
    if options.midi:
        plugin.load_midi(options.midi, beats=False)
    engine.load_graph([(plugin, [])])
    engine.render(options.seconds)
    audio = np.asarray(engine.get_audio(), dtype=np.float32)
    audio[:2].T.astype("<f4").tofile(options.out)
    print(json.dumps({"latency": plugin.get_latency_samples(), "samples": int(audio.shape[1])}))


main()
