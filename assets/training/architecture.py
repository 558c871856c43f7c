"""The demo checkpoint's shape: exactly MusicGen's modules, small.

Everything is transformers' own code, so `save_pretrained` writes the published layout.
"""

from transformers import EncodecConfig, MusicgenConfig, MusicgenForConditionalGeneration, T5Config
from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

SAMPLE_RATE = 32_000
HOP = 640  # samples in a frame: 8 * 5 * 4 * 4
FRAME_RATE = 50
CODEBOOKS = 4
CODES = 1024  # codes in a codebook; the id after the last one is BOS and PAD
SPECIAL = CODES
TEXT_VOCABULARY = 768
WINDOW = 784  # positions trained, column 0 (BOS) included: 15.6 s of music behind the delay pattern


def text_config() -> T5Config:
    """T5 encoder in the form of t5-base: ReLU, not gated, one relative-position table in block 0."""
    return T5Config(
        vocab_size=TEXT_VOCABULARY,
        d_model=128,
        d_kv=32,
        d_ff=512,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="relu",
        is_encoder_decoder=False,
        use_cache=False,
        pad_token_id=0,
        eos_token_id=1,
    )


def codec_config() -> EncodecConfig:
    """EnCodec with the topology of the 32 kHz one; 2.0 kbit/s is 4 codebooks of 10 bits at 50 frames/s."""
    return EncodecConfig(
        target_bandwidths=[2.0],
        sampling_rate=SAMPLE_RATE,
        audio_channels=1,
        normalize=False,
        chunk_length_s=None,
        overlap=None,
        hidden_size=64,
        num_filters=16,
        num_residual_layers=1,
        upsampling_ratios=[8, 5, 4, 4],
        norm_type="weight_norm",
        use_causal_conv=False,
        pad_mode="reflect",
        num_lstm_layers=1,
        codebook_size=CODES,
        codebook_dim=64,
        use_conv_shortcut=False,
    )


def decoder_config() -> MusicgenDecoderConfig:
    """MusicGen's decoder: 6 blocks of width 256."""
    return MusicgenDecoderConfig(
        vocab_size=CODES,
        max_position_embeddings=2048,
        num_hidden_layers=6,
        ffn_dim=1024,
        num_attention_heads=4,
        hidden_size=256,
        activation_function="gelu",
        dropout=0.0,
        num_codebooks=CODEBOOKS,
        audio_channels=1,
        pad_token_id=SPECIAL,
        bos_token_id=SPECIAL,
        tie_word_embeddings=False,
    )


def build() -> MusicgenForConditionalGeneration:
    """The whole model with transformers' default initialisation (codebooks are zero until trained)."""
    config = MusicgenConfig(text_encoder=text_config(), audio_encoder=codec_config(), decoder=decoder_config())
    config.pad_token_id = SPECIAL
    config.bos_token_id = SPECIAL
    config.decoder_start_token_id = SPECIAL
    model = MusicgenForConditionalGeneration(config)
    generation = model.generation_config
    generation.pad_token_id = SPECIAL
    generation.bos_token_id = SPECIAL
    generation.decoder_start_token_id = SPECIAL
    generation.do_sample = True
    generation.guidance_scale = 3.0
    generation.max_length = WINDOW
    return model
