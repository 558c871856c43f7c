"""A peer of `cargo xtask bench`: one decoder step of transformers' MusicGen on torch, random weights, both guidance rows in
one batch, a static cache that is full up to a given length. Reads `run LENGTH SECONDS` lines, answers each with
`steps_per_s RATE STEPS`; ends at the end of its input.
"""

import argparse
import sys
import time

import torch
import transformers
from transformers import MusicgenForCausalLM
from transformers.cache_utils import EncoderDecoderCache, StaticCache
from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

ROWS = 2
WARM_UP = 3
LEAST_STEPS = 5
DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}


def answer(line: str) -> None:
    print(line, flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("blocks", "hidden", "feed", "heads", "codebooks", "channels", "vocab", "tokens", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--kv", required=True)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    return parser.parse_args()


def build(arguments) -> MusicgenForCausalLM:
    """The decoder with weights drawn in place: a large one never exists in f32."""
    config = MusicgenDecoderConfig(
        vocab_size=arguments.vocab,
        num_hidden_layers=arguments.blocks,
        hidden_size=arguments.hidden,
        ffn_dim=arguments.feed,
        num_attention_heads=arguments.heads,
        num_codebooks=arguments.codebooks,
        audio_channels=arguments.channels,
        dropout=0.0,
        attn_implementation="sdpa",
    )
    with torch.device("meta"):
        model = MusicgenForCausalLM(config)
    model = model.to(DTYPES[arguments.dtype]).to_empty(device="cpu").eval()
    for name, weights in model.named_parameters():
        if weights.dim() == 1:
            weights.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            weights.normal_(0.0, weights.shape[-1] ** -0.5)
    positions = model.model.decoder.embed_positions
    positions.make_weights(config.max_position_embeddings, config.hidden_size)
    return model


class Step:
    """One step after another at one cache length: the last position is written anew each time."""

    def __init__(self, model, arguments, length: int):
        config = model.config
        self.model, self.length, self.vocab = model, length, arguments.vocab
        dtype, size = DTYPES[arguments.dtype], arguments.hidden // arguments.heads
        self.own = StaticCache(config=config, max_cache_len=length)
        # Normal numbers, so that no page of it is the one page of zeros.
        for layer in self.own.layers:
            shape = (ROWS, arguments.heads, length, size)
            layer.lazy_initialization(torch.empty(shape, dtype=dtype), torch.empty(shape, dtype=dtype))
            layer.keys.normal_()
            layer.values.normal_()
        cross = StaticCache(config=config, max_cache_len=arguments.tokens)
        self.cache = EncoderDecoderCache(self.own, cross)
        self.text = torch.randn(ROWS, arguments.tokens, arguments.hidden, dtype=dtype)
        # As generate() does: the unconditional row's prompt is masked away.
        self.text[1] = 0.0
        self.mask = torch.ones(ROWS, arguments.tokens, dtype=torch.long)
        self.mask[1] = 0
        self.books = arguments.codebooks

    def __call__(self) -> None:
        for layer in self.own.layers:
            layer.cumulative_length.fill_(self.length - 1)
        codes = torch.randint(self.vocab, (ROWS * self.books, 1))
        logits = self.model(
            input_ids=codes,
            encoder_hidden_states=self.text,
            encoder_attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
        ).logits
        if logits.shape != (ROWS * self.books, 1, self.vocab):
            raise ValueError(f"logits of shape {tuple(logits.shape)}")


def measure(step: Step, seconds: float) -> tuple[float, int]:
    for _ in range(WARM_UP):
        step()
    began, count = time.perf_counter(), 0
    while count < LEAST_STEPS or time.perf_counter() - began < seconds:
        step()
        count += 1
    return count / (time.perf_counter() - began), count


def main() -> None:
    arguments = parse()
    torch.set_grad_enabled(False)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    transformers.logging.set_verbosity_error()
    model = build(arguments)
    steps = {length: Step(model, arguments, length) for length in map(int, arguments.kv.split(","))}
    answer(f"ready torch {torch.__version__}, transformers {transformers.__version__}, {arguments.dtype}, static cache")
    for line in sys.stdin:
        words = line.split()
        if len(words) != 3 or words[0] != "run" or int(words[1]) not in steps:
            answer(f"error not understood: {line.strip()}")
            continue
        rate, count = measure(steps[int(words[1])], float(words[2]))
        answer(f"steps_per_s {rate} {count}")


if __name__ == "__main__":
    main()
