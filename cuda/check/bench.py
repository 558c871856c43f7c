"""How fast is a card's step? Random weights of a shape; the library against transformers on torch, eager and compiled, in the
same process on the same card, both guidance rows, steered, at several cache lengths; and the card's own bandwidth before and
after. Prints one JSON object per line: what is measured first is out first.
"""

import argparse
import json
import os
import pathlib
import statistics
import time

import numpy as np
import torch
import transformers
from transformers.cache_utils import EncoderDecoderCache, StaticCache

import library as cuda
from models import POSITIONS, Random
from parity import columns_of, draw_of, rows_of

FRAME = 0.02
TOKENS = 16
WARM_UP = 20
# Overlap, prefetch, early reads.
VARIANTS = [(1, 0, 0), (1, 32 << 10, 1), (0, 0, 0)]


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", required=True)
    parser.add_argument("--shape", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--kv", type=int, nargs="+", default=[500, 1500])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--peer", nargs="*", default=[], choices=["eager", "captured", "compiled"])
    parser.add_argument("--probe", type=int, default=2 << 30, help="bytes that the bandwidth is measured on")
    parser.add_argument("--variants", action="store_true", help="also without overlap and with other prefetches")
    parser.add_argument("--peers-only", action="store_true", help="the library is not measured, only its peers")
    parser.add_argument("--gate", help="a file to wait for once everything is prepared; one that ends in .ready says so")
    parser.add_argument("--overlap", type=int, default=1)
    parser.add_argument("--prefetch", type=int, default=0)
    parser.add_argument("--early", type=int, default=1)
    return parser.parse_args()


def say(**what):
    print(json.dumps(what), flush=True)


def spread(seconds):
    ordered = sorted(seconds)
    at = lambda share: ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3
    return {"steps_per_s": len(seconds) / sum(seconds), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": ordered[-1] * 1e3,
            "rtf": FRAME * len(seconds) / sum(seconds)}


def step_of(random, prompt, length, rows=2):
    """A steered step at the last of `length` positions; further rows rebuild the other caches, as at a roll-over."""
    step = cuda.Step()
    step.rows = rows
    columns = columns_of(random, 40)
    rows_of(step, columns, 39, prompt, 0)
    for row in range(2):
        step.row[row].position = length - 1
    for first in range(2, rows, 2):
        rows_of(step, columns, 30 + first, prompt, 0, first, (2, 3))
        for row in range(2):
            step.row[first + row].position = length // 2 + first
    draw_of(step, 0, 1.0, 250, 39)
    return step


