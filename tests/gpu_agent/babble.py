"""Language models of two layers with weights at random: they say nothing, but always the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from domain.jobs.spec import ALL_LINEAR, LoraConfig
from gpu_agent.base_models import Places, find_base_model
from gpu_agent.detokenising import TokenTexts
from gpu_agent.generation import Speaker
from gpu_agent.language_model import LanguageModel, load_language_model
from gpu_agent.lora import add_lora, read_lora_weights, save_lora
from gpu_agent.speakers import bare_speaker

CONTEXT = 256
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,  # with the usual 0.02 every token is as likely as any other
}
WINDOW: dict[str, Any] = {"sliding_window": 8}
KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {}),
    "mistral": (MistralConfig, MistralForCausalLM, WINDOW),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM, {**WINDOW, "query_pre_attn_scalar": 8}),
}
SPECIAL = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>")


def tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token, so that any text can be said, and half a character too."""
    vocabulary = {char: n for n, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bytewise = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    bytewise.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=bytewise,
        eos_token=SPECIAL[0],
        pad_token=SPECIAL[0],
        additional_special_tokens=list(SPECIAL[1:]),
        model_max_length=CONTEXT,
        chat_template=TEMPLATE,
    )


def write_model(folder: Path, kind: str = "llama", *, seed: int = 0, ends: bool = False) -> Path:
    """Write a base model; without ``ends`` its answers are ASCII and end at their limit only."""
    config, network, changes = KINDS[kind]
    words = tokenizer()
    torch.manual_seed(seed)
    model = network(
        config(
            vocab_size=len(words),
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
            bos_token_id=None,
            **{**SIZES, **changes},
        )
    )
    if not ends:
        texts = TokenTexts(words)
        silent = [n for n in range(len(words)) if not texts.of(n) or texts.of(n)[0] >= 0x80]
        model.get_output_embeddings().weight.data[silent] = 0  # others score far from 0, up or down
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def load(folder: Path) -> LanguageModel:
    files = find_base_model(folder.name, Places(models=folder.parent))
    return load_language_model(files, torch.device("cpu"))


def write_adapter(folder: Path, base: Path, *, seed: int = 1, rank: int = 4) -> Path:
    """Write an adapter whose weights are at random too, so that it changes every answer."""
    model = load(base)
    config = LoraConfig(rank=rank, alpha=2.0 * rank, target_modules=(ALL_LINEAR,))
    for name, weight in add_lora(model, config, seed=seed).items():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(seed))
    save_lora(folder, model, config)
    return folder


def speaker(base: Path, *adapters: Path) -> list[Speaker]:
    """The base itself, and its voice under each of the adapters, over one network."""
    bare = bare_speaker(load(base), threads=1)
    weights = [read_lora_weights(path, bare.model) for path in adapters]
    return [bare, *(replace(bare, weights=laid_over) for laid_over in weights)]
