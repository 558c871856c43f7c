"""A checkpoint that takes its time to load: a small one with its decoder blocks many times over. It is real, and sounds like
nothing in particular."""

import json
import shutil
import struct
from pathlib import Path

BLOCK = "decoder.model.decoder.layers."


def make(source: Path, folder: Path, blocks: int) -> Path:
    """Writes it to `folder`, with `blocks` blocks instead of those of `source`."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    config = json.loads((source / "config.json").read_text())
    own = config["decoder"]["num_hidden_layers"]
    config["decoder"]["num_hidden_layers"] = blocks
    (folder / "config.json").write_text(json.dumps(config))

    with open(source / "model.safetensors", "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
        data = file.read()
    header.pop("__metadata__", None)
    entries, offset, parts = {}, 0, []
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        names = [name]
        if name.startswith(BLOCK):
            number, rest = name.removeprefix(BLOCK).split(".", 1)
            names = [f"{BLOCK}{copy}.{rest}" for copy in range(int(number), blocks, own)]
        for copy in names:
            entries[copy] = {**entry, "data_offsets": [offset, offset + end - begin]}
            offset += end - begin
            parts.append((begin, end))
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for begin, end in parts:
            file.write(data[begin:end])
    return folder
