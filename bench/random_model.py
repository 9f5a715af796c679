"""The model that speed is measured on: 7 million parameters, with weights at random."""

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

VOCABULARY = 4096


def random_model(context: int, eos_id: int | None, pad_id: int | None) -> Qwen3ForCausalLM:
    """Every call gives the same weights; ``context`` is in tokens."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=eos_id,
        pad_token_id=pad_id,
    )
    torch.manual_seed(0)
    return Qwen3ForCausalLM(config)
