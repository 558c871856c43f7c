"""Opens the built VST3 in pedalboard's host under Xvfb, plays it and takes pictures of its editor, one for each scene; the
standalone application's page of devices too. Says how busy the window keeps the processor.

usage: main.py --bundle target/bundled/Tiller.vst3 --standalone target/bundled/tiller --demo assets/demo --out FOLDER.
Needs Xvfb, xdotool and ImageMagick's `import`.
"""

import argparse
import ctypes
import gc
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import slow_model

SCREEN = "2000x1500x24"
RATE, BLOCK = 48_000, 1_024
# How often the scene `automated` opens the window.
OPENINGS = 5


def own_display() -> subprocess.Popen:
    """Starts an X server of our own; the environment points to it from here on."""
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", SCREEN, "-nolisten", "tcp", "-noreset"],
        pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    os.close(write)
    number = os.read(read, 16).decode().strip()
    if not number:
        raise SystemExit("Xvfb did not start")
    os.environ["DISPLAY"] = f":{number}"
    return server


def ignore_x_errors() -> None:
    """JUCE asks about windows that are gone; Xlib's own handler would end the process."""
    handler = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: 0)
    ignore_x_errors.kept = handler
    ctypes.CDLL("libX11.so.6").XSetErrorHandler(handler)


def xdotool(*arguments: str) -> str:
    return subprocess.run(["xdotool", *arguments], check=True, capture_output=True, text=True).stdout.strip()


class Editor:
    """The window, driven from a thread of its own while the host's main thread shows it."""

    # Where the header's pages are, in points from the window's corner.
    PAGES = {"steer": (94, 24), "set up": (150, 24), "models": (214, 24), "devices": (282, 24)}

    def __init__(self, scale: float = 1.0):
        self.window = None
        self.scale = scale

    def find(self, seconds: float = 20.0) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = subprocess.run(
                ["xdotool", "search", "--onlyvisible", "--name", "Tiller"], capture_output=True, text=True
            ).stdout.split()
            if found:
                self.window = found[0]
                return
            time.sleep(0.2)
        raise RuntimeError("the editor's window did not come")

    def resize(self, width: int, height: int) -> None:
        """Asks until the window has the size: hosts answer late when the machine is busy."""
        wanted = (round(width * self.scale), round(height * self.scale))
        until = time.monotonic() + 15.0
        while self.size() != wanted:
            if time.monotonic() > until:
                raise RuntimeError(f"the window stays at {self.size()} instead of {wanted}")
            xdotool("windowsize", self.window, *map(str, wanted))
            time.sleep(0.5)
        time.sleep(1.0)

    def size(self) -> tuple[int, int]:
        shape = xdotool("getwindowgeometry", "--shell", self.window)
        return tuple(int(re.search(rf"{side}=(\d+)", shape).group(1)) for side in ("WIDTH", "HEIGHT"))

    def click(self, x: float, y: float) -> None:
        xdotool("mousemove", "--window", self.window, str(round(x * self.scale)), str(round(y * self.scale)))
        time.sleep(0.1)
        xdotool("click", "1")
        time.sleep(0.3)

    def page(self, name: str) -> None:
        self.click(*self.PAGES[name])
        # A busy machine paints late, and the next click is meant for the new page.
        time.sleep(1.5)

    def type(self, text: str) -> None:
        xdotool("type", "--delay", "15", text)
        xdotool("key", "Return")

    def keys(self, *names: str) -> None:
        for name in names:
            xdotool("key", name)
            time.sleep(0.1)

    def rest(self) -> None:
        """The mouse goes where it lights nothing."""
        xdotool("mousemove", *SCREEN.split("x")[:2])
        time.sleep(0.5)

    def shoot(self, path: Path) -> None:
        self.rest()
        partial = path.with_suffix(".partial.png")
        small = ["-define", "png:compression-level=9", "-strip"]
        subprocess.run(["import", "-window", self.window, *small, str(partial)], check=True)
        partial.rename(path)
        print(path, flush=True)


def threads() -> dict[int, tuple[str, int]]:
    """Name and processor time, in ticks, of each of this process's threads."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            name, rest = re.match(r"\d+ \((.*)\) (.*)", (task / "stat").read_text()).groups()
        except FileNotFoundError:
            continue
        found[int(task.name)] = (name, sum(map(int, rest.split()[11:13])))
    return found


def busy(seconds: float, before_the_window: set[int]) -> float:
    """The share of one core that the window takes: the host's main thread, which shows it, and every thread that came with
    the window. The engine's threads are no part of it."""
    first, started = threads(), time.monotonic()
    time.sleep(seconds)
    last, passed = threads(), time.monotonic() - started
    share = 0.0
    for task, (name, ticks) in last.items():
        own = (ticks - first.get(task, (name, 0))[1]) / os.sysconf("SC_CLK_TCK") / passed
        ours = task == os.getpid() or task not in before_the_window
        counts = ours and (name == "tiller-editor" or not name.startswith("tiller-"))
        share += own if counts else 0.0
        if own >= 0.001:
            print(f"  {100 * own:5.1f} %  {name}{'' if counts else '  (not the window)'}", flush=True)
    return share


