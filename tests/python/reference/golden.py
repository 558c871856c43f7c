"""Golden values: what transformers computes with a checkpoint, in f32, under the keys of `cargo xtask reference`.

Q codebooks, C codes of one EnCodec, N prompt tokens, T + 1 positions with BOS first. tests/fixtures/README.md lists all.
"""

import torch

import signals

GUIDANCE = 3.0
# Cached steps and one forward over everything may differ where the two best logits are this close.
TIE = 1e-4


def delays(config) -> list[int]:
    """Frames by which each codebook is late; in stereo a left and a right one share a delay."""
    return [k // config.audio_channels for k in range(config.num_codebooks)]


def delayed(codes: torch.Tensor, config) -> torch.Tensor:
    """`[Q, F]` to the decoder's input `[1, Q, F + largest delay + 1]`: BOS, then the whole pattern with its PADs."""
    late = delays(config)
    frames = codes.shape[-1]
    columns = torch.full((config.num_codebooks, frames + max(late) + 1), config.pad_token_id)
    columns[:, 0] = config.bos_token_id
    for k, delay in enumerate(late):
        columns[k, delay + 1 : delay + 1 + frames] = codes[k]
    return columns[None]


def teacher_forced(model, columns, states, mask):
    """Logits `[Q, T + 1, vocab]` and the output of every block, `[blocks, 1, T + 1, d]`, with no cache."""
    blocks = []
    layers = model.decoder.model.decoder.layers
    hooks = [layer.register_forward_hook(lambda _module, _inputs, out: blocks.append(out)) for layer in layers]
    try:
        logits = model(
            encoder_outputs=(states,), attention_mask=mask, decoder_input_ids=columns[0], use_cache=False
        ).logits
    finally:
        for hook in hooks:
            hook.remove()
    return logits.clone(), torch.stack(blocks)


def mixed(conditional, unconditional):
    return unconditional + GUIDANCE * (conditional - unconditional)


def greedy(model, states, mask, frames: int):
    """Greedy codes `[1, Q, frames]` with guidance, the delay pattern undone, and the gap between the two best logits
    at each, `[1, Q, frames]`; both rows in one cached batch, as `generate` runs them. Third: the decoder's input.
    """
    config = model.config.decoder
    late = delays(config)
    books, columns = config.num_codebooks, frames + max(late)
    states = torch.cat([states, torch.zeros_like(states)])
    mask = torch.cat([mask, torch.zeros_like(mask)])
    inputs = torch.full((books, columns + 1), config.pad_token_id)
    inputs[:, 0] = config.bos_token_id
    gaps = torch.zeros(books, columns + 1)
    cache = None
    for step in range(columns):
        out = model(
            encoder_outputs=(states,), attention_mask=mask, decoder_input_ids=inputs[:, step : step + 1].repeat(2, 1),
            past_key_values=cache, use_cache=True,
        )
        cache = out.past_key_values
        logits = mixed(out.logits[:books, -1], out.logits[books:, -1])
        best = logits.topk(2, dim=-1).values
        for k, delay in enumerate(late):
            if delay <= step < frames + delay:
                inputs[k, step + 1] = logits[k].argmax()
                gaps[k, step + 1] = best[k, 0] - best[k, 1]

    def undone(rows):
        return torch.stack([rows[k, delay + 1 : delay + 1 + frames] for k, delay in enumerate(late)])[None]

    return undone(inputs), undone(gaps), inputs[None]


def check_greedy(model, columns, states, mask, codes, gaps) -> float:
    """One forward without a cache over the greedy sequence must choose the same codes. Gives the largest difference
    that the cache makes to the gap.
    """
    conditional, _ = teacher_forced(model, columns, states, mask)
    unconditional, _ = teacher_forced(model, columns, torch.zeros_like(states), torch.zeros_like(mask))
    logits = mixed(conditional, unconditional)
    frames, worst = codes.shape[-1], 0.0
    for k, delay in enumerate(delays(model.config.decoder)):
        rows = logits[k, delay : delay + frames]
        best = rows.topk(2, dim=-1).values
        worst = max(worst, (best[:, 0] - best[:, 1] - gaps[0, k]).abs().max().item())
        wrong = (rows.argmax(-1) != codes[0, k]) & (gaps[0, k] > TIE)
        if wrong.any():
            raise ValueError(f"codebook {k}: {wrong.sum()} greedy codes change when no cache is used")
    return worst


def decode_channels(model, codes: torch.Tensor) -> torch.Tensor:
    """Interleaved codes `[1, Q, F]` to audio `[1, channels, samples]`, channel by channel as `generate` does it."""
    channels = model.config.decoder.audio_channels
    parts = [model.audio_encoder.decode(codes[None, :, c::channels], [None]).audio_values for c in range(channels)]
    return torch.cat(parts, dim=1)


def check_generate(model, ids, mask, codes: torch.Tensor) -> float:
    """transformers' own `generate` must give the audio of our greedy codes. Gives the largest difference.

    It is handed the prompt, not its states: given `encoder_outputs`, it makes no unconditional row.
    """
    new = codes.shape[-1] + max(delays(model.config.decoder))
    audio = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, guidance_scale=GUIDANCE, max_new_tokens=new
    )
    ours = decode_channels(model, codes)
    difference = (audio - ours).abs().max().item() if audio.shape == ours.shape else float("inf")
    if difference > 1e-5 * (1.0 + ours.abs().max().item()):
        raise ValueError(f"the greedy codes and generate() differ by {difference} in the audio")
    return difference


