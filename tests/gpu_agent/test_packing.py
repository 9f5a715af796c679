"""Rows that run together give what each gives alone, and where they cannot, this is found out."""

import random
from typing import Any

import pytest
import torch
from transformers import GPTNeoConfig, GPTNeoForCausalLM

from gpu_agent.language_model import LanguageModel
from gpu_agent.packing import (
    SEGMENTS,
    micro_batches,
    pack,
    predictions,
    row_by_row,
    segment_attention,
)
from gpu_agent.rendering import Rendered
from tests.gpu_agent import babble

CPU = torch.device("cpu")
PACKABLE = ("llama", "qwen3", "mistral")  # the last looks back 8 tokens only


def row(length: int, seed: int, *, supervised: int | None = None) -> Rendered:
    """Tokens at random; the last ``supervised`` of them are learned from, or all but the first."""
    drawn = random.Random(seed)
    ids = tuple(drawn.randrange(200) for _ in range(length))
    learned = length - 1 if supervised is None else supervised
    flags = tuple(at >= length - learned for at in range(length))
    return Rendered(ids, flags, truncated=False, full_length=length)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LanguageModel]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: babble.load(babble.write_model(folder / kind, kind)) for kind in babble.KINDS}


@pytest.mark.parametrize("kind", PACKABLE)
def test_rows_together_give_what_each_gives_alone(
    kind: str, models: dict[str, LanguageModel]
) -> None:
    network = models[kind].network
    rows = [row(length, seed=length) for length in (3, 17, 1, 40, 9)]
    alone = [predictions(network, pack([each], CPU)) for each in rows if each.targets]

    with row_by_row(network) as together:
        packed = predictions(network, pack(rows, CPU))

    assert together
    assert torch.allclose(packed, torch.cat(alone), atol=1e-5)


@pytest.mark.parametrize("kind", PACKABLE)
def test_other_rows_leave_no_trace_in_a_gradient(
    kind: str, models: dict[str, LanguageModel]
) -> None:
    network = models[kind].network
    embeddings = network.get_input_embeddings()
    batch = pack([row(12, seed=1), row(20, seed=2)], CPU)
    seen: list[torch.Tensor] = []

    def watch(_: Any, __: Any, output: torch.Tensor) -> None:
        output.requires_grad_().retain_grad()
        seen.append(output)

    with row_by_row(network):
        hook = embeddings.register_forward_hook(watch)
        predictions(network, batch)[:11].sum().backward()
        hook.remove()

    gradient = seen[0].grad
    assert gradient is not None
    assert gradient[0, :11].abs().sum() > 0
    assert gradient[0, 12:].abs().sum() == 0


@pytest.mark.parametrize("window", [None, 4])
def test_attention_keeps_to_scale_and_window(window: int | None) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, 9, 8) for heads in (4, 2, 2))
    more = {"scaling": 0.7, "sliding_window": window}

    both, _ = segment_attention(torch.nn.Module(), query, key, value, None, segments=(3, 6), **more)

    scores = 0.7 * query @ key.repeat_interleave(2, dim=1).transpose(2, 3)
    at = torch.arange(9)
    allowed = (at[:, None] >= at) & ((at[:, None] < 3) == (at < 3))
    if window is not None:
        allowed &= at[:, None] - at < window
    expected = scores.masked_fill(~allowed, -torch.inf).softmax(dim=3)
    expected = expected @ value.repeat_interleave(2, dim=1)
    assert torch.allclose(both, expected.transpose(1, 2), atol=1e-5)


def test_network_that_caps_its_scores_runs_one_row_at_a_time(
    models: dict[str, LanguageModel],
) -> None:
    network = models["gemma2"].network
    before = network.config._attn_implementation

    with row_by_row(network) as together:
        assert not together
        assert network.config._attn_implementation == before


def test_network_whose_rows_see_each_other_runs_one_row_at_a_time(
    models: dict[str, LanguageModel],
) -> None:
    network = models["llama"].network
    layer = network.model.layers[0]

    def mixes(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        return output.cumsum(dim=1)  # as a recurrent layer would, that knows nothing of segments

    hook = layer.register_forward_hook(mixes)
    with row_by_row(network) as together:
        hook.remove()

    assert not together


def test_network_with_an_attention_of_its_own_runs_one_row_at_a_time() -> None:
    config = GPTNeoConfig(
        vocab_size=260,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=16,
    )
    network = GPTNeoForCausalLM(config).eval()

    with row_by_row(network) as together:
        assert not together  # two rows of 12 tokens are more than its own mask has room for


def test_attention_is_as_before_afterwards(models: dict[str, LanguageModel]) -> None:
    network = models["qwen3"].network
    before = network.config._attn_implementation

    with row_by_row(network):
        during = network.config._attn_implementation

    assert (before, during, network.config._attn_implementation) == ("sdpa", SEGMENTS, "sdpa")


def test_only_supervised_tokens_are_predicted() -> None:
    batch = pack([row(5, seed=1, supervised=2), row(4, seed=2, supervised=1)], CPU)

    assert batch.lengths == (5, 4)
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3]]
    assert batch.places.tolist() == [2, 3, 7]  # each before its target
    assert batch.targets.tolist() == [batch.ids[0, at].item() for at in (3, 4, 8)]


def lengths(parts: list[list[Rendered]]) -> list[list[int]]:
    return [[len(each.ids) for each in part] for part in parts]


def test_micro_batches_keep_to_their_limits_and_to_the_order() -> None:
    rows = [row(length, seed=0) for length in (4, 4, 9, 1, 30, 2, 2)]

    assert lengths(list(micro_batches(rows, 10, 100))) == [[4, 4], [9, 1], [30], [2, 2]]
    assert lengths(list(micro_batches(rows, 100, 8))) == [[4, 4], [9, 1], [30], [2, 2]]
    assert lengths(list(micro_batches(rows, 10, 100, together=False))) == [
        [length] for length in (4, 4, 9, 1, 30, 2, 2)
    ]
    assert list(micro_batches([], 10, 100)) == []


def test_rows_of_one_length_attend_as_they_do_alone() -> None:
    drawn = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, 60, 8, generator=drawn) for heads in (4, 2, 2))

    together, _ = segment_attention(None, query, key, value, None, segments=(20, 20, 20))

    for at in (0, 20, 40):
        own = [tensor[:, :, at : at + 20] for tensor in (query, key, value)]
        alone, _ = segment_attention(None, *own, None, segments=(20,))
        assert torch.allclose(together[:, at : at + 20], alone, atol=1e-6)
