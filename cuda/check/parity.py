"""Is a card's step MusicGen's? Random weights of a shape, the library against transformers on the same weights: logits of both
guidance rows step by step, past several chunks of the attention; steering; codes drawn; any company of rows; the same bits
twice. Prints one JSON object; exit code 1 past a bound.
"""

import argparse
import json
import sys
import time

import numpy as np
import torch

import library as cuda
from models import POSITIONS, Random

BOUND = 2e-2
GUIDANCE = 3.0


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", required=True)
    parser.add_argument("--shape", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--positions", type=int, default=300)
    parser.add_argument("--blocks", type=int, help="no more of the shape's blocks than these: the emulated driver is slow")
    parser.add_argument("--overlap", type=int, default=1)
    parser.add_argument("--prefetch", type=int, default=0)
    parser.add_argument("--early", type=int, default=1)
    return parser.parse_args()


class Teacher:
    """transformers over whole columns: logits [positions][2][books * vocab], in f32 from the bf16 weights."""

    def __init__(self, random, projected, table):
        self.random = random
        self.text = torch.stack([projected, torch.zeros_like(projected)]).to(random.model.dtype)
        layers = random.model.model.decoder.layers
        for layer, injected in zip(layers, table):
            layer.register_forward_hook(self._hook(injected))
        self.steered = False

    def _hook(self, injected):
        def hook(_, __, output):
            if not self.steered:
                return output
            if isinstance(output, tuple):
                return (output[0] + injected.to(output[0].dtype),) + output[1:]
            return output + injected.to(output.dtype)

        return hook

    def __call__(self, columns, steered):
        self.steered = steered
        ids = torch.cat([columns, columns])
        random = self.random
        logits = random.model(input_ids=ids, encoder_hidden_states=self.text, use_cache=False).logits
        # [2 books][positions][vocab]
        logits = logits.float().reshape(2, random.books, columns.shape[1], random.vocab)
        return logits.permute(2, 0, 1, 3).reshape(columns.shape[1], 2, -1)


def columns_of(random, positions):
    """BOS, then codes under the delay pattern, all of them made up."""
    generator = torch.Generator(device="cpu").manual_seed(7)
    columns = torch.randint(random.vocab, (random.books, positions), generator=generator)
    channels = 2 if random.books == 8 else 1
    for book in range(random.books):
        columns[book, : book // channels + 1] = random.vocab
    return columns


def rows_of(step, columns, position, prompt, slot, first=0, caches=(0, 1)):
    for index, (cache, text) in enumerate(zip(caches, (prompt, 0))):
        row = step.row[first + index]
        row.cache, row.position, row.prompt, row.injection = cache, position, text, slot
        for book in range(columns.shape[0]):
            row.codes[book] = int(columns[book, position])


def draw_of(step, index, temperature, top_k, frame):
    draw = step.draws[index]
    draw.temperature, draw.guidance, draw.top_k, draw.seed, draw.frame, draw.live = temperature, GUIDANCE, top_k, 5, frame, 1


def play(random, player, columns, prompt, slot, temperature=1.0, top_k=250):
    """Step by step: logits [positions][2][...] and the codes drawn."""
    positions, width = columns.shape[1], random.books * random.vocab
    logits = np.zeros((positions, 2, width), np.float32)
    codes = np.zeros((positions, random.books), np.int64)
    for position in range(positions):
        step = cuda.Step()
        step.rows = 2
        rows_of(step, columns, position, prompt, slot)
        draw_of(step, 0, temperature, top_k, position)
        drawn = player.step(step)
        if drawn.not_finite:
            raise cuda.CardError(f"logits of position {position} are not finite")
        codes[position] = list(drawn.codes[0])[: random.books]
        for row in range(2):
            player.read(cuda.LOGITS, row, logits[position, row])
    return logits, codes


def uniform(seed, frame, codebook):
    """engine/src/decoder/sampling.rs."""
    mask = (1 << 64) - 1

    def mixed(x, constant):
        x = (x ^ x >> 32) * constant & mask
        return x ^ x >> 29

    x = mixed(mixed(seed << 32 | frame, 0x6A09E667F3BCC909), 0xBB67AE8584CAA73B)
    x = x + (codebook + 1) * 0x9E3779B97F4A7C15 & mask
    return (mixed(mixed(x, 0x3C6EF372FE94F82B), 0xA54FF53A5F1D36F1) >> 11) / (1 << 53)


def drawn_by_hand(random, logits, top_k):
    """The codes that the engine's sampler draws from these logits, at temperature 1."""
    codes = np.zeros((logits.shape[0], random.books), np.int64)
    for position in range(logits.shape[0]):
        for book in range(random.books):
            both = logits[position, :, book * random.vocab : (book + 1) * random.vocab]
            mixed = both[1] + np.float32(GUIDANCE) * (both[0] - both[1])
            if top_k == 1:
                codes[position, book] = mixed.argmax()
                continue
            lowest = np.sort(mixed)[-top_k] if top_k < random.vocab else -np.inf
            weights = np.where(mixed >= lowest, np.exp(mixed - mixed.max()).astype(np.float64), 0.0)
            target = uniform(5, position, book) * weights.sum()
            codes[position, book] = int((np.cumsum(weights) <= target).sum())
    return codes


def apart(ours, exact):
    """Largest difference over the largest logit, and the norm of the difference over the norm."""
    ours, exact = torch.as_tensor(ours, device=exact.device).double(), exact.double()
    if not bool(torch.isfinite(ours).all()):
        return float("inf"), float("inf")
    return float((ours - exact).abs().max() / exact.abs().max()), float((ours - exact).norm() / exact.norm())


def company(random, player, columns, prompt, alone):
    """Eight rows at once: two positions of one piece, steered strangers beside them. Ours must keep their bits."""
    same, width = True, random.books * random.vocab
    out = np.zeros(width, np.float32)
    strangers = torch.flip(columns, [0])
    for position in range(0, min(columns.shape[1], 160) - 1, 2):
        step = cuda.Step()
        step.rows = 8
        # A row may read what an earlier row of the same pass writes.
        rows_of(step, columns, position, prompt, -1, 0)
        rows_of(step, columns, position + 1, prompt, -1, 2)
        rows_of(step, strangers, position, prompt, 0, 4, (2, 3))
        rows_of(step, strangers, position + 1, prompt, 0, 6, (2, 3))
        player.step(step)
        for row in range(4):
            expected = alone[position + row // 2, row % 2]
            same &= bool((player.read(cuda.LOGITS, row, out) == expected).all())
    return same


def held(random, player, columns, prompt):
    """A push of the unconditional row, seen through a tap, against arithmetic by hand."""
    rng = np.random.default_rng(3)
    directions = rng.normal(size=(random.blocks, random.hidden)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    levels = np.tile(np.float32([0.0, 1000.0]), random.blocks)
    limits = np.full(random.blocks, 3.0, np.float32)
    number = player.held(directions, levels, limits)
    states = []
    for pushed in (False, True):
        step = cuda.Step()
        step.rows = 2
        rows_of(step, columns, 0, prompt, -1)
        step.taps[0].block, step.taps[0].row = 0, 1
        if pushed:
            step.row[1].pushes = 1
            step.row[1].push[0].held, step.row[1].push[0].reach, step.row[1].push[0].share = number, 1.0, 0.5
        player.step(step)
        states.append(player.read(cuda.TAP, 0, np.zeros(random.hidden, np.float32)))
    # Far below its level, a block gets its limit's share and no more.
    return float(np.abs(states[1] - states[0] - 1.5 * directions[0]).max())


def main():
    arguments = parse()
    torch.set_grad_enabled(False)
    if arguments.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
    began = time.time()
    library = cuda.Library(arguments.library)
    random = Random(arguments.shape, arguments.device, torch.float32, most_blocks=arguments.blocks)
    model = random.give(library)
    player = cuda.Player(model, POSITIONS, arguments.overlap, arguments.prefetch, arguments.early)
    states, projected = random.states(16, 11)
    prompt = player.prompt(np.ascontiguousarray(states.float().cpu().numpy()))
    table = (random.draw(random.blocks, random.hidden) * 0.3).float()
    player.inject(0, np.ascontiguousarray(table.cpu().numpy()))
    player.inject(1, np.zeros((random.blocks, random.hidden), np.float32))
    teacher = Teacher(random, projected, table)
    columns = columns_of(random, arguments.positions)
    ids = columns.to(arguments.device)
    exact, exact_steered = teacher(ids, False), teacher(ids, True)
    report = {"stage": "parity", "shape": arguments.shape, "positions": arguments.positions, "bound": BOUND,
              "card": library.devices()[0]["name"], "overlap": arguments.overlap, "model_bytes": model.bytes()}

    logits, codes = play(random, player, columns, prompt, -1)
    report["logits_max_rel"], report["logits_norm_rel"] = apart(logits, exact)
    by_position = (torch.as_tensor(logits, device=exact.device) - exact).abs().amax((1, 2)) / exact.abs().max()
    report["worst_position"] = int(by_position.argmax())
    report["same_bits_twice"] = bool((play(random, player, columns, prompt, -1)[0] == logits).all())
    report["drawn_equal_share"] = float((codes == drawn_by_hand(random, logits, 250)).mean())
    zero, _ = play(random, player, columns, prompt, 1)
    report["strength_0_same_bits"] = bool((zero == logits).all())
    steered, greedy = play(random, player, columns, prompt, 0, 0.0, 0)
    report["steered_max_rel"], report["steered_norm_rel"] = apart(steered, exact_steered)
    report["steering_is_heard"] = float((exact_steered - exact).abs().max() / exact.abs().max())
    report["greedy_as_own_logits_share"] = float((greedy == drawn_by_hand(random, steered, 1)).mean())
    by_teacher = drawn_by_hand(random, exact_steered.cpu().numpy(), 1)
    report["greedy_equal_share"] = float((greedy == by_teacher).mean())
    report["company_same_bits"] = company(random, player, columns, prompt, logits)
    report["held_max_abs"] = held(random, player, columns, prompt)
    # What bf16 costs transformers itself, for scale.
    random.model.to(torch.bfloat16)
    teacher.text = teacher.text.to(torch.bfloat16)
    report["torch_bf16_max_rel"], report["torch_bf16_norm_rel"] = apart(teacher(ids, False), exact)
    report["seconds"] = time.time() - began
    report["pass"] = (
        max(report["logits_max_rel"], report["steered_max_rel"]) < BOUND and report["same_bits_twice"]
        and report["strength_0_same_bits"] and report["company_same_bits"] and report["drawn_equal_share"] > 0.999
        and report["greedy_as_own_logits_share"] == 1.0 and report["held_max_abs"] < 1e-3)
    player.close()
    model.close()
    print(json.dumps(report), flush=True)
    return 0 if report["pass"] else 1


if __name__ == "__main__":
    sys.exit(main())