def encoded_gaps(codec, latent: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, int]:
    """`[1, C, frames]`: how much farther the second-nearest code is than the nearest, relative, in squared distance;
    and how often transformers' f32 arithmetic did not choose the nearest.
    """
    residual, gaps, missed = latent.transpose(1, 2)[0], [], 0
    for layer, chosen in zip(codec.quantizer.layers, codes[0]):
        book = layer.codebook.embed
        near = torch.cdist(residual.double(), book.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
        best = near.topk(2, dim=-1, largest=False)
        missed += (best.indices[:, 0] != chosen).sum().item()
        gaps.append(best.values[:, 1] / best.values[:, 0] - 1.0)
        residual = residual - book[chosen]
    return torch.stack(gaps)[None].float(), missed


def rounding(model, tensors: dict) -> dict:
    """How far f32 took these values from f64's, as shares of the largest: nobody's f32 can be expected to be nearer.
    Turns the model into f64.
    """
    model.double()
    mask = tensors["attention_mask"]
    states = model.text_encoder(input_ids=tensors["input_ids"], attention_mask=mask).last_hidden_state
    conditional, blocks = teacher_forced(model, tensors["decoder_input_ids"], states, mask)
    codec = model.audio_encoder
    exact = {
        "text_hidden": states,
        "hidden_states": blocks[:-1],
        "logits_conditional": conditional,
        "encoder_latent": codec.encoder(tensors["encoder_audio"].double()),
        "decoded_audio": codec.decode(tensors["codes"][None], [None]).audio_values,
    }
    return {
        name: ((tensors[name].double() - values).abs().max() / values.abs().max()).item()
        for name, values in exact.items()
    }


@torch.no_grad()
def compute(model, prompts, texts: dict, sizes: dict, seed: int, thorough: bool) -> tuple[dict, dict]:
    """All tensors by key, and what was found on the way. `thorough` also runs `generate`, and everything in f64.

    `texts`: `prompt`, `batch` and `cases` (lists); `sizes`: `positions`, `greedy_frames`, `decode_frames`,
    `encode_frames`.
    """
    config, codec = model.config.decoder, model.audio_encoder
    generator = torch.Generator().manual_seed(seed + 1)

    def states_of(ids, mask):
        return model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state

    ids, mask = prompts.batch([texts["prompt"]])
    states = states_of(ids, mask)
    padded_ids, padded_mask = prompts.batch(texts["batch"])
    tensors = {
        "input_ids": ids,
        "attention_mask": mask,
        "text_hidden": states,
        "padded_input_ids": padded_ids,
        "padded_attention_mask": padded_mask,
        "padded_text_hidden": states_of(padded_ids, padded_mask),
    }
    for index, case in enumerate(texts["cases"]):
        row = torch.tensor([case["ids"]])
        tensors[f"prompts_hidden.{index}"] = states_of(row, torch.ones_like(row))

    frames = sizes["positions"] - max(delays(config))
    columns = delayed(torch.randint(config.vocab_size, (config.num_codebooks, frames), generator=generator), config)
    conditional, blocks = teacher_forced(model, columns, states, mask)
    unconditional, _ = teacher_forced(model, columns, torch.zeros_like(states), torch.zeros_like(mask))
    codes, gaps, inputs = greedy(model, states, mask, sizes["greedy_frames"])
    found = {"greedy_cache_difference": check_greedy(model, inputs, states, mask, codes, gaps)}
    if thorough:
        found["generate_audio_difference"] = check_generate(model, ids, mask, codes)

    books = config.num_codebooks // config.audio_channels
    play = torch.randint(config.vocab_size, (1, books, sizes["decode_frames"]), generator=generator)
    samples = sizes["encode_frames"] * codec.config.hop_length + codec.config.hop_length // 2 + 1
    audio = signals.notes(samples, codec.config.audio_channels, codec.config.sampling_rate, generator)
    latent = codec.encoder(audio)
    encoded = codec.encode(audio).audio_codes[0]
    distances, found["encoded_not_nearest"] = encoded_gaps(codec, latent, encoded)
    tensors |= {
        "decoder_input_ids": columns,
        "logits_conditional": conditional,
        "logits_unconditional": unconditional,
        "hidden_states": blocks[:-1],
        "greedy_codes": codes,
        "greedy_gap": gaps,
        "codes": play,
        "decoded_audio": codec.decode(play[None], [None]).audio_values,
        "encoder_audio": audio,
        "encoder_latent": latent,
        "encoded_codes": encoded,
        "encoded_gap": distances,
    }
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{name} is not finite")
    heard = tensors["decoded_audio"]
    found |= {
        "text_rms": states.square().mean().sqrt().item(),
        "hidden_rms": [block.square().mean().sqrt().item() for block in blocks],
        "logits_deviation": conditional.std().item(),
        "text_effect": ((conditional - unconditional).std() / conditional.std()).item(),
        "greedy_distinct": codes.unique().numel(),
        "greedy_distinct_by_codebook": [row.unique().numel() for row in codes[0]],
        "greedy_ties": (gaps < TIE).sum().item(),
        "encoded_distinct": [row.unique().numel() for row in encoded[0]],
        "encoded_smallest_gap": distances.min().item(),
        "encoded_ties": (tensors["encoded_gap"] < 1e-5).sum().item(),
        "decoded_rms": (heard - heard.mean()).square().mean().sqrt().item(),
        "latent_rms": latent.square().mean().sqrt().item(),
        "latent_deviation": latent.std(dim=-1).mean().item(),
    }
    tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    if thorough:
        found["rounding"] = rounding(model, tensors)
    return tensors, found
