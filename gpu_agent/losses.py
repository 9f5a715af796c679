"""Losses of preference tuning and of reinforcement: pure functions of log-probabilities, in nats.

Shapes: P pairs or R rows of a batch, (R, T) tokens of sampled answers. Each gives a value for every
pair or row; whoever calls takes the mean.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def dpo(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Rafailov et al. 2023, equation 7; with label smoothing Mitchell 2023, equation 3.

    Args:
        chosen: (P,) log p of whole answers, summed over their tokens, and so are the others.
        label_smoothing: the share of pairs that are believed to stand the wrong way round.
    """
    margin = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    return -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)


def simpo(chosen: Tensor, rejected: Tensor, *, beta: float, gamma: float) -> Tensor:
    """Meng et al. 2024, equation 6.

    Args:
        chosen: (P,) log p of answers, the mean over their tokens, and so is ``rejected``.
        gamma: by how much the better answer is to win.
    """
    return -logsigmoid(beta * (chosen - rejected) - gamma)


def orpo(chosen: Tensor, rejected: Tensor, *, lambda_: float) -> Tensor:
    """Hong et al. 2024, equations 6 and 7: to say the better answer, and not the worse.

    Args:
        chosen: (P,) log p of answers, the mean over their tokens, and so is ``rejected``; below 0.
    """
    odds = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
    return -chosen - lambda_ * logsigmoid(odds)


def kto(
    answers: Tensor,
    reference: Tensor,
    desirable: Tensor,
    divergence: Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Ethayarajh et al. 2024, equation 8.

    Args:
        answers: (R,) log p of whole answers, summed over their tokens, and so is ``reference``.
        desirable: (R,) bool.
        divergence: () the estimate of KL(policy, reference) of the batch, at least 0; no gradient.
    """
    reward = answers - reference - divergence
    wanted = desirable_weight * (1 - torch.sigmoid(beta * reward))
    unwanted = undesirable_weight * (1 - torch.sigmoid(-beta * reward))
    return torch.where(desirable, wanted, unwanted)


def kto_divergence(mismatched: Tensor, reference: Tensor) -> Tensor:
    """() Ethayarajh et al. 2024, section 4.1: what answers to other prompts have gained, at least 0."""
    return (mismatched - reference).mean().clamp(min=0).detach()


def advantages(rewards: Tensor) -> Tensor:
    """(P, G) Shao et al. 2024, section 4.1.2: rewards of a group, less their mean, by their deviation.

    A group whose answers are all as good as one another teaches nothing.
    """
    deviation = rewards.std(dim=1, keepdim=True)
    # As TRL does: where rewards hardly differ, noise is not to be blown up.
    return (rewards - rewards.mean(dim=1, keepdim=True)) / (deviation + 1e-4)


def grpo(
    tokens: Tensor,
    old: Tensor,
    reference: Tensor | None,
    advantage: Tensor,
    mask: Tensor,
    *,
    clip: float,
    beta: float,
) -> Tensor:
    """(R,) Shao et al. 2024, equations 3 and 4: the mean over an answer's tokens.

    Args:
        tokens: (R, T) log p of each token; ``old``, when they were sampled; ``reference``, by the
            base, needed only where ``beta`` is not 0.
        advantage: (R,).
        mask: (R, T) True where there is a token of the answer.
    """
    ratio = (tokens - old).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    each = -torch.minimum(ratio * advantage[:, None], clipped * advantage[:, None])
    if reference is not None:
        gap = reference - tokens
        each = each + beta * (gap.exp() - gap - 1)
    return (each * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) of negative numbers, without losing digits on either side (Mächler 2012)."""
    near = x > -0.6931471805599453
    low = torch.log1p(-torch.exp(torch.where(near, -torch.ones_like(x), x)))
    high = torch.log(-torch.expm1(torch.where(near, x, -torch.ones_like(x))))
    return torch.where(near, high, low)