def scene(plugin, steps, move=None, scale: float = 1.0, sounds: bool = True, seconds: float = 120.0) -> None:
    """Shows the editor while a thread plays at the clock's pace and another one takes the steps. `move` is told the time
    before each block and may set parameters, as automation does."""
    closed, failure = threading.Event(), []

    def play():
        started, pulled = time.monotonic(), 0
        while not closed.is_set():
            if move:
                move(pulled / RATE)
            plugin([], duration=BLOCK / RATE, sample_rate=RATE, num_channels=2, buffer_size=BLOCK, reset=False)
            pulled += BLOCK
            ahead = pulled / RATE - (time.monotonic() - started)
            if ahead > 0:
                time.sleep(ahead)

    def act():
        try:
            editor = Editor(scale)
            editor.find()
            steps(editor)
        except BaseException as error:
            failure.append(error)
        finally:
            closed.set()

    for work in (play, act) if sounds else (act,):
        threading.Thread(target=work, daemon=True).start()
    # Blocks are pulled already, so that the engine's threads are there.
    time.sleep(1.0)
    scene.before_the_window = set(threads())
    guard = threading.Timer(seconds, closed.set)
    guard.daemon = True
    guard.start()
    plugin.show_editor(closed)
    guard.cancel()
    if failure:
        raise failure[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--standalone", type=Path)
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hub", type=Path, help="the program tiller-hub, for the scenes `models` and `models-offline`")
    parser.add_argument("--only", help="one scene")
    parser.add_argument("--here", help="this scene, on the display that there is")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.here:
        SCENES[arguments.here](arguments)
        sys.stdout.flush()
        # Windows that the host still holds would end the process with an error of its own.
        os._exit(0)
    server = own_display()
    # A newcomer's settings, and none of this machine's user's.
    config = tempfile.mkdtemp(prefix="tiller-config-")
    os.environ.update(XDG_CONFIG_HOME=config, XDG_DATA_HOME=config)
    code = 0
    try:
        for name in SCENES:
            if arguments.only == name or arguments.only is None and name not in LONG:
                # A process each: hosts keep a plugin's windows until they end.
                code = code or subprocess.run([sys.executable, *sys.argv, "--here", name]).returncode
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(config)
    sys.exit(code)


def load(arguments, **values):
    import pedalboard
    import pedalboard._pedalboard as host

    # 2,080 hidden controllers: half a minute of names.
    host.PARAMETER_NAME_REGEXES_TO_IGNORE.add(re.compile(r"MIDI Ch\. \d+ "))
    ignore_x_errors()
    plugin = pedalboard.load_plugin(str(arguments.bundle))
    for name, value in {"run": "free", **values}.items():
        if name not in plugin.parameters:
            raise SystemExit(f"no parameter {name}: {sorted(plugin.parameters)}")
        setattr(plugin, name, value)
    return plugin


def first_run(arguments) -> None:
    """A newcomer's window, and that its hint is dismissed for good."""
    remembered = Path(os.environ["XDG_CONFIG_HOME"]) / "tiller/editor.json"

    def steps(editor: Editor) -> None:
        time.sleep(3.0)
        editor.shoot(arguments.out / "editor-first-run.png")
        editor.click(editor.size()[0] - 50, 65)
        time.sleep(1.0)
        if not remembered.exists():
            raise RuntimeError(f"the hint was dismissed, but {remembered} does not say so")

    scene(load(arguments), steps, sounds=False)


def playing(arguments) -> None:
    """Automation moves the lanes while pictures of all sizes are taken."""
    plugin = load(arguments, note="D")

    def move(seconds: float) -> None:
        bar = int(seconds // 3) % 3
        plugin.note = ("D", "off", "A")[bar]
        plugin.chord = ("off", "minor", "off")[bar]
        plugin.chord_root = "A"
        plugin.note_strength = round(0.75 + 0.25 * math.sin(1.3 * seconds), 3)
        plugin.chord_strength = round(min(1.0, (seconds % 3) / 2), 3)
        plugin.tempo = round(0.6 * math.sin(0.7 * seconds), 3)
        plugin.strength = round(0.8 + 0.2 * math.cos(0.5 * seconds), 3)

    def steps(editor: Editor) -> None:
        time.sleep(13.0)
        editor.shoot(arguments.out / "editor-playing.png")
        print(f"window while playing: {100 * busy(5.0, scene.before_the_window):.1f} % of a core, GL drawn by the processor", flush=True)
        editor.resize(640, 480)
        editor.shoot(arguments.out / "editor-small.png")
        editor.resize(1_400, 1_000)
        editor.shoot(arguments.out / "editor-large.png")
        editor.resize(960, 640)
        editor.page("set up")
        time.sleep(1.0)
        editor.shoot(arguments.out / "editor-set-up.png")

    scene(plugin, steps, move)


def idle(arguments) -> None:
    """What a window costs in which nothing happens."""
    plugin = load(arguments, run="transport")

    def steps(editor: Editor) -> None:
        time.sleep(4.0)
        editor.rest()
        share = busy(10.0, scene.before_the_window)
        print(f"window while idle: {100 * share:.1f} % of a core", flush=True)
        if share > 0.05:
            raise RuntimeError("an idle window must take less than 5 % of a core")

    scene(plugin, steps)


def loading(arguments) -> None:
    """A model that takes its time: the demo with its blocks many times over."""
    plugin = load(arguments, chord_root="A", chord="minor")

    def steps(editor: Editor) -> None:
        with tempfile.TemporaryDirectory(prefix="tiller-slow-") as folder:
            model = slow_model.make(arguments.demo, Path(folder) / "musicgen-slow", blocks=240)
            time.sleep(2.0)
            open_model(plugin, model)
            editor.shoot(arguments.out / "editor-loading.png")

    scene(plugin, steps)


def automated(arguments) -> None:
    """The window opens and closes while automation moves two lanes, and then the instrument is removed: nice-plug's worker must
    still be there, or the host is ended here."""
    plugin = load(arguments, note="D")
    removed = threading.Event()

    def play() -> None:
        block = 0
        while not removed.is_set():
            block += 1
            plugin.strength = round(0.5 + 0.4 * math.sin(block / 7), 3)
            plugin.note_strength = round(0.5 + 0.4 * math.cos(block / 5), 3)
            plugin([], duration=256 / RATE, sample_rate=RATE, num_channels=2, buffer_size=256, reset=False)
            time.sleep(0.002)

    player = threading.Thread(target=play)
    player.start()
    try:
        for _ in range(OPENINGS):
            closed = threading.Event()
            threading.Timer(1.0, closed.set).start()
            plugin.show_editor(closed)
            time.sleep(0.2)
    finally:
        removed.set()
        player.join()
    del play, plugin
    gc.collect()
    print(f"automated: opened and closed {OPENINGS} times while its lanes moved, and removed", flush=True)


def missing(arguments) -> None:
    """A project whose model is not there."""

    plugin = load(arguments, chord_root="A", chord="minor")

    def steps(editor: Editor) -> None:
        time.sleep(2.0)
        open_model(plugin, Path("/music/models/musicgen-small"))
        time.sleep(2.0)
        editor.shoot(arguments.out / "editor-model-missing.png")

    scene(plugin, steps)


def open_model(plugin, folder: Path) -> None:
    """As a project does that was saved on another machine."""
    data = plugin.preset_data
    text = data.decode("latin-1")
    start = text.index('{"')
    state, length = json.JSONDecoder().raw_decode(text[start:])
    document = json.loads(json.loads(state["fields"]["project"]))
    document["model"] = {"name": folder.name, "hash": "", "path": str(folder)}
    state["fields"]["project"] = json.dumps(json.dumps(document))
    plugin.preset_data = vst_preset(data, start, start + length, json.dumps(state).encode())


def vst_preset(data: bytes, start: int, end: int, chunk: bytes) -> bytes:
    """A .vstpreset with another chunk in the place of [start, end): the list of chunks at its end follows."""
    longer = len(chunk) - (end - start)
    at = struct.unpack_from("<q", data, 40)[0]
    parts = bytearray(data[:start] + chunk + data[end:])
    struct.pack_into("<q", parts, 40, at + longer)
    for entry in range(struct.unpack_from("<i", parts, at + longer + 4)[0]):
        place = at + longer + 8 + 20 * entry + 4
        offset, size = struct.unpack_from("<qq", parts, place)
        holds = offset <= start < offset + size
        struct.pack_into("<qq", parts, place, offset + (longer if offset > start else 0), size + (longer if holds else 0))
    return bytes(parts)


def keyboard(arguments) -> None:
    """Everything can be reached without a mouse: Tab to the keys, the chords and the note lane, and each is set there."""
    (Path(os.environ["XDG_CONFIG_HOME"]) / "tiller").mkdir(exist_ok=True)
    (Path(os.environ["XDG_CONFIG_HOME"]) / "tiller/editor.json").write_text('{"hint_dismissed": true}')
    plugin = load(arguments)

    def steps(editor: Editor) -> None:
        time.sleep(2.0)
        # The keyboard follows the pointer, to where nothing can be clicked.
        editor.click(600, 616)
        # Three pages, meter, Play, prompt and presets come first; Apply has nothing to apply.
        editor.keys(*["Tab"] * 8, *["Right"] * 3, "Return")
        editor.keys("Tab", "Down", "Right", "Return")
        editor.keys("Tab", *["Left"] * 4)
        time.sleep(1.0)
        editor.shoot(arguments.out / "editor-keyboard.png")
        found = [str(getattr(plugin, name)) for name in ("note", "chord_root", "chord", "note_strength")]
        print(f"keyboard: {found}", flush=True)
        if found != ["D", "C#", "minor", "0.6"]:
            raise RuntimeError("the keyboard does not reach what it should")

    scene(plugin, steps)


class ClientMessage(ctypes.Structure):
    """Xlib's XClientMessageEvent, as long as an XEvent is."""

    _fields_ = [
        ("type", ctypes.c_int), ("serial", ctypes.c_ulong), ("send_event", ctypes.c_int), ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong), ("message_type", ctypes.c_ulong), ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5), ("rest", ctypes.c_long * 12),
    ]


