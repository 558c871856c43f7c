"""The way from the built-in model to another one, in the editor of the built plugin: list, licence, download that is cut off,
gone on with and found damaged, use, ten-second test, learning, steered music; then the same without a network. Files on disk,
the project's state and the sound that comes out say whether each step did what it should, pictures how it looked, and how
often the window was painted meanwhile is counted from outside.
"""

import atexit
import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import main as screenshots

REPOSITORY = "facebook/musicgen-small"
FILES = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
RATE = screenshots.RATE

# Where things are on the page, in points from the corner of a window of 960 by 640.
AT = {
    "row": lambda index: (200, 84 + 25 * index),
    "about": (449, 92), "steering": (518, 92), "own trait": (615, 92),
    "accept": (500, 388),
    "note D": (606, 313), "note A": (777, 313), "full effort": (658, 371),
}

# Where the buttons of the right side begin, and their height and how far it may be off.
EDGE, HEIGHT = 424, range(18, 31)

# At least so many paintings a second while the meter moves; the window aims at 25, and two of 100 may lie outside of the time.
LEAST_RATE = 24.5
# Nothing may hang longer, in seconds.
PATIENCE = 10.0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until(what: str, holds, seconds: float) -> float:
    """Waits, and says how long it took."""
    started = time.monotonic()
    while not holds():
        if time.monotonic() - started > seconds:
            raise RuntimeError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.05)
    return time.monotonic() - started


class Counter:
    """A server that answers nobody and counts who came: nobody may, before a click."""

    def __init__(self, port: int):
        self.came = 0
        self.server = socket.create_server(("127.0.0.1", port))
        self.held = []
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.held.append(self.server.accept()[0])
                self.came += 1

    def close(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        for one in self.held:
            one.close()


class Hub:
    """`tiller-hub`, with manners."""

    def __init__(self, program: Path, folder: Path, port: int, *manners: str):
        command = [str(program), "--folder", str(folder), "--repository", REPOSITORY, "--port", str(port), *manners]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        # A run that fails leaves nothing behind.
        atexit.register(self.process.kill)
        if not self.process.stdout.readline().startswith("http"):
            raise RuntimeError("the hub did not start")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Pixels:
    """Reads a part of a window over and over."""

    def __init__(self, window: str):
        self.x = ctypes.CDLL("libX11.so.6")
        self.x.XOpenDisplay.restype = ctypes.c_void_p
        self.x.XGetImage.restype = ctypes.c_void_p
        self.x.XGetImage.argtypes = [
            ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_int, ctypes.c_uint, ctypes.c_uint, ctypes.c_ulong,
            ctypes.c_int,
        ]
        self.x.XFree.argtypes = [ctypes.c_void_p]
        self.x.XCloseDisplay.argtypes = [ctypes.c_void_p]
        self.display = self.x.XOpenDisplay(None)
        self.window = int(window)

    def read(self, x: int, y: int, width: int, height: int) -> bytes:
        image = self.x.XGetImage(self.display, self.window, x, y, width, height, ctypes.c_ulong(-1).value, 2)
        if not image:
            return b""
        data = ctypes.c_void_p.from_address(image + 16).value
        line = ctypes.c_int.from_address(image + 44).value
        pixels = ctypes.string_at(data, line * height)
        self.x.XFree(data)
        self.x.XFree(image)
        return pixels

    def close(self) -> None:
        self.x.XCloseDisplay(self.display)


class Paintings:
    """Hears of every painting of a window and its children from the X server (the Damage extension)."""

    # What one painting changes may come in several pieces, this close together, in seconds. There is a tick for every 15 ms.
    TOGETHER = 0.01

    def __init__(self, window: str):
        self.x, self.damage = ctypes.CDLL("libX11.so.6"), ctypes.CDLL("libXdamage.so.1")
        self.x.XOpenDisplay.restype = ctypes.c_void_p
        self.damage.XDamageCreate.restype = ctypes.c_ulong
        for function in (self.x.XPending, self.x.XFlush, self.x.XCloseDisplay):
            function.argtypes = [ctypes.c_void_p]
        self.x.XNextEvent.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self.damage.XDamageQueryExtension.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
        self.damage.XDamageCreate.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int]
        self.display = self.x.XOpenDisplay(None)
        first, error = ctypes.c_int(), ctypes.c_int()
        if not self.damage.XDamageQueryExtension(self.display, ctypes.byref(first), ctypes.byref(error)):
            raise RuntimeError("the X server does not tell what is painted (no Damage extension)")
        self.notice = first.value
        # Every rectangle as it comes.
        self.damage.XDamageCreate(self.display, int(window), 0)
        self.x.XFlush(self.display)

    def times(self, seconds: float) -> list[float]:
        """When the window was painted within the next seconds."""
        event, came = ctypes.create_string_buffer(192), []
        started = time.monotonic()
        while (now := time.monotonic()) - started < seconds:
            while self.x.XPending(self.display):
                self.x.XNextEvent(self.display, event)
                if ctypes.c_int.from_buffer(event).value == self.notice and (not came or now - came[-1] > self.TOGETHER):
                    came.append(now)
            time.sleep(0.001)
        self.x.XCloseDisplay(self.display)
        return came


