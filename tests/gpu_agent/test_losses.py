"""Losses against numbers that can be worked out, and against TRL's on the same tensors."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from gpu_agent import losses

# Both sides take the same float32 operations in another order.
TOLERANCE = 1e-5


def drawn(*shape: int, seed: int = 0, low: float = -40.0, high: float = -1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(*shape).uniform_(low, high, generator=generator)


def test_a_pair_that_nothing_was_learned_of_costs_a_coins_toss() -> None:
    same = drawn(6)

    assert losses.dpo(same, same + 3, same, same + 3, beta=0.1).tolist() == pytest.approx(
        [math.log(2)] * 6
    )


def test_dpo_of_one_pair_is_the_formula() -> None:
    values = (torch.tensor([value]) for value in (-10.0, -12.0, -11.0, -11.5))

    # beta ((-10 + 11) - (-12 + 11.5)) = 0.1 · 1.5
    assert losses.dpo(*values, beta=0.1).item() == pytest.approx(math.log(1 + math.exp(-0.15)))


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_dpo_is_trls(beta: float) -> None:
    chosen, rejected, first, second = (drawn(8, seed=seed) for seed in range(4))

    theirs = trl_dpo(chosen, rejected, first, second, beta)

    ours = losses.dpo(chosen, rejected, first, second, beta=beta).mean()
    assert ours.item() == pytest.approx(theirs.item(), abs=TOLERANCE)


def trl_dpo(chosen: Tensor, rejected: Tensor, first: Tensor, second: Tensor, beta: float) -> Tensor:
    """DPOTrainer's own ``_compute_loss``, over a model whose tokens have these log-probabilities."""
    from trl import DPOTrainer

    logps = torch.cat([chosen, rejected])[:, None]
    mask = torch.tensor([[0, 1]]).repeat(len(logps), 1)
    trainer = stand_in(
        DPOTrainer,
        beta=beta,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=["sigmoid"],
        loss_weights=[1.0],
        use_weighting=False,
        label_smoothing=0.0,
    )
    inputs = {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": first,
        "ref_rejected_logps": second,
    }
    return DPOTrainer._compute_loss(trainer, said(logps), inputs, return_outputs=False)


def said(logps: Tensor) -> Any:
    """A network that answers with these log-probabilities, (rows, tokens)."""
    outputs = SimpleNamespace(
        log_probs=logps,
        entropy=torch.zeros_like(logps),
        mean_logits=torch.zeros_like(logps),
        num_correct_tokens=torch.tensor(0),
        logits=torch.zeros(*logps.shape, 2),
        loss=torch.tensor(0.0),
        aux_loss=None,
        is_top1=torch.zeros_like(logps, dtype=torch.bool),
    )
    return lambda **_: outputs


def stand_in(trainer: type, **attributes: Any) -> Any:
    """What the loss reads of a trainer, without a model, data or devices."""
    gather = SimpleNamespace(
        device=torch.device("cpu"),
        gather_for_metrics=lambda tensor: tensor,
        gather=lambda tensor: tensor,
        reduce=lambda tensor, **_: tensor,
        num_processes=1,
    )
    metrics = {mode: _Anything() for mode in ("train", "eval")}
    made = SimpleNamespace(
        accelerator=gather,
        model=SimpleNamespace(training=True),
        _metrics=metrics,
        aux_loss_enabled=False,
        _total_train_tokens=0,
        _tp_size=1,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        **attributes,
    )
    for name in ("_compute_kl_logps", "_log_metric"):
        if hasattr(trainer, name):
            setattr(made, name, getattr(trainer, name).__get__(made))
    return made


class _Anything(dict[str, list[Any]]):
    def __missing__(self, key: str) -> list[Any]:
        return self.setdefault(key, [])


def test_label_smoothing_weighs_the_pair_both_ways_round() -> None:
    values = [drawn(8, seed=seed) for seed in range(4)]

    right = losses.dpo(*values, beta=0.3)
    wrong = losses.dpo(values[1], values[0], values[3], values[2], beta=0.3)

    both = losses.dpo(*values, beta=0.3, label_smoothing=0.2)
    assert torch.allclose(both, 0.8 * right + 0.2 * wrong, atol=TOLERANCE)


@pytest.mark.parametrize(("beta", "gamma"), [(2.0, 1.0), (2.5, 0.0)])
def test_simpo_is_trls(beta: float, gamma: float) -> None:
    from trl.experimental.cpo import CPOTrainer

    chosen, rejected = drawn(8, high=-0.1, low=-5), drawn(8, seed=1, high=-0.1, low=-5)
    trainer = stand_in(
        CPOTrainer, alpha=0.0, loss_type="simpo", simpo_gamma=gamma, beta=beta, label_smoothing=0.0
    )

    theirs, *_ = CPOTrainer.cpo_loss(trainer, chosen, rejected)

    ours = losses.simpo(chosen, rejected, beta=beta, gamma=gamma)
    assert torch.allclose(ours, theirs, atol=TOLERANCE)


