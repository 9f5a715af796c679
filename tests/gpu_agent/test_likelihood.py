"""Log-likelihoods against the plain way to them: one sequence at a time, with nothing shared."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from gpu_agent import likelihood
from gpu_agent.likelihood import label_log_likelihoods, row_nats

VOCABULARY = 50
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,  # the usual 0.02 finds everything about as likely
}
WINDOWED = SIZES | {"sliding_window": 6}  # shorter than the prompts
NETWORKS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**WINDOWED)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**WINDOWED)),
}
PROMPTS = [(3, 1, 4, 1, 5, 9, 2, 6, 5), (8,), (9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3)]
LABELS = [(11, 12, 2), (11, 2), (13, 14, 15, 16, 2), (17,), (11, 12, 13, 2)]


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(1)
    return NETWORKS[request.param]().eval()


def plainly(network: Any, prompt: Sequence[int], answer: Sequence[int]) -> float:
    """Sum log p of the answer, by one pass over one whole sequence."""
    with torch.inference_mode():
        logits = network(input_ids=torch.tensor([[*prompt, *answer]])).logits[0]
    steps = logits.double().log_softmax(dim=-1)[len(prompt) - 1 : -1]
    return float(steps[range(len(answer)), list(answer)].sum())


def test_labels_that_share_a_prompts_cache_score_as_whole_sequences_do(network: Any) -> None:
    found = label_log_likelihoods(network, PROMPTS, LABELS)

    expected = [[plainly(network, prompt, label) for label in LABELS] for prompt in PROMPTS]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_rows_score_as_they_do_alone(network: Any) -> None:
    rows = [(*prompt, *label) for prompt, label in zip(PROMPTS, LABELS, strict=False)]
    supervised = [
        (False,) * len(prompt) + (True,) * len(label)
        for prompt, label in zip(PROMPTS, LABELS, strict=False)
    ]

    found = row_nats(network, rows, supervised)

    expected = [-plainly(network, *pair) for pair in zip(PROMPTS, LABELS, strict=False)]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_little_room_changes_no_score(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(*prompt, 2) for prompt in PROMPTS]
    supervised = [(True,) * len(row) for row in rows]
    at_once = label_log_likelihoods(network, PROMPTS, LABELS), row_nats(network, rows, supervised)
    monkeypatch.setattr(likelihood, "TOKENS_AT_ONCE", 40)  # two labels at a time
    monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", 20 * VOCABULARY)

    np.testing.assert_allclose(
        label_log_likelihoods(network, PROMPTS, LABELS), at_once[0], atol=1e-4
    )
    np.testing.assert_allclose(row_nats(network, rows, supervised), at_once[1], atol=1e-4)


def test_a_network_that_knows_nothing_pays_log_of_the_vocabulary_for_a_token() -> None:
    network = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    torch.nn.init.zeros_(network.lm_head.weight)

    found = label_log_likelihoods(network, PROMPTS, LABELS)
    nats = row_nats(network, [(1, 2, 3, 4)], [(True, False, True, True)])

    expected = -np.log(VOCABULARY) * np.array([len(label) for label in LABELS])
    np.testing.assert_allclose(found, np.tile(expected, (3, 1)), rtol=1e-6)
    assert nats == pytest.approx([2 * np.log(VOCABULARY)])  # nothing comes before the first token


def test_a_row_with_nothing_to_answer_costs_nothing() -> None:
    network = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()

    assert row_nats(network, [(1, 2, 3)], [(False, False, False)]).tolist() == [0.0]