def frame_rate(editor, what: str, seconds: float = 4.0) -> None:
    """Counts how often the window was painted while music plays and the meter moves; refuses one that falls behind."""
    editor.rest()
    came = Paintings(editor.window).times(seconds)
    longest = max((after - before for before, after in zip(came, came[1:])), default=seconds)
    rate = len(came) / seconds
    print(f"{what}: painted {rate:.1f} times a second, longest gap {1e3 * longest:.0f} ms", flush=True)
    if rate < LEAST_RATE:
        raise RuntimeError(f"the window was painted {rate:.1f} times a second, less than {LEAST_RATE}")


class Home:
    """Folders of a newcomer, and what is in them."""

    def __init__(self, port: int):
        self.folder = Path(tempfile.mkdtemp(prefix="tiller-path-"))
        for name in ("config", "data", "cache", "hf"):
            (self.folder / name).mkdir()
        for name in list(os.environ):
            if name.lower().endswith("_proxy") or name.startswith(("HF_", "HUGGINGFACE_")):
                del os.environ[name]
        os.environ.update(
            HOME=str(self.folder), XDG_CONFIG_HOME=str(self.folder / "config"), XDG_DATA_HOME=str(self.folder / "data"),
            XDG_CACHE_HOME=str(self.folder / "cache"), HF_HOME=str(self.folder / "hf"),
            HF_ENDPOINT=f"http://127.0.0.1:{port}",
        )
        (self.folder / "config/tiller").mkdir()
        (self.folder / "config/tiller/editor.json").write_text('{"hint_dismissed": true}')

    def partial(self) -> int:
        return sum(path.stat().st_size for path in (self.folder / "hf").rglob("*.incomplete*"))

    def weights(self) -> Path | None:
        return next((self.folder / "hf").rglob("snapshots/*/model.safetensors"), None)

    def directions(self) -> Path | None:
        return next((self.folder / "data").rglob("tiller-notes.safetensors"), None)

    def accepted(self) -> bool:
        file = self.folder / "config/tiller/models.json"
        return file.exists() and REPOSITORY in file.read_text()

    def tried(self) -> list[Path]:
        found = [path for path in (self.folder / "cache/tiller").rglob("*.json") if "real_time" in path.read_text()]
        return found


def classes(file: Path) -> list[str]:
    """What directions there are in a file."""
    data = file.read_bytes()
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    return header["__metadata__"]["classes"].split(",")