def test_odds_of_orpo_are_trls() -> None:
    from trl.experimental.orpo import ORPOTrainer

    chosen, rejected = drawn(8, high=-0.01, low=-5), drawn(8, seed=1, high=-0.01, low=-5)

    odds, *_ = ORPOTrainer.odds_ratio_loss(stand_in(ORPOTrainer, beta=0.25), chosen, rejected)

    ours = losses.orpo(chosen, rejected, lambda_=0.25)
    assert torch.allclose(ours, -chosen - odds, atol=TOLERANCE)


def test_orpo_of_one_pair_is_the_formula() -> None:
    """Hong et al. 2024: odds(y) = p / (1 - p), with p the geometric mean over the answer's tokens."""
    p, q = 0.6, 0.2

    ours = losses.orpo(torch.tensor([math.log(p)]), torch.tensor([math.log(q)]), lambda_=0.1)

    odds = math.log((p / (1 - p)) / (q / (1 - q)))
    assert ours.item() == pytest.approx(-math.log(p) + 0.1 * math.log(1 + math.exp(-odds)))


def test_orpo_has_a_gradient_at_either_end() -> None:
    for chosen in (-1e-4, -60.0):
        x = torch.tensor([chosen], requires_grad=True)
        losses.orpo(x, torch.tensor([-3.0]), lambda_=0.1).sum().backward()
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("gained", [-2.0, 2.0])
def test_kto_is_trls(gained: float) -> None:
    answers, reference = drawn(6), drawn(6, seed=1)
    mismatched = drawn(6, seed=2)
    mismatched_reference = mismatched - gained
    desirable = torch.tensor([True, False, True, True, False, False])

    theirs = trl_kto(answers, reference, desirable, mismatched, mismatched_reference)

    divergence = losses.kto_divergence(mismatched, mismatched_reference)
    assert divergence.item() == pytest.approx(max(0.0, gained), abs=TOLERANCE)
    ours = losses.kto(
        answers,
        reference,
        desirable,
        divergence,
        beta=0.1,
        desirable_weight=1.2,
        undesirable_weight=0.7,
    )
    assert ours.mean().item() == pytest.approx(theirs.item(), abs=TOLERANCE)


def trl_kto(
    answers: Tensor,
    reference: Tensor,
    desirable: Tensor,
    mismatched: Tensor,
    mismatched_reference: Tensor,
) -> Tensor:
    from trl import KTOTrainer

    mask = torch.tensor([[0, 1]]).repeat(len(answers), 1)
    trainer = stand_in(
        KTOTrainer,
        beta=0.1,
        desirable_weight=1.2,
        undesirable_weight=0.7,
        loss_type="kto",
        calculate_KL=True,
        precompute_ref_logps=True,
    )
    trainer._compute_kl_logps = lambda *_: mismatched
    inputs = {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "label": desirable,
        "ref_logps": reference,
        "ref_KL_logps": mismatched_reference,
    }
    return KTOTrainer._compute_loss(trainer, said(answers[:, None]), inputs, return_outputs=False)


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_grpo_is_trls(beta: float) -> None:
    from trl import GRPOTrainer

    tokens, old = drawn(4, 5, high=-0.1, low=-3), drawn(4, 5, seed=1, high=-0.1, low=-3)
    reference = drawn(4, 5, seed=2, high=-0.1, low=-3)
    advantage = torch.tensor([1.0, -0.5, 0.3, -2.0])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]])
    trainer = stand_in(
        GRPOTrainer,
        beta=beta,
        epsilon_low=0.2,
        epsilon_high=0.2,
        loss_type="grpo",
        importance_sampling_level="token",
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        _get_per_token_logps_and_entropies=lambda *_, **__: (tokens, torch.zeros(4, 5), None),
    )
    inputs = {
        "prompt_ids": torch.zeros(4, 1, dtype=torch.int64),
        "prompt_mask": torch.ones(4, 1, dtype=torch.int64),
        "completion_ids": torch.zeros(4, 5, dtype=torch.int64),
        "completion_mask": mask,
        "advantages": advantage,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
    }

    theirs = GRPOTrainer._compute_loss(trainer, None, inputs)

    given = reference if beta else None
    ours = losses.grpo(tokens, old, given, advantage, mask, clip=0.2, beta=beta)
    assert ours.mean().item() == pytest.approx(theirs.item(), abs=TOLERANCE)


def test_advantages_are_the_deviations_of_a_group() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])

    found = losses.advantages(rewards)

    deviation = math.sqrt(4 * 0.25 / 3)  # of the sample, as TRL takes it
    assert found[0].tolist() == pytest.approx(
        [sign * 0.5 / (deviation + 1e-4) for sign in (1, -1, -1, 1)]
    )
    assert found[1].tolist() == [0.0] * 4


def test_log_odds_are_as_exact_as_double_precision() -> None:
    x = torch.tensor([-1e-4, -0.5, -0.7, -3.0, -30.0])

    exact = torch.log1p(-torch.exp(x.double()))

    assert torch.allclose(losses._log1mexp(x).double(), exact, rtol=1e-4)
    assert logsigmoid(torch.zeros(1)).item() == pytest.approx(-math.log(2))
