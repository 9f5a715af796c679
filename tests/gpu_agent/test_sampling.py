"""Tokens are chosen as asked: always the likeliest, or by lot among those that are left."""

import math
from collections import Counter
from typing import Any

import pytest
import torch

from domain.inference import Sampling
from gpu_agent.sampling import Sampler, choose, log_probabilities

SHARES = (0.5, 0.3, 0.15, 0.05)
LOGITS = torch.tensor(SHARES).log()


def draws(number: int = 2000, **sampling: Any) -> Counter[int]:
    sampler = Sampler(Sampling(**{"seed": 1} | sampling))
    return Counter(sampler.draw(LOGITS) for _ in range(number))


def test_tokens_come_as_often_as_they_are_likely() -> None:
    drawn = draws(10_000)

    for token, share in enumerate(SHARES):
        # Four standard deviations of a binomial share.
        assert drawn[token] / 10_000 == pytest.approx(share, abs=4 * math.sqrt(share / 10_000))


def test_temperature_sharpens_and_flattens() -> None:
    assert draws(temperature=0.5)[0] > draws()[0] > draws(temperature=2.0)[0]


@pytest.mark.parametrize("temperature", [1e-3, 1e-30])
def test_low_temperature_is_the_likeliest_token(temperature: float) -> None:
    assert draws(100, temperature=temperature) == {0: 100}


@pytest.mark.parametrize(("top_p", "left"), [(0.01, 1), (0.5, 1), (0.51, 2), (0.9, 3), (1.0, 4)])
def test_top_p_leaves_the_fewest_tokens_that_reach_it(top_p: float, left: int) -> None:
    assert set(draws(top_p=top_p)) == set(range(left))


@pytest.mark.parametrize("top_k", [1, 2, 4, 100])
def test_top_k_leaves_the_likeliest(top_k: int) -> None:
    assert set(draws(top_k=top_k)) == set(range(min(top_k, 4)))


def test_top_k_and_top_p_leave_what_both_leave() -> None:
    assert set(draws(top_k=3, top_p=0.6)) == {0, 1}


def test_top_p_of_a_flat_distribution_leaves_its_share_of_a_large_vocabulary() -> None:
    sampler = Sampler(Sampling(seed=1, top_p=0.5))
    falling = torch.linspace(0.001, 0, 10_000)

    drawn = [sampler.draw(falling) for _ in range(2000)]

    assert 4800 < max(drawn) < 5010


def test_order_of_the_vocabulary_does_not_matter() -> None:
    sampler = Sampler(Sampling(seed=1, top_p=0.9))

    assert {sampler.draw(LOGITS.flip(0)) for _ in range(2000)} == {1, 2, 3}


def test_seed_decides_and_without_one_nothing_repeats() -> None:
    def drawn(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(seed=seed))
        return [sampler.draw(LOGITS) for _ in range(200)]

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)
    assert drawn(None) != drawn(None)
    assert drawn(-1) == drawn(-1)


def test_rows_are_chosen_each_by_its_own_rules() -> None:
    alone = Sampler(Sampling(seed=3))
    beside = Sampler(Sampling(seed=3))
    greedy = Sampler(Sampling(temperature=0))
    other = Sampler(Sampling(seed=4))

    for _ in range(50):
        rows = torch.stack([LOGITS, LOGITS, LOGITS])
        first, second, _third = choose(rows, [greedy, beside, other])
        assert first == 0
        assert second == alone.draw(LOGITS)


def test_row_without_numbers_is_told_apart() -> None:
    rows = torch.stack([LOGITS, LOGITS * math.nan, LOGITS - math.inf])

    assert choose(rows, [Sampler(Sampling(temperature=0))] * 3) == [0, None, None]


def test_log_probabilities_are_the_models_own() -> None:
    own, top = log_probabilities(LOGITS + 5, 2, 2)

    assert own == pytest.approx(math.log(0.15))
    assert [token for token, _ in top] == [0, 1]
    assert [value for _, value in top] == pytest.approx([math.log(0.5), math.log(0.3)])
    assert log_probabilities(LOGITS, 2, 0)[1] == []
