"""Renders the VST3 in DawDreamer, a JUCE host that says real time and pulls as fast as it can.

Prints one JSON object: reported latency, saved state. Writes the first two channels as interleaved float32.
"""

import argparse
import json
import re
import sys

import dawdreamer as daw
import numpy as np


def parameter_index(plugin, name):
    """Index of the parameter whose name is exactly `name`."""
    for description in plugin.get_parameters_description():
        if description["name"] == name:
            return description["index"]
    sys.exit(f"no parameter named {name!r}")


def own_parameters(plugin):
    """Descriptions of the parameters that are not the MIDI controllers that the VST3 wrapper makes up."""
    return [own for own in plugin.get_parameters_description() if not own["name"].startswith("MIDI Ch.")]


# JUCE's own base 64: six bits at a time from the low end, after the number of bytes and a dot.
DIGITS = ".ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+"


def component_state(path):
    """What the plugin's getState wrote, out of the state that the host saved. (The host's own idea of the parameters is older:
    it hears of a new state on a message thread that nobody runs here.)"""
    with open(path, "rb") as file:
        text = file.read().decode("latin-1")
    size, digits = re.search(r"<IComponent>(\d+)\.(.*?)</IComponent>", text).groups()
    bits = 0
    for digit in reversed(digits):
        bits = bits << 6 | DIGITS.index(digit)
    return json.loads((bits & ((1 << 8 * int(size)) - 1)).to_bytes(int(size), "little"))


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
    parser.add_argument("--sweep", action="store_true", help="automate all that can be automated over its whole range, to and fro")
    parser.add_argument("--preset", help="a .vstpreset that the host loads first")
    parser.add_argument("--load-state", help="a state that the host loads first")
    parser.add_argument("--save-state", help="where the host writes the state after the render")
    options = parser.parse_args()

    engine = daw.RenderEngine(options.rate, options.block)
    plugin = engine.make_plugin_processor("tiller", options.plugin)
    if options.load_state:
        plugin.load_state(options.load_state)
    if options.preset and not plugin.load_vst3_preset(options.preset):
        sys.exit(f"the host could not load {options.preset}")
    for name, value in json.loads(options.set).items():
        plugin.set_parameter(parameter_index(plugin, name), value)
    length = int(options.seconds * options.rate)
    for name, points in json.loads(options.automation).items():
        # One value per sample; a step at each point.
        curve = np.zeros(length, np.float32)
        for sample, value in points:
            curve[int(sample):] = value
        plugin.set_automation(parameter_index(plugin, name), curve)
    swept = [own for own in own_parameters(plugin) if own["isAutomatable"]] if options.sweep else []
    for index, description in enumerate(swept):
        # Whole swings of its own length for each, so that the values meet in ever new ways.
        period = 2.0 + 0.37 * index
        way = (np.arange(length) / options.rate / period) % 1.0
        plugin.set_automation(description["index"], (1.0 - np.abs(2.0 * way - 1.0)).astype(np.float32))
    if options.midi:
        plugin.load_midi(options.midi, beats=False)
    engine.load_graph([(plugin, [])])
    engine.render(options.seconds)
    audio = np.asarray(engine.get_audio(), dtype=np.float32)
    audio[:2].T.astype("<f4").tofile(options.out)
    if options.save_state:
        plugin.save_state(options.save_state)
    state = component_state(options.save_state) if options.save_state else None
    report = {"latency": plugin.get_latency_samples(), "samples": int(audio.shape[1]), "state": state}
    print(json.dumps({**report, "swept": [own["name"] for own in swept]}))


main()
