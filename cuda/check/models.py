"""Random models of MusicGen's shapes: drawn once by a seed on the device, given to transformers and to the library alike."""

import torch
from transformers import MusicgenForCausalLM
from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

import library as cuda

# hidden, blocks, heads, feed, vocab, codebooks, channels
SHAPES = {
    "tiny": (64, 2, 4, 128, 64, 4, 1),
    "demo": (256, 6, 4, 1024, 1024, 4, 1),
    "small": (1024, 24, 16, 4096, 2048, 4, 1),
    "medium": (1536, 48, 24, 6144, 2048, 4, 1),
    "large": (2048, 48, 32, 8192, 2048, 4, 1),
    "stereo-small": (1024, 24, 16, 4096, 2048, 8, 2),
}
TEXT_WIDTH = {"tiny": 40, "demo": 128}
POSITIONS = 1504


class Random:
    """transformers' model of a shape in f32 or bf16 with weights that are exactly bf16, and what belongs to it."""

    def __init__(self, shape, device, dtype, seed=1, most_blocks=None):
        self.name, self.device = shape, device
        hidden, blocks, heads, feed, vocab, books, channels = SHAPES[shape]
        blocks = min(blocks, most_blocks or blocks)
        self.hidden, self.blocks, self.heads, self.feed, self.vocab, self.books = hidden, blocks, heads, feed, vocab, books
        self.text_width = TEXT_WIDTH.get(shape, 768)
        config = MusicgenDecoderConfig(
            vocab_size=vocab, num_hidden_layers=blocks, hidden_size=hidden, ffn_dim=feed, num_attention_heads=heads,
            num_codebooks=books, audio_channels=channels, dropout=0.0, attn_implementation="sdpa")
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device):
                self.model = MusicgenForCausalLM(config).eval()
        finally:
            torch.set_default_dtype(before)
        generator = torch.Generator(device=device).manual_seed(seed)
        self.draw = lambda *size: torch.randn(*size, device=device, generator=generator)
        for name, weights in self.model.named_parameters():
            weights.copy_(self._drawn(name, weights.shape))
        self.projection = (self.draw(hidden, self.text_width) * self.text_width**-0.5).bfloat16()
        self.projection_bias = self.draw(hidden) * 0.02
        # Sinusoids in f32, as the published checkpoints are run.
        self.positions = _sinusoids(POSITIONS, hidden).to(device)

    def _drawn(self, name, shape):
        if len(shape) == 1:
            numbers = self.draw(*shape)
            return (numbers * 0.02 if name.endswith("bias") else 1.0 + 0.1 * numbers).bfloat16()
        inputs = shape[-1]
        deviation = inputs**-0.5
        if "embed_tokens" in name:
            deviation = 0.5
        elif "lm_heads" in name:
            deviation *= 2.0
        elif "out_proj" in name or "fc2" in name:
            deviation *= 0.5
        return (self.draw(*shape) * deviation).bfloat16()

    def states(self, tokens, seed):
        """Text states [tokens][text_width], and what the decoder is given of them."""
        generator = torch.Generator(device=self.device).manual_seed(seed)
        states = torch.randn(tokens, self.text_width, device=self.device, generator=generator)
        return states, states @ self.projection.float().T + self.projection_bias

    def give(self, library):
        """The same weights as a model of the library's."""
        shape = cuda.Shape(self.hidden, self.heads, self.feed, self.vocab, self.books, self.blocks, self.text_width, 0,
                           POSITIONS, 1)
        to = cuda.Model(library, shape)

        def give(name, block, values):
            half = name in ("SelfIn SelfOut CrossQuery CrossIn CrossOut FeedIn FeedOut Heads TextProjection".split())
            values = values.detach().to(torch.bfloat16 if half else torch.float32).contiguous()
            if values.is_cuda:
                torch.cuda.synchronize()
            to.tensor(name, block, values)

        decoder = self.model.model.decoder
        give("Embeddings", 0, torch.stack([table.weight for table in decoder.embed_tokens]))
        give("Heads", 0, torch.cat([head.weight for head in self.model.lm_heads]))
        give("Positions", 0, self.positions)
        for block, layer in enumerate(decoder.layers):
            for name, norm in (("Self", layer.self_attn_layer_norm), ("Cross", layer.encoder_attn_layer_norm),
                               ("Feed", layer.final_layer_norm)):
                give(f"{name}Gain", block, norm.weight)
                give(f"{name}Offset", block, norm.bias)
            own, cross = layer.self_attn, layer.encoder_attn
            give("SelfIn", block, torch.cat([own.q_proj.weight, own.k_proj.weight, own.v_proj.weight]))
            give("SelfOut", block, own.out_proj.weight)
            give("CrossQuery", block, cross.q_proj.weight)
            give("CrossIn", block, torch.cat([cross.k_proj.weight, cross.v_proj.weight]))
            give("CrossOut", block, cross.out_proj.weight)
            give("FeedIn", block, layer.fc1.weight)
            give("FeedOut", block, layer.fc2.weight)
        give("FinalGain", 0, decoder.layer_norm.weight)
        give("FinalOffset", 0, decoder.layer_norm.bias)
        give("TextProjection", 0, self.projection)
        give("TextOffset", 0, self.projection_bias)
        return to

    def weights_of_step(self):
        """Numbers in the matrices that a step reads."""
        return self.blocks * (6 * self.hidden**2 + 2 * self.hidden * self.feed) + self.books * self.vocab * self.hidden


def _sinusoids(positions, width):
    """transformers' formula: cosines first, then sines."""
    half = width // 2
    step = torch.log(torch.tensor(10000.0)) / (half - 1)
    frequencies = torch.exp(torch.arange(half, dtype=torch.int64).float() * -step)
    angles = torch.arange(positions, dtype=torch.int64).float().unsqueeze(1) * frequencies.unsqueeze(0)
    return torch.cat([angles.cos(), angles.sin()], dim=1)
