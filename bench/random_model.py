"""The models that speed is measured on: of 7 and of 30 million parameters, with weights at random."""

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

VOCABULARY = 4096


# Of 7 million parameters, and of 29.
SIZES = {
    "7M": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8, "head_dim": 32},
    "30M": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 9, "head_dim": 64},
}


def random_model(
    context: int, eos_id: int | None, pad_id: int | None, size: str = "7M"
) -> Qwen3ForCausalLM:
    """Every call gives the same weights; ``context`` is in tokens."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        num_attention_heads=8,
        num_key_value_heads=4,
        **SIZES[size],
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=eos_id,
        pad_token_id=pad_id,
    )
    torch.manual_seed(0)
    return Qwen3ForCausalLM(config)