def ours(random, model, arguments, bandwidth, common):
    states, _ = random.states(TOKENS, 11)
    states = np.ascontiguousarray(states.float().cpu().numpy())
    table = np.ascontiguousarray((random.draw(random.blocks, random.hidden) * 0.3).float().cpu().numpy())
    element = 2 * 2 * 2 * random.hidden * random.blocks
    chosen = [(arguments.overlap, arguments.prefetch, arguments.early)]
    for variant in chosen + (VARIANTS if arguments.variants else []):
        player = cuda.Player(model, POSITIONS, *variant)
        prompt = player.prompt(states)
        player.inject(0, table)
        if variant == chosen[0]:
            # Caches full of what the model itself makes would take as many steps; any finite numbers cost the same.
            fill(random, player, prompt, max(arguments.kv))
        for length in arguments.kv if variant == chosen[0] else arguments.kv[:1]:
            for rows in (2, 4, 6) if variant == chosen[0] else (2,):
                step = step_of(random, prompt, length, rows)
                player.time(step, WARM_UP)
                seconds, by_card = player.time(step, arguments.steps)
                found = spread(seconds)
                bytes_of_step = 2 * random.weights_of_step() + element * length
                if rows > 2:
                    # The rebuilt window's caches, which one or two positions read.
                    bytes_of_step += element * (length // 2 + 4)
                say(**common, who="tiller", kv=length, rows=rows, overlap=variant[0], prefetch=variant[1],
                    early=variant[2], steered=True,
                    weight_bytes=2 * random.weights_of_step(), bytes=bytes_of_step,
                    bandwidth_share=bytes_of_step * found["steps_per_s"] / bandwidth,
                    card_ms=by_card / arguments.steps * 1e3, **found)
        player.close()


def fill(random, player, prompt, length):
    columns = columns_of(random, 40)
    for position in range(0, length, 2):
        step = cuda.Step()
        step.rows = 8
        for first, caches in ((0, (0, 1)), (2, (0, 1)), (4, (2, 3)), (6, (2, 3))):
            rows_of(step, columns, 1 + position % 38, prompt, -1, first, caches)
            for row in range(2):
                step.row[first + row].position = min(position + first // 2 % 2, length - 1)
        player.step(step)


class Peer:
    """transformers' own step: a static cache that is full up to a length, its last position written anew each time."""

    def __init__(self, random, length):
        self.random, self.length = random, length
        config, dtype, size = random.model.config, random.model.dtype, random.hidden // random.heads
        config.bos_token_id = config.pad_token_id = None
        self.own = StaticCache(config=config, max_cache_len=length)
        for layer in self.own.layers:
            shape = (2, random.heads, length, size)
            keys, values = (torch.randn(shape, dtype=dtype, device=random.device) for _ in range(2))
            layer.lazy_initialization(keys, values)
            layer.keys.copy_(keys)
            layer.values.copy_(values)
        cross = StaticCache(config=config, max_cache_len=TOKENS)
        self.cache = EncoderDecoderCache(self.own, cross)
        _, projected = random.states(TOKENS, 11)
        self.text = torch.stack([projected, torch.zeros_like(projected)]).to(dtype)
        self.mask = torch.ones(2, TOKENS, dtype=torch.long, device=random.device)
        self.mask[1] = 0
        self.codes = torch.randint(random.vocab, (2 * random.books, 1), device=random.device)
        # As it is, 5.17 adds a length on the card to positions on the host.
        table = random.model.model.decoder.embed_positions
        table.forward = lambda ids, past=0: table.weights.index_select(
            0, torch.arange(ids.shape[-1], device=ids.device) + past).to(dtype)
        self.forward, self.replay = random.model.forward, None
        # Cross-attention is computed once: the first call fills its cache.
        self()

    def __call__(self):
        for layer in self.own.layers:
            if hasattr(layer, "cumulative_length"):
                filled = layer.cumulative_length
                if torch.is_tensor(filled):
                    filled.fill_(self.length - 1)
                else:
                    layer.cumulative_length = self.length - 1
        extra = {"cache_position": torch.tensor([self.length - 1], device=self.random.device)} if self.old() else {}
        out = self.forward(input_ids=self.codes, encoder_hidden_states=self.text, encoder_attention_mask=self.mask,
                           past_key_values=self.cache, use_cache=True, **extra)
        # The draw that follows every step: guidance, top-k, one code of each codebook.
        both = out.logits[:, -1].float()
        mixed = both[self.random.books :] + 3.0 * (both[: self.random.books] - both[self.random.books :])
        best, places = mixed.topk(min(250, mixed.shape[-1]))
        return places.gather(1, torch.multinomial(best.softmax(-1), 1))

    def old(self):
        return not hasattr(self.own.layers[0], "cumulative_length")

    def measure(self, seconds):
        step = self.replay or self

        def once():
            began = time.perf_counter()
            # Codes go back to the host, as they do with us.
            step().cpu()
            return time.perf_counter() - began

        for _ in range(5):
            once()
        times, began = [], time.perf_counter()
        while time.perf_counter() - began < seconds or len(times) < 5:
            times.append(once())
        return times


def captured(peer):
    """The peer's own kernels as one graph: what launching them one by one costs is left out."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            peer()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = peer()

    def replay():
        graph.replay()
        return out

    return replay


def prepared(random, arguments, common):
    """Peers that are ready to be measured, what takes long done; those that cannot be made say why."""
    for kind in arguments.peer:
        for length in arguments.kv if kind == "eager" else arguments.kv[:1]:
            try:
                began = time.time()
                peer = Peer(random, length)
                if kind == "compiled":
                    torch._dynamo.reset()
                    peer.forward = torch.compile(random.model.forward, mode="reduce-overhead", fullgraph=False)
                    for _ in range(3):
                        peer()
                if kind == "captured":
                    peer.replay = captured(peer)
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                yield kind, length, peer, time.time() - began
            except Exception as error:
                say(**common, who=f"torch-{kind}", kv=length, error=f"{type(error).__name__}: {error}"[:400])


def peers(ready, common):
    torch_name = f"torch {torch.__version__}, transformers {transformers.__version__}, bf16, static cache"
    for kind, length, peer, seconds in ready:
        try:
            say(**common, who=f"torch-{kind}", kv=length, rows=2, steered=False, what=torch_name,
                prepared_seconds=seconds, **spread(peer.measure(1.5)))
        except Exception as error:
            say(**common, who=f"torch-{kind}", kv=length, error=f"{type(error).__name__}: {error}"[:400])


def wait(gate):
    ready = pathlib.Path(gate).with_suffix(".ready")
    ready.touch()
    while not os.path.exists(gate):
        time.sleep(0.02)


def main():
    arguments = parse()
    torch.set_grad_enabled(False)
    transformers.logging.set_verbosity_error()
    library = cuda.Library(arguments.library)
    card = library.devices()[0]
    common = {"stage": "bench", "shape": arguments.shape, "card": card["name"]}
    random = Random(arguments.shape, arguments.device, torch.bfloat16)
    model = None if arguments.peers_only else random.give(library)
    ready = list(prepared(random, arguments, common))
    if arguments.gate:
        wait(arguments.gate)
    if model is None:
        return peers(ready, common)
    read, copy = library.bandwidth(arguments.probe)
    say(**common, who="card", driver=card["driver"], read_bytes_per_s=read, copy_bytes_per_s=copy)
    ours(random, model, arguments, max(read, copy), common)
    peers(ready, common)
    ours(random, model, argparse.Namespace(**{**vars(arguments), "variants": False, "kv": arguments.kv[:1]}),
         max(read, copy), {**common, "round": 2})
    after = library.bandwidth(arguments.probe)
    say(**common, who="card", round=2, read_bytes_per_s=after[0], copy_bytes_per_s=after[1],
        median_read=statistics.median([read, after[0]]))


if __name__ == "__main__":
    main()
