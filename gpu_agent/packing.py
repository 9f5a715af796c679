"""Rows end to end in one line of tokens: no padding is computed, and no row sees another.

Each row has positions of its own, and attention runs row by row, so that no mask of all against all
is ever made. Whether a network can be run like that is found out by trying.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from gpu_agent.rendering import Rendered

SEGMENTS: Final = "finetrail_segments"  # the name of this attention in transformers
# 256 MiB of logits in float32: with 150,000 tokens to choose from, 447 supervised tokens at once.
LOGITS: Final = 1 << 26
TRIED: Final = (5, 8)  # tokens of the two rows that are tried together
# Of the largest logit. Rounding gives a hundredth of it; a row that sees the other, ten times more.
AGREEMENT: Final = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}


class PackingUnfit(Exception):
    """This network's attention takes something into account that is not done row by row here."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of ``lengths`` tokens, T together, of which N are to be predicted."""

    ids: Tensor  # (1, T) int64
    positions: Tensor  # (1, T) int64, from 0 in every row
    lengths: tuple[int, ...]
    places: Tensor  # (N,) int64: where in T the tokens stand that the predictions are made behind
    targets: Tensor  # (N,) int64


def pack(rows: Sequence[Rendered], device: torch.device) -> Batch:
    ids = torch.tensor([token for row in rows for token in row.ids])
    supervised = torch.tensor([learned for row in rows for learned in row.supervised])
    lengths = tuple(len(row.ids) for row in rows)
    positions = torch.cat([torch.arange(length) for length in lengths])
    learned = supervised.nonzero().squeeze(1)  # never the first of a row
    return Batch(
        ids=ids[None].to(device),
        positions=positions[None].to(device),
        lengths=lengths,
        places=(learned - 1).to(device),
        targets=ids[learned].to(device),
    )


class Sized(Protocol):
    """What is computed as one: a row, or the rows that belong together."""

    @property
    def tokens(self) -> int: ...

    @property
    def targets(self) -> int: ...


S = TypeVar("S", bound=Sized)


def micro_batches(
    rows: Sequence[S], tokens: int, supervised: int, *, together: bool = True
) -> Iterator[list[S]]:
    """Part rows, in their order, so that no part exceeds the limits; a row is never parted itself.

    Args:
        tokens: of a part, at most.
        supervised: tokens of a part, at most.
        together: False puts every row on its own.
    """
    part: list[S] = []
    size = learned = 0
    for row in rows:
        size, learned = size + row.tokens, learned + row.targets
        if part and (size > tokens or learned > supervised or not together):
            yield part
            part, size, learned = [], row.tokens, row.targets
        part.append(row)
    if part:
        yield part


def predictions(network: Any, batch: Batch) -> Tensor:
    """(N, V) logits in float32, of the supervised tokens alone."""
    more = {"segments": batch.lengths} if implementation(network) == SEGMENTS else {}
    said = network(
        input_ids=batch.ids,
        position_ids=batch.positions,
        logits_to_keep=batch.places,
        use_cache=False,
        **more,
    )
    logits: Tensor = said.logits[0].float()
    return logits


