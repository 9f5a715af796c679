"""Loads a causal language model: frozen, in evaluation mode, in the precision that pays on its device."""

from dataclasses import dataclass, field
from typing import Any, Final

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from gpu_agent.base_models import LOADING, BaseModelFiles
from gpu_agent.outcomes import BaseModelRefused
from gpu_agent.precision import dtype_of
from gpu_agent.rendering import turn_end

# Of the largest logit: what rounding alone may change where two rows are computed together.
ROUNDING: Final = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}
# A step then takes 37 % less time, and at 1024 56 %; narrower ones are quick enough with all digits.
BFLOAT16_HIDDEN: Final = 512


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A base model in memory; adapters are laid over its network, and its own weights never change."""

    network: Any  # a causal language model of transformers
    tokenizer: Any
    max_tokens: int  # of prompt and answer together
    eos_ids: frozenset[int]  # any of them ends an answer
    files: BaseModelFiles
    # Its linear layers that take adapters, by their paths; gpu_agent.lora puts them in.
    adaptable: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.network.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.network.dtype
        return dtype


def load_language_model(
    files: BaseModelFiles, device: torch.device, asked: str = "auto"
) -> LanguageModel:
    """Load a model and its tokenizer; ``asked`` is a precision, and "auto" the one that pays.

    Raises:
        PrecisionUnfit: the device is not made for it.
        BaseModelRefused: there is no causal language model in the files, or none that can be read.
    """
    try:
        config = AutoConfig.from_pretrained(files.path, **LOADING)
        hidden = config.get_text_config().hidden_size
        network, loading = AutoModelForCausalLM.from_pretrained(
            files.path,
            dtype=precision(device, hidden) if asked == "auto" else dtype_of(asked, device),
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
            **LOADING,
        )
        tokenizer = AutoTokenizer.from_pretrained(files.path, **LOADING)
    except (
        ValueError,
        OSError,
        KeyError,
        AttributeError,
        SafetensorError,
        StrictDataclassError,
    ) as error:
        reason = str(error).partition("\n")[0]
        raise BaseModelRefused(f"{files.id}: is no language model to be used: {reason}") from error
    misshapen = {name for name, *_ in loading["mismatched_keys"]}
    if missing := sorted(loading["missing_keys"] | misshapen):  # at random, each time anew
        raise BaseModelRefused(
            f"{files.id}: is no whole language model: {len(missing)} of its weights are not in the "
            f"files or of another shape, {missing[0]} among them"
        )
    if not tokenizer.encode("a", add_special_tokens=False):
        raise BaseModelRefused(f"{files.id}: has no tokenizer that knows the letter a")
    network.requires_grad_(False).eval().to(device)
    if _looks_ahead(network):
        raise BaseModelRefused(
            f"{files.id}: is an encoder, whose tokens look at those behind them; only a causal "
            "language model can write answers"
        )
    eos_ids = _eos_ids(network, tokenizer)
    known = network.get_input_embeddings().num_embeddings
    if unknown := sorted(token for token in eos_ids if token >= known):
        raise BaseModelRefused(
            f"{files.id}: answers end with token {unknown[0]} of its tokenizer, and its network "
            f"knows {known} tokens only"
        )
    positions = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    return LanguageModel(
        network=network,
        tokenizer=tokenizer,
        max_tokens=min(positions or tokenizer.model_max_length, tokenizer.model_max_length),
        eos_ids=eos_ids,
        files=files,
    )


def precision(device: torch.device, hidden: int) -> torch.dtype:
    """Choose bfloat16 where the device multiplies it faster, and float32 everywhere else."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        fast = hidden >= BFLOAT16_HIDDEN and bool(able.get("amx_bf16") or able.get("avx512_bf16"))
    return torch.bfloat16 if fast else torch.float32


def _eos_ids(network: Any, tokenizer: Any) -> frozenset[int]:
    named = network.generation_config.eos_token_id
    ids = named if isinstance(named, list) else [named]
    # Of a base model the template often ends turns with a token that the others do not name.
    ends = [*ids, tokenizer.eos_token_id, turn_end(tokenizer)]
    return frozenset(number for number in ends if number is not None)


def _looks_ahead(network: Any) -> bool:
    """Try whether another second token changes what is said of the first."""
    ids = torch.tensor([[0, 1], [0, 2]], device=network.device)
    with torch.inference_mode():
        first, second = network(input_ids=ids, use_cache=False).logits[:, 0].float()
    difference = (first - second).abs().max() / first.abs().max()
    return bool(difference > ROUNDING[network.dtype])
