"""Samples answers to prompts, many at once: what is learned from where a model learns from its own words."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpu_agent.decoding import Rows, left_padded


@torch.no_grad()
def sample_answers(
    network: Any,
    prompts: Sequence[Sequence[int]],
    eos_ids: frozenset[int],
    limit: int,
    temperature: float,
    seed: int | None,
) -> list[tuple[int, ...]]:
    """Answer every prompt with at most ``limit`` tokens; the end of an answer belongs to it.

    The same weights and seed give the same answers. Without a seed, the likeliest token is taken.
    """
    dice = None if seed is None else torch.Generator().manual_seed(seed)
    rows = Rows(network, len(prompts))
    logits = rows.read(*left_padded(prompts))
    answers: list[list[int]] = [[] for _ in prompts]
    running = list(range(len(prompts)))
    for count in range(1, limit + 1):
        tokens = _chosen(logits, temperature, dice)
        for at, token in zip(running, tokens, strict=True):
            answers[at].append(token)
        going = [at for at, token in enumerate(tokens) if token not in eos_ids]
        if not going or count == limit:
            break
        if len(going) < len(tokens):
            rows.keep(going)
            running = [running[at] for at in going]
        logits = rows.read(torch.tensor([[tokens[at]] for at in going]))
    return [tuple(answer) for answer in answers]


def _chosen(logits: Tensor, temperature: float, dice: torch.Generator | None) -> list[int]:
    if dice is None:
        return logits.argmax(dim=1).tolist()
    shares = (logits.double().cpu() / temperature).softmax(dim=1)
    return torch.multinomial(shares, 1, generator=dice).squeeze(1).tolist()
