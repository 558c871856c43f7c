"""A tokenizer in T5's form (Unigram; <pad> 0, </s> 1, <unk> 2; Metaspace; </s> appended) whose pieces fill the text
encoder's vocabulary, and the prompts that every reference carries.
"""

import itertools
import json
import string
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

import charsmap

SPECIALS = ["<pad>", "</s>", "<unk>"]
WORDS = (
    "a and with of the in slow warm strings pad piano guitar drums bass fast loud soft bright dark minor major chord "
    "melody ambient classical jazz rock electronic upbeat driving beat steady rhythm deep synth lead choir brass"
)
PIECES = "ing er ed ly s es ion al an en on st th ch ar or in re tr pl sh ou ea oo ee ll ss"
# Repeated until it has this many tokens: farther apart than T5's largest distance, and more than T5 was trained on.
LONG, LONG_TOKENS = "A driving electronic beat with deep synth bass, then slow warm strings and a soft choir (120 bpm).", 620
PROMPTS = [
    "",
    "piano",
    "slow warm strings pad",
    LONG,
    "café déjà-vu, mañana, Straße 日本の音楽 🎹 ﬁne",
    "cafe\u0301 \uff30ｉａｎｏ\u3000x\u00b2 ½\u00a0\u200bslow\u2003warm\ufeff n\u0303a\u0308",
    "   leading and trailing   ",
    "two  spaces   three\tand a tab",
    "first line\nsecond line\r\n\nthird",
    "a </s> b <pad> c <unk></s>",
    "<extra_id_0> low <extra_id_99>",
    "UPPER Case, punctuation!? 'quoted' #7 & 3/4",
    " ",
]


def build(vocabulary: int) -> Tokenizer:
    """Pieces for ids below `vocabulary`: words, all of printable ASCII, some letters beyond it, then syllables."""
    pieces = ["▁", *("▁" + word for word in WORDS.split()), *PIECES.split()]
    pieces += [c for c in string.printable if not c.isspace()] + list("éàñäß日本")
    spare = itertools.chain(
        (head + "".join(letters) for size in (2, 3) for head in ("▁", "")
         for letters in itertools.product(string.ascii_lowercase, repeat=size)),
    )
    known = set(pieces)
    sentinels = [f"<extra_id_{i}>" for i in range(99, -1, -1)] if vocabulary >= 1000 else []
    room = vocabulary - len(SPECIALS) - len(sentinels)
    pieces = pieces[:room] + list(itertools.islice((p for p in spare if p not in known), max(0, room - len(pieces))))
    # Longer pieces are likelier than the characters that they are made of; no two pieces are equally likely.
    scored = [(piece, -9.0 + 3.1 * min(len(piece), 3) / 3 - index * 1e-4) for index, piece in enumerate(pieces)]
    scored = [(s, 0.0) for s in SPECIALS] + scored + [(s, 0.0) for s in sentinels]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.Precompiled(charsmap.compile_map(charsmap.mappings()))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens(SPECIALS + sentinels)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer


def save(tokenizer: Tokenizer, directory: Path) -> None:
    """tokenizer.json, tokenizer_config.json and special_tokens_map.json as published directories have them."""
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    sentinels = sum(piece.startswith("<extra_id_") for piece in tokenizer.get_vocab())
    specials = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    config = {**specials, "tokenizer_class": "T5Tokenizer", "model_max_length": 512, "extra_ids": sentinels}
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    if sentinels:
        specials["additional_special_tokens"] = [f"<extra_id_{i}>" for i in range(sentinels)]
    (directory / "special_tokens_map.json").write_text(json.dumps(specials, indent=2) + "\n")


class Prompts:
    """Prompts as transformers tokenises them for a directory."""

    def __init__(self, directory: Path):
        self.reference = AutoTokenizer.from_pretrained(directory)
        self.file = Tokenizer.from_file(str(directory / "tokenizer.json"))

    def batch(self, texts: list[str]):
        """Padded `input_ids` and `attention_mask`, `[texts, tokens]`."""
        encoded = self.reference(texts, padding=True, return_tensors="pt")
        return encoded.input_ids, encoded.attention_mask

    def cases(self, texts: list[str]) -> list[dict]:
        """Each text with its ids; `file_agrees` says whether tokenizer.json alone gives the same ones. `LONG` is
        repeated until it is long.
        """
        repeats = -(-LONG_TOKENS // (len(self.reference(LONG).input_ids) - 1))
        texts = [" ".join([text] * repeats) if text == LONG else text for text in texts]
        ids = [self.reference(text).input_ids for text in texts]
        return [
            {"text": text, "ids": row, "file_agrees": self.file.encode(text).ids == row}
            for text, row in zip(texts, ids)
        ]
