"""Golden values of a checkpoint directory from Hugging Face transformers, written to one safetensors file.

Keys and shapes are those of `cargo xtask reference`: Q codebooks, C codes of one EnCodec, N prompt tokens,
T + 1 positions with BOS first.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import MusicgenForConditionalGeneration

import text


def undo_delay(columns: torch.Tensor, frames: int) -> torch.Tensor:
    """`[Q, columns]` with BOS in column 0 to `[1, Q, frames]`: codebook k of frame f lies in column f + k + 1."""
    return torch.stack([row[k + 1 : k + 1 + frames] for k, row in enumerate(columns)])[None]


def delayed(codes: torch.Tensor, special: int) -> torch.Tensor:
    """`[Q, frames]` to the decoder's input `[1, Q, frames + 1]`: BOS first, codebook k late by k, the end cut off."""
    books, frames = codes.shape
    columns = torch.full((books, frames + 1), special)
    for k in range(books):
        columns[k, k + 1 :] = codes[k, : frames - k]
    return columns[None]


@torch.no_grad()
def forward(model, columns, encoder_outputs, mask):
    """Logits `[Q, T + 1, vocab]` and the outputs of every block, `[blocks, 1, T + 1, d]`."""
    blocks = []
    hooks = [layer.register_forward_hook(lambda _m, _i, out: blocks.append(out)) for layer in
             model.decoder.model.decoder.layers]
    logits = model(
        encoder_outputs=(encoder_outputs,), attention_mask=mask, decoder_input_ids=columns[0], use_cache=False
    ).logits
    for hook in hooks:
        hook.remove()
    return logits.clone(), torch.stack(blocks)


@torch.no_grad()
def greedy(model, states, mask, frames: int, guidance: float) -> torch.Tensor:
    """Greedy codes `[1, Q, frames]` with guidance on logits, position by position with no cache tricks."""
    config = model.config.decoder
    books, special = config.num_codebooks, config.pad_token_id
    columns = torch.full((books, 1), special)
    null_states, null_mask = torch.zeros_like(states[:, :1]), torch.zeros_like(mask[:, :1])
    for _ in range(frames + books - 1):
        conditional, _ = forward(model, columns[None], states, mask)
        unconditional, _ = forward(model, columns[None], null_states, null_mask)
        logits = unconditional[:, -1] + guidance * (conditional[:, -1] - unconditional[:, -1])
        step = columns.shape[1]
        following = logits.argmax(-1)
        for k in range(books):
            if step <= k or step > frames + k:
                following[k] = special
        columns = torch.cat([columns, following[:, None]], dim=1)
    return undo_delay(columns, frames)


@torch.no_grad()
def check_generate(model, ids, mask, codes: torch.Tensor, guidance: float) -> None:
    """transformers' own `generate` must give the same audio as our greedy codes.

    It is given the prompt, not its states: handed `encoder_outputs`, it makes no unconditional row.
    """
    audio = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, guidance_scale=guidance,
        max_new_tokens=codes.shape[-1] + model.config.decoder.num_codebooks - 1,
    )
    if model.config.decoder.audio_channels == 1:
        ours = model.audio_encoder.decode(codes[None], [None]).audio_values
        difference = (audio - ours).abs().max().item() if audio.shape == ours.shape else float("inf")
        if difference > 1e-5:
            raise ValueError(f"greedy codes and generate() differ by {difference} in the audio")
        print(f"greedy codes against generate(): largest difference in the audio {difference}")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompt", default="slow warm strings pad")
    parser.add_argument("--frames", type=int, default=24, help="frames of the teacher-forced pass")
    parser.add_argument("--greedy-frames", type=int, default=60)
    parser.add_argument("--encoder-samples", type=int, default=60 * 640 + 123)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    model = MusicgenForConditionalGeneration.from_pretrained(arguments.checkpoint, dtype=torch.float32).eval()
    config, codec = model.config.decoder, model.audio_encoder
    encoded = text.published(arguments.checkpoint)(arguments.prompt, return_tensors="pt")
    ids, mask = encoded.input_ids, encoded.attention_mask
    ours = text.load(arguments.checkpoint).encode(arguments.prompt).ids
    if ids[0].tolist() != ours:
        raise ValueError(f"transformers tokenises as {ids[0].tolist()}, tokenizer.json as {ours}")
    states = model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    codes = torch.randint(config.vocab_size, (config.num_codebooks, arguments.frames))
    columns = delayed(codes, config.pad_token_id)
    conditional, blocks = forward(model, columns, states, mask)
    unconditional, _ = forward(model, columns, torch.zeros_like(states[:, :1]), torch.zeros_like(mask[:, :1]))
    greedy_codes = greedy(model, states, mask, arguments.greedy_frames, 3.0)
    check_generate(model, ids, mask, greedy_codes, 3.0)
    seconds = torch.arange(arguments.encoder_samples) / codec.config.sampling_rate
    tone = sum(torch.sin(2 * torch.pi * f * seconds * (1 + 0.1 * seconds)) for f in (131.0, 330.0, 784.0, 2093.0))
    audio = (0.08 * tone + 0.01 * torch.randn(seconds.shape))[None, None]
    latent = codec.encoder(audio)
    books = codec.config.num_quantizers
    play = codes[None, :books] if config.audio_channels == 1 else codes[None, 0::2]
    tensors = {
        "input_ids": ids,
        "attention_mask": mask,
        "text_hidden": states,
        "decoder_input_ids": columns,
        "logits_conditional": conditional,
        "logits_unconditional": unconditional,
        "hidden_states": blocks[:-1],
        "greedy_codes": greedy_codes,
        "codes": play,
        "decoded_audio": codec.decode(play[None], [None]).audio_values,
        "encoder_audio": audio,
        "encoder_latent": latent,
        "encoded_codes": codec.encode(audio).audio_codes[0],
    }
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{name} is not finite")
        floating = tensor.is_floating_point()
        content = f"rms {tensor.square().mean().sqrt():.4g}" if floating else f"{tensor.unique().numel()} distinct"
        print(f"{name} {list(tensor.shape)}, {content}")
    tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"prompt": arguments.prompt, "guidance": "3.0", "checkpoint": arguments.checkpoint.name}
    save_file(tensors, str(arguments.out), metadata=metadata)
    arguments.out.chmod(0o644)


if __name__ == "__main__":
    main()
