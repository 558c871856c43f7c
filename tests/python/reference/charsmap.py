"""A precompiled character map in SentencePiece's format, as T5's tokenizer has one (but far smaller): NFKC, and all
kinds of white space to a space.

Format: u32 bytes of the trie, the trie's u32 units (Darts-clone: Yoneda and Tamiwa 2008), then the replacements, each
ended by a zero byte. A unit: label in bits 0 to 7, "a key ends here" in bit 8, distance to the children (exclusive
or) from bit 10; a leaf: the replacement's place with bit 31 set, where the child of label 0 would be.
"""

import struct
import unicodedata

LEAF, ENDS = 1 << 31, 1 << 8


def mappings() -> dict[str, str]:
    """What is replaced by what."""
    spaces = "\t\n\v\f\r\x85\u00a0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
    removed = "\u200b\u200c\u200d\ufeff\u00ad" + "".join(map(chr, [*range(1, 9), *range(14, 32), 127]))
    table = {c: " " for c in spaces} | {c: "" for c in removed}
    ranges = [(0xA0, 0x180), (0x2070, 0x20A0), (0x2150, 0x2190), (0xFB00, 0xFB07), (0xFF01, 0xFF5F)]
    for c in (chr(code) for low, high in ranges for code in range(low, high)):
        if c not in table and (norm := unicodedata.normalize("NFKC", c)) != c:
            table[c] = norm
    # Letters written as a base and a mark; the reader takes a cluster of fewer than six bytes as one key.
    for c in map(chr, range(0xC0, 0x180)):
        parts = unicodedata.normalize("NFD", c)
        if len(parts) == 2 and unicodedata.normalize("NFC", parts) == c:
            table[parts] = c
    return table


def compile_map(table: dict[str, str]) -> bytes:
    """The map's bytes."""
    replacements, places = b"", {}
    for text in sorted(set(table.values())):
        places[text] = len(replacements)
        replacements += text.encode() + b"\0"
    root: dict = {}
    for key, text in table.items():
        node = root
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[0] = places[text]
    units, bases = {0: 0}, set()
    waiting = [(0, root)]
    while waiting:
        place, node = waiting.pop(0)
        # The root stays at 0 whatever its own distance; every node has a base that no other has.
        base = next(
            b for b in range(1, 1 << 21)
            if b not in bases and all(b ^ label not in units for label in node) and b ^ place != 0
        )
        bases.add(base)
        units[place] |= (base ^ place) << 10 | (ENDS if 0 in node else 0)
        for label, child in node.items():
            units[base ^ label] = LEAF | child if label == 0 else label
        waiting += [(base ^ label, child) for label, child in node.items() if label != 0]
    # Readers look at a base's every neighbour without asking whether it is there.
    count = ((max(max(units), max(bases)) | 0xFF) + 1)
    array = [units.get(place, 0) for place in range(count)]
    return struct.pack(f"<I{count}I", 4 * count, *array) + replacements
