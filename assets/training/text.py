"""The tokenizer: Unigram in T5's form (pad 0, </s> 1, <unk> 2, Metaspace, </s> appended), small vocabulary.

Trained on the generator's prompts and on a list of words that people use about music, with every printable ASCII
character in the alphabet, so that any English prompt tokenises without <unk>.
"""

import argparse
import json
import string
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from architecture import TEXT_VOCABULARY

INSTRUMENTS = (
    "piano, grand piano, electric piano, rhodes, harpsichord, celesta, music box, vibraphone, marimba, xylophone, "
    "tubular bells, church organ, organ, accordion, harmonica, acoustic guitar, nylon guitar, steel guitar, electric "
    "guitar, jazz guitar, distorted guitar, bass, acoustic bass, electric bass, synth bass, violin, viola, cello, "
    "contrabass, strings, string ensemble, tremolo strings, pizzicato strings, plucked, harp, timpani, choir, voices, "
    "trumpet, trombone, tuba, muted trumpet, french horn, brass, brass section, saxophone, soprano sax, alto sax, tenor "
    "sax, oboe, bassoon, clarinet, flute, piccolo, recorder, pan flute, whistle, ocarina, synth lead, square lead, saw "
    "lead, synth pad, warm pad, sitar, banjo, koto, kalimba, steel drums, drums, percussion, glockenspiel, mandolin"
)
WORDS = (
    "a an the and or with of in on by for from playing played plays play music song tune track piece theme loop "
    "melody chord arpeggio bass line bassline pad texture solo duet mix together over under behind accompaniment "
    "rhythm riff groove beat tempo slow slowly medium moderate fast quick quickly rapid upbeat lively brisk steady "
    "relaxed calm gentle soft loud warm bright dark cold mellow smooth rough sharp round deep high low light heavy "
    "happy sad joyful melancholy sombre cheerful dreamy nostalgic tense mysterious epic heroic romantic tender "
    "playful serious quiet peaceful energetic driving flowing floating sparse dense rich thin simple complex "
    "sustained staccato legato long short notes broken rolling strummed picked bowed blown hammered ambient classical "
    "jazz rock pop folk blues funk soul country electronic techno house trance dance film cinematic game soundtrack "
    "lullaby ballad waltz march hymn lofi 80s 90s style mood feeling feel atmosphere background instrumental "
    "minimal repeating hypnotic lush airy breathy sweet bitter wild free easy busy open close distant echo reverb"
)
SPECIALS = ["<pad>", "</s>", "<unk>"]


def corpus(prompts: list[str]) -> list[str]:
    """What the vocabulary is fitted on: a few thousand prompts say all the words; more would crowd out the lists."""
    return prompts[:4000] + INSTRUMENTS.split(", ") * 8 + WORDS.split() * 8


def train(prompts: list[str]) -> Tokenizer:
    """Fit the Unigram model; ids of the three special tokens are T5's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    alphabet = sorted(set(string.printable.lower()) - set(string.whitespace) | {"▁"})
    trainer = trainers.UnigramTrainer(
        vocab_size=TEXT_VOCABULARY - 68, special_tokens=SPECIALS, unk_token="<unk>", initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(corpus(prompts), trainer)
    # The trainer drops characters that the corpus lacks: put them back as the least likely pieces.
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    known = {piece for piece, _ in vocabulary}
    # Whole words that pruning broke up come back as well: prompts stay short.
    middle = sorted(score for _, score in vocabulary)[len(vocabulary) // 4]
    words = sorted({"▁" + word for word in INSTRUMENTS.replace(",", "").split() + WORDS.split()} - known)
    vocabulary += [[word, middle] for word in words]
    floor = min(score for _, score in vocabulary) - 1.0
    vocabulary += [[character, floor] for character in alphabet if character not in known]
    if len(vocabulary) > TEXT_VOCABULARY:
        raise ValueError(f"{len(vocabulary)} pieces do not fit the text encoder's {TEXT_VOCABULARY} rows")
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer


def save(tokenizer: Tokenizer, directory: Path) -> None:
    """tokenizer.json, tokenizer_config.json and special_tokens_map.json as published MusicGen directories have them."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    specials = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    config = {**specials, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, "extra_ids": 0}
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (directory / "special_tokens_map.json").write_text(json.dumps(specials, indent=2) + "\n")


def batch(tokenizer: Tokenizer, prompts: list[str]):
    """Padded ids and mask, each `[prompts, tokens]`, as lists."""
    encoded = [tokenizer.encode(prompt).ids for prompt in prompts]
    width = max(map(len, encoded))
    ids = [row + [0] * (width - len(row)) for row in encoded]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in encoded]
    return ids, mask


def load(directory: Path) -> Tokenizer:
    return Tokenizer.from_file(str(directory / "tokenizer.json"))


def published(directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers reads the directory, for checks against `load`."""
    return AutoTokenizer.from_pretrained(directory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, required=True, help="labels.jsonl: the vocabulary is fitted on its prompts")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    prompts = [json.loads(line)["prompt"] for line in arguments.labels.read_text().splitlines()]
    tokenizer = train(prompts)
    save(tokenizer, arguments.out)
    lengths = [len(tokenizer.encode(prompt).ids) for prompt in prompts[:2000]]
    print(f"{tokenizer.get_vocab_size()} pieces in {arguments.out}; a prompt has {sum(lengths) / len(lengths):.1f} tokens")


if __name__ == "__main__":
    main()