def supervised_at_once(network: Any) -> int:
    """Tokens whose logits take no more memory than is set aside for them."""
    return max(1, LOGITS // int(network.config.get_text_config().vocab_size))


def token_log_probs(
    network: Any, rows: Sequence[Rendered], device: torch.device, *, together: bool
) -> list[Tensor]:
    """Log p, in nats, of each row's supervised tokens; ``together`` says whether rows may be packed."""
    if not together and len(rows) > 1:
        return [
            found
            for row in rows
            for found in token_log_probs(network, [row], device, together=True)
        ]
    batch = pack(rows, device)
    each = -cross_entropy(predictions(network, batch), batch.targets, reduction="none")
    return list(torch.split(each, [row.targets for row in rows]))


def answer_log_probs(
    network: Any, rows: Sequence[Rendered], device: torch.device, *, together: bool
) -> Tensor:
    """(rows,) log p of whole answers, in nats: the sum over their tokens."""
    found = token_log_probs(network, rows, device, together=together)
    return torch.stack([each.sum() for each in found])


@contextmanager
def row_by_row(network: Any) -> Iterator[bool]:
    """Give the network this attention for a while; tells whether it can be run with it."""
    before = implementation(network)
    together = _agrees(network)
    if together:
        network.set_attn_implementation(SEGMENTS)
    try:
        yield together
    finally:
        network.set_attn_implementation(before)


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: tuple[int, ...] = (),
    scaling: float | None = None,
    sliding_window: int | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attend causally within each segment.

    Args:
        query: (1, heads, T, width); ``key`` and ``value`` may have fewer heads.
        segments: lengths that sum up to T.

    Returns:
        (1, T, heads, width), and no weights.

    Raises:
        PackingUnfit: there are caps, sinks or biases that belong to the result.
    """
    needed = [name for name in ("softcap", "s_aux", "position_bias") if more.get(name) is not None]
    if needed or attention_mask is not None or sum(segments) != query.shape[2]:
        raise PackingUnfit(", ".join(needed) or type(module).__name__)
    grouped = query.shape[1] != key.shape[1]
    if len(segments) > 1 and len(set(segments)) == 1 and sliding_window is None:
        # Rows of one length are a batch, and one call does for all of them.
        q, k, v = (_as_batch(tensor, len(segments)) for tensor in (query, key, value))
        said = scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped
        )
        return said.transpose(1, 2).reshape(1, query.shape[2], *said.shape[1::2]), None
    parts = zip(
        *(torch.split(tensor, list(segments), dim=2) for tensor in (query, key, value)), strict=True
    )
    attended = []
    for q, k, v in parts:
        window = _window(q.shape[2], sliding_window, q.device)
        attended.append(
            scaled_dot_product_attention(
                q, k, v, window, is_causal=window is None, scale=scaling, enable_gqa=grouped
            )
        )
    return torch.cat(attended, dim=2).transpose(1, 2).contiguous(), None


def _as_batch(tensor: Tensor, rows: int) -> Tensor:
    """(1, heads, rows * T, width) as (rows, heads, T, width)."""
    _, heads, _, width = tensor.shape
    return tensor[0].reshape(heads, rows, -1, width).transpose(0, 1)


@lru_cache(maxsize=64)
def _window(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """What each token of a row may look at, where that is not all before it."""
    if window is None or length <= window:
        return None
    with torch.inference_mode(mode=False):  # what is kept may be needed for a gradient later
        band = torch.ones(length, length, dtype=torch.bool, device=device)
        return band.tril().triu(1 - window)


def _agrees(network: Any) -> bool:
    first, second = (
        Rendered(
            tuple(range(length)),
            (False, *[True] * (length - 1)),
            truncated=False,
            full_length=length,
        )
        for length in TRIED
    )
    with torch.no_grad():
        alone = torch.cat(
            [predictions(network, pack([row], network.device)) for row in (first, second)]
        )
        before = implementation(network)
        network.set_attn_implementation(SEGMENTS)
        if implementation(network) != SEGMENTS:
            return False  # it has an attention of its own, and no other can be put in
        try:
            packed = predictions(network, pack([first, second], network.device))
        except (PackingUnfit, TypeError):
            return False
        finally:
            network.set_attn_implementation(before)
    difference = (packed - alone).abs().max() / alone.abs().max()
    return bool(difference < AGREEMENT[network.dtype])


def implementation(network: Any) -> str:
    """Name the attention that a network runs with."""
    name: str = network.config._attn_implementation  # noqa: SLF001 - it has no public reader
    return name


AttentionInterface.register(SEGMENTS, segment_attention)
AttentionMaskInterface.register(SEGMENTS, lambda *_, **__: None)