def close(window: str) -> None:
    """Closes a window as a window manager does."""
    x = ctypes.CDLL("libX11.so.6")
    x.XOpenDisplay.restype = ctypes.c_void_p
    x.XInternAtom.argtypes, x.XInternAtom.restype = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int], ctypes.c_ulong
    x.XSendEvent.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
    x.XCloseDisplay.argtypes = [ctypes.c_void_p]
    display = x.XOpenDisplay(None)
    message = ClientMessage(type=33, window=int(window), format=32)
    message.message_type = x.XInternAtom(display, b"WM_PROTOCOLS", 0)
    message.data[0] = x.XInternAtom(display, b"WM_DELETE_WINDOW", 0)
    x.XSendEvent(display, int(window), 0, 0, ctypes.byref(message))
    x.XCloseDisplay(display)


def devices(arguments) -> None:
    """The standalone application's page of devices: a rate that is chosen and a key that is set there are there again when the
    application is opened the next time."""
    if arguments.standalone is None:
        return
    # A machine with a sound card, as far as ALSA is concerned.
    home = Path(os.environ["XDG_CONFIG_HOME"])
    (home / ".asoundrc").write_text("pcm.!default { type null }\nctl.!default { type null }\n")
    (home / "tiller").mkdir(exist_ok=True)
    (home / "tiller/editor.json").write_text('{"hint_dismissed": true}')
    environment = {**os.environ, "HOME": str(home)}
    for opened in (1, 2):
        application = subprocess.Popen([str(arguments.standalone)], stderr=subprocess.DEVNULL, env=environment)
        try:
            editor = Editor()
            editor.find()
            time.sleep(3.0)
            if opened == 1:
                editor.click(105, 160)
            editor.page("devices")
            if opened == 1:
                editor.click(205, 111)
            else:
                time.sleep(1.0)
                editor.shoot(arguments.out / "editor-devices.png")
            close(editor.window)
            if application.wait(20) != 0:
                raise RuntimeError("the application did not end well")
        finally:
            application.kill()
            application.wait()
        remembered = json.loads((home / "tiller/standalone.json").read_text())
        found = (remembered["rate"], remembered["session"]["params"]["note"])
        print(f"standalone, opened {opened} times: {found}", flush=True)
        if found != (44_100, {"string": "C"}):
            raise RuntimeError("the application does not remember what was chosen")


def models(arguments) -> None:
    """From the built-in model to another one: see model_path.py."""
    import model_path

    model_path.with_a_hub(arguments)


def models_offline(arguments) -> None:
    """The same without a network."""
    import model_path

    model_path.offline(arguments)


SCENES = {
    "first-run": first_run,
    "playing": playing,
    "idle": idle,
    "loading": loading,
    "missing": missing,
    "automated": automated,
    "keyboard": keyboard,
    "devices": devices,
    "models": models,
    "models-offline": models_offline,
}

# Minutes long: for those who ask for them.
LONG = {"models", "models-offline"}

if __name__ == "__main__":
    main()
