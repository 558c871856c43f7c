"""A random MusicGen in which every tensor counts: gains, biases and scales are drawn so that one that is dropped,
swapped or rescaled moves the outputs far beyond rounding.
"""

import torch
from transformers import MusicgenConfig, MusicgenForConditionalGeneration

import signals

# Fewest codes of a codebook that the encoder must use on the reference audio.
DISTINCT_CODES = 20
# The codec's convolutions are drawn this much wider than torch draws them. As drawn, every layer takes a third off what
# it hears: the latent would be all but constant, and transformers' search in f32 would miss the nearest code.
CODEC_WIDTH = 1.5


def build(config: MusicgenConfig, seed: int) -> MusicgenForConditionalGeneration:
    """The model of `config` in f32; the same seed gives the same bits with the same torch."""
    torch.manual_seed(seed)
    model = MusicgenForConditionalGeneration(config).eval()
    special = config.decoder.pad_token_id
    generation = model.generation_config
    generation.pad_token_id = special
    generation.bos_token_id = special
    generation.decoder_start_token_id = special
    generation.do_sample = True
    generation.guidance_scale = 3.0
    generation.max_length = 1500
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        condition(model, generator)
        fill_codebooks(model.audio_encoder, generator)
    return model


def condition(model, generator: torch.Generator) -> None:
    """Draws gains, biases and scales in place."""

    def uniform(weights, low, high):
        return torch.rand(weights.shape, generator=generator) * (high - low) + low

    def normal(weights, deviation):
        return torch.randn(weights.shape, generator=generator) * deviation

    for name, weights in model.named_parameters():
        module, leaf = name.split(".")[-2:]
        in_decoder = name.startswith("decoder.")
        if module.endswith("norm") and leaf == "weight":
            weights.copy_(uniform(weights, 0.5, 1.5))
        elif leaf.startswith("bias"):
            weights.copy_(normal(weights, 0.1))
        elif leaf == "original0":
            weights.mul_(CODEC_WIDTH * uniform(weights, 0.7, 1.3))
        elif leaf == "original1":
            weights.mul_(CODEC_WIDTH)
        elif module == "relative_attention_bias":
            # An embedding, not a bias; as T5 draws it, it would hardly show.
            weights.copy_(normal(weights, 0.3))
        elif in_decoder and "embed_tokens" in name:
            weights.mul_(20.0)
        elif in_decoder and module in ("q_proj", "k_proj"):
            weights.mul_(3.0)
        elif in_decoder and module in ("v_proj", "out_proj", "fc1", "fc2"):
            weights.mul_(2.0)
        elif module == "enc_to_dec_proj":
            weights.mul_(8.0)


def fill_codebooks(codec, generator: torch.Generator) -> None:
    """Codes of each stage drawn from the mean and deviation of what the stages before it leave."""
    config = codec.config
    probe = signals.notes(1000 * config.hop_length, config.audio_channels, config.sampling_rate, generator)
    residual = codec.encoder(probe).transpose(1, 2).reshape(-1, config.codebook_dim)
    for layer in codec.quantizer.layers:
        book = layer.codebook
        book.embed.copy_(residual.mean(0) + torch.randn(book.embed.shape, generator=generator) * residual.std(0))
        book.embed_avg.copy_(book.embed)
        book.cluster_size.fill_(1.0)
        residual = residual - book.embed[book.quantize(residual)]


def check(found: dict) -> list[str]:
    """Refuses a checkpoint whose codebooks are hardly used; gives remarks on where a mistake could hide. `found` is
    what `golden.compute` found.
    """
    few = min(found["encoded_distinct"])
    if few < DISTINCT_CODES:
        raise ValueError(
            f"a codebook uses {few} codes on the reference audio, at least {DISTINCT_CODES} are needed: take another seed"
        )
    remarks = []
    if found["greedy_distinct"] < DISTINCT_CODES:
        remarks.append(f"greedy decoding uses {found['greedy_distinct']} codes only")
    if found["text_effect"] < 0.05:
        remarks.append(f"the prompt moves the logits by {found['text_effect']:.3f} of their deviation only")
    if found["decoded_rms"] < 1e-3:
        remarks.append(f"the decoded audio has an RMS of {found['decoded_rms']:.2g} about its mean only")
    return remarks
