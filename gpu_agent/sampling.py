"""Chooses the next token of every row of a batch, each by its own rules and its own dice."""

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from domain.inference import Sampling

FEW: Final = 512  # tokens, out of which most draws are made; to sort a whole vocabulary takes long


class Sampler:
    """One request's way of choosing; the same seed chooses alike whatever runs beside it."""

    def __init__(self, sampling: Sampling) -> None:
        self._temperature = sampling.temperature
        self._top_p = sampling.top_p
        self._top_k = sampling.top_k
        self._dice: torch.Generator | None = None
        if sampling.temperature > 0:
            self._dice = torch.Generator()
            if sampling.seed is None:
                self._dice.seed()
            else:
                self._dice.manual_seed(sampling.seed % 2**64)

    @property
    def greedy(self) -> bool:
        return self._dice is None

    def draw(self, logits: Tensor) -> int:
        """Draw a token id; logits: (V,) finite or -inf, not all of them -inf."""
        scores, ids = logits.double().cpu(), None
        if self._top_k is not None and self._top_k < len(scores):
            scores, ids = scores.topk(self._top_k)
        # From the highest down to 0 first: a low temperature then makes no infinities.
        shares = ((scores - scores.max()) / self._temperature).softmax(dim=0)
        if self._top_p < 1:
            shares, order = _likeliest(shares, self._top_p)
            ids = order if ids is None else ids[order]
            shares[shares.cumsum(dim=0) - shares >= self._top_p] = 0  # never the first one
        edges = shares.cumsum(dim=0)
        point = torch.rand((), generator=self._dice, dtype=torch.float64) * edges[-1]
        index = int(torch.searchsorted(edges, point, right=True).clamp(max=len(edges) - 1))
        return index if ids is None else int(ids[index])


def _likeliest(shares: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Find the largest shares, largest first, so many that they reach a sum; and where they stood."""
    few = shares.topk(min(FEW, len(shares)))
    found = few if few.values.sum() >= reach else shares.sort(descending=True)
    return found.values, found.indices


def choose(logits: Tensor, samplers: Sequence[Sampler]) -> list[int | None]:
    """Choose a token for every row; None where the logits are no numbers.

    Args:
        logits: (B, V).
        samplers: one for each row.
    """
    best = logits.max(dim=1)
    tokens: list[int | None] = []
    rows = zip(best.values.tolist(), best.indices.tolist(), samplers, strict=True)
    for row, (highest, index, sampler) in enumerate(rows):
        if not math.isfinite(highest):
            tokens.append(None)
        else:
            tokens.append(index if sampler.greedy else sampler.draw(logits[row]))
    return tokens


def log_probabilities(
    logits: Tensor, token: int, top: int
) -> tuple[float, list[tuple[int, float]]]:
    """The chosen token's and the ``top`` likeliest tokens' log-probabilities, in nats.

    They are the model's own: temperature, top_p and top_k leave them as they are.
    """
    scores = logits.float().log_softmax(dim=0)
    likeliest = scores.topk(min(top, len(scores)))
    pairs = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
    return float(scores[token]), list(pairs)
