"""Opens the built VST3 in pedalboard's host under Xvfb, plays it and takes pictures of its editor, one for each scene.

usage: main.py --bundle target/bundled/Tiller.vst3 --out FOLDER. Needs Xvfb, xdotool and ImageMagick's `import`.
"""

import argparse
import ctypes
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

SCREEN = "1400x1100x24"
RATE, BLOCK = 48_000, 1_024


def own_display() -> subprocess.Popen:
    """Starts an X server of our own; the environment points to it from here on."""
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", SCREEN, "-nolisten", "tcp"],
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

    def __init__(self):
        self.window = None

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
        until = time.monotonic() + 15.0
        while self.size() != (width, height):
            if time.monotonic() > until:
                raise RuntimeError(f"the window stays at {self.size()} instead of {width} x {height}")
            xdotool("windowsize", self.window, str(width), str(height))
            time.sleep(0.5)
        time.sleep(1.0)

    def size(self) -> tuple[int, int]:
        shape = xdotool("getwindowgeometry", "--shell", self.window)
        return tuple(int(re.search(rf"{side}=(\d+)", shape).group(1)) for side in ("WIDTH", "HEIGHT"))

    def click(self, x: int, y: int) -> None:
        xdotool("mousemove", "--window", self.window, str(x), str(y))
        time.sleep(0.1)
        xdotool("click", "1")
        time.sleep(0.2)

    def type(self, text: str) -> None:
        xdotool("type", "--delay", "15", text)
        xdotool("key", "Return")

    def shoot(self, path: Path) -> None:
        xdotool("mousemove", "1390", "1090")
        time.sleep(0.6)
        partial = path.with_suffix(".partial.png")
        subprocess.run(["import", "-window", self.window, str(partial)], check=True)
        partial.rename(path)
        print(path, flush=True)


def scene(plugin, steps, seconds: float = 60.0) -> None:
    """Shows the editor while a thread plays at the clock's pace and another one takes the steps."""
    closed, failure = threading.Event(), []

    def play():
        started, pulled = time.monotonic(), 0
        while not closed.is_set():
            plugin([], duration=BLOCK / RATE, sample_rate=RATE, num_channels=2, buffer_size=BLOCK, reset=False)
            pulled += BLOCK
            ahead = pulled / RATE - (time.monotonic() - started)
            if ahead > 0:
                time.sleep(ahead)

    def act():
        try:
            editor = Editor()
            editor.find()
            steps(editor)
        except BaseException as error:
            failure.append(error)
        finally:
            closed.set()

    for work in (play, act):
        threading.Thread(target=work, daemon=True).start()
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
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--here", action="store_true", help="use the display that there is")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.here:
        pictures(arguments.bundle, arguments.out)
        sys.stdout.flush()
        # Windows that the host still holds would end the process with an error of its own.
        os._exit(0)
    server = own_display()
    try:
        here = [sys.executable, __file__, "--bundle", str(arguments.bundle), "--out", str(arguments.out), "--here"]
        code = subprocess.run(here).returncode
    finally:
        server.terminate()
        server.wait()
    sys.exit(code)


def pictures(bundle: Path, out: Path) -> None:
    import pedalboard
    import pedalboard._pedalboard as host

    # 2,080 hidden controllers: half a minute of names.
    host.PARAMETER_NAME_REGEXES_TO_IGNORE.add(re.compile(r"MIDI Ch\. \d+ "))
    ignore_x_errors()

    def load(**values):
        plugin = pedalboard.load_plugin(str(bundle))
        for name, value in {"run": "free", **values}.items():
            if name not in plugin.parameters:
                raise SystemExit(f"no parameter {name}: {sorted(plugin.parameters)}")
            setattr(plugin, name, value)
        return plugin

    def playing(editor: Editor) -> None:
        time.sleep(6.0)
        editor.shoot(out / "editor-playing.png")
        editor.resize(640, 480)
        editor.shoot(out / "editor-small.png")
        editor.resize(1_300, 1_000)
        editor.shoot(out / "editor-large.png")

    scene(load(note="D", quantise="beat"), playing)

    def missing(editor: Editor) -> None:
        time.sleep(2.0)
        editor.click(editor.size()[0] - 300, 24)
        editor.type("/no/such/model")
        time.sleep(2.0)
        editor.shoot(out / "editor-model-missing.png")

    scene(load(chord_root="A", chord="minor"), missing)


if __name__ == "__main__":
    main()