def share_of(audio: np.ndarray, pitch_class: int) -> float:
    """The share of the energy between 60 and 2,000 Hz that lies within 40 cents of a pitch class."""
    mono = audio.mean(axis=0)
    size = 16_384
    window = np.hanning(size)
    power = sum(
        np.abs(np.fft.rfft(window * mono[at:at + size])) ** 2 for at in range(0, len(mono) - size, size // 2)
    )
    hertz = np.fft.rfftfreq(size, 1 / RATE)
    heard = (hertz > 60) & (hertz < 2_000)
    steps = 12 * np.log2(np.maximum(hertz, 1) / 440.0) + 9
    near = np.abs((steps - pitch_class + 6) % 12 - 6) < 0.4
    return float(power[heard & near].sum() / power[heard].sum())


def served(arguments, folder: Path) -> Path:
    """The built-in checkpoint without its directions: real, small, and unknown to the machine."""
    folder.mkdir()
    for name in FILES:
        shutil.copy(arguments.demo / name, folder / name)
    return folder


class Player:
    """Pulls blocks at the clock's pace and keeps what came in the last seconds."""

    def __init__(self, plugin):
        self.plugin, self.kept, self.closed = plugin, [], threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        started, pulled = time.monotonic(), 0
        while not self.closed.is_set():
            block = self.plugin(
                [], duration=screenshots.BLOCK / RATE, sample_rate=RATE, num_channels=2,
                buffer_size=screenshots.BLOCK, reset=False,
            )
            self.kept = [*self.kept[-600:], block]
            pulled += screenshots.BLOCK
            ahead = pulled / RATE - (time.monotonic() - started)
            if ahead > 0:
                time.sleep(ahead)

    def last(self, seconds: float) -> np.ndarray:
        return np.concatenate(self.kept[-int(seconds * RATE / screenshots.BLOCK):], axis=1)


class Run:
    """One opening of the editor: its window, what plays, and the pictures."""

    def __init__(self, arguments, plugin, editor, home: Home):
        self.plugin, self.editor, self.home = plugin, editor, home
        self.folder = arguments.out / "models"
        self.folder.mkdir(exist_ok=True)

    def click(self, place) -> None:
        self.editor.click(*(AT[place] if isinstance(place, str) else place))
        time.sleep(0.5)

    def buttons(self) -> list[int]:
        """Heights of the buttons that begin at the edge of the right side: runs of one colour that is not the panel's."""
        self.editor.rest()
        pixels = Pixels(self.editor.window)
        column = np.frombuffer(pixels.read(EDGE, 0, 1, 600), np.uint8).reshape(600, -1)[:, :3].astype(int) @ [1, 256, 65_536]
        pixels.close()
        usual = {color for color, count in zip(*np.unique(column, return_counts=True)) if count > 110}
        edges = [0, *(np.flatnonzero(np.diff(column)) + 1), len(column)]
        runs = [(a, b) for a, b in zip(edges, edges[1:]) if b - a in HEIGHT and column[a] not in usual and a > 110]
        return [(a + b) // 2 for a, b in runs]

    def press(self, number: int, seconds: float = 10.0) -> None:
        """Presses one of those buttons, once it is there; -1 is the last."""
        until(f"button {number}", lambda: len(self.buttons()) > max(number, 0), seconds)
        self.click((EDGE + 12, self.buttons()[number]))

    def shoot(self, name: str) -> None:
        time.sleep(0.7)
        path = self.folder / f"{name}.png"
        self.editor.shoot(path)
        # Few colours are all it has.
        subprocess.run(["mogrify", "-colors", "96", "-define", "png:compression-level=9", str(path)], check=True)


def opened(arguments, work, values, seconds: float) -> None:
    """Opens the editor while music plays, and hands a `Run` to `work`."""
    port = free_port()
    home = Home(port)
    plugin = screenshots.load(arguments, **values)
    player = Player(plugin)
    try:
        player.thread.start()

        def steps(editor) -> None:
            time.sleep(3.0)
            run = Run(arguments, plugin, editor, home)
            run.player = player
            work(run, port)

        screenshots.scene(plugin, steps, sounds=False, seconds=seconds)
    finally:
        player.closed.set()
        player.thread.join(5)
        shutil.rmtree(home.folder, ignore_errors=True)


def with_a_hub(arguments) -> None:
    """The whole path."""

    def work(run: Run, port: int) -> None:
        editor, home = run.editor, run.home
        folder = served(arguments, home.folder / "served")
        weights = (folder / "model.safetensors").stat().st_size
        counter = Counter(port)
        editor.page("models")
        run.shoot("1-list")
        frame_rate(editor, "while it plays and nothing else happens")
        run.click(AT["row"](1))
        run.press(0)
        run.shoot("2-licence")
        if counter.came or home.accepted():
            raise RuntimeError("a server was asked, or the licence accepted, without a click")
        counter.close()

        hub = Hub(arguments.hub, folder, port, "--throttle", str(weights // 12))
        run.click("accept")
        until("the first quarter", lambda: home.partial() > weights // 4, 30)
        if not home.accepted():
            raise RuntimeError("the licence was not kept as accepted")
        run.shoot("3-download")
        hub.stop()
        until("the download to be given up", lambda: unchanged(home.partial, 9.0), 60)
        kept = home.partial()
        run.shoot("4-interrupted")

        hub = Hub(arguments.hub, folder, port, "--throttle", str(weights // 8), "--corrupt-once", "model.safetensors")
        # The first button puts the message by, the first one then goes on.
        run.press(0)
        run.press(0)
        until("more bytes", lambda: home.partial() > kept, 30)
        frame_rate(editor, "while it downloads")
        until("the damaged bytes to go", lambda: home.partial() == 0, 60)
        if home.weights():
            raise RuntimeError("damaged weights got their name")
        run.shoot("5-damaged")
        run.press(0)
        run.press(0)
        until("the model", lambda: home.weights() is not None, 60)
        hub.stop()
        digests = [hashlib.sha256(path.read_bytes()).digest() for path in (home.weights(), folder / "model.safetensors")]
        if digests[0] != digests[1]:
            raise RuntimeError("what is on the disk is not what was served")
        run.shoot("6-here")

        run.press(0)
        run.press(0)
        time.sleep(4.0)
        state = project(run.plugin)
        if state["model"]["name"] != "musicgen-small" or Path(state["model"]["path"]) != home.weights().parent:
            raise RuntimeError(f"the project does not have the model: {state['model']}")
        before = len(home.tried())
        run.press(-1)
        until("the trial", lambda: len(home.tried()) > before, 60)
        trial = json.loads(home.tried()[0].read_text())
        print(f"trial: {trial['real_time']:.1f} x real time", flush=True)
        run.shoot("7-tested")

        run.click("steering")
        # Two notes of twelve: the first click leaves no other. With less effort they would be there before they were seen coming.
        run.click("note D")
        run.click("note A")
        run.click("full effort")
        run.shoot("8-notes")
        started = time.monotonic()
        run.press(0)
        time.sleep(6.0)
        frame_rate(editor, "while it learns")
        run.shoot("8-learning")
        if home.directions():
            raise RuntimeError("the notes were there before the window was measured beside learning")
        until("the directions", lambda: home.directions() is not None, 280)
        print(f"two notes learned in {time.monotonic() - started:.0f} s", flush=True)
        if (notes := classes(home.directions())) != ["D", "A"]:
            raise RuntimeError(f"other notes were learned than those that were chosen: {notes}")
        time.sleep(2.0)
        run.shoot("9-learned")

        editor.page("steer")
        heard = {}
        for note in ("off", "D"):
            run.plugin.note = note
            time.sleep(9.0)
            heard[note] = share_of(run.player.last(6.0), 2)
        run.shoot("10-steered")
        print(f"energy on D: {100 * heard['off']:.0f} % unsteered, {100 * heard['D']:.0f} % steered to D", flush=True)
        if heard["D"] < heard["off"] + 0.1:
            raise RuntimeError("the directions that were learned do not steer what plays")

        editor.page("models")
        run.click("own trait")
        run.shoot("11-own-trait")
        editor.resize(640, 480)
        run.shoot("12-small")

    opened(arguments, work, {"note_strength": 1.0, "strength": 1.0}, 600.0)


def unchanged(measure, seconds: float) -> bool:
    before = measure()
    time.sleep(seconds)
    return measure() == before


def project(plugin) -> dict:
    """The project's document in the host's state: JSON in a string in a string in JSON."""
    text = plugin.preset_data.decode("latin-1")
    state = json.JSONDecoder().raw_decode(text[text.index('{"'):])[0]
    return json.loads(json.loads(state["fields"]["project"]))


def offline(arguments) -> None:
    """No hub at all, then one that says nothing."""

    def work(run: Run, port: int) -> None:
        editor, home = run.editor, run.home
        editor.page("models")
        run.click(AT["row"](1))
        run.press(0)
        run.click("accept")
        time.sleep(3.0)
        run.shoot("13-refused")
        run.press(0)
        counter = Counter(port)
        run.press(0)
        until("the request", lambda: counter.came > 0, PATIENCE)
        frame_rate(editor, "while a hub says nothing")
        time.sleep(PATIENCE - 5.0)
        run.shoot("14-stalled")
        counter.close()
        if home.weights():
            raise RuntimeError("a model came from nowhere")

    opened(arguments, work, {}, 120.0)
