"""How likely a causal language model finds given texts: whole rows, and labels as answers to prompts."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from gpu_agent.decoding import left_padded

TOKENS_AT_ONCE = 8192  # fills two cores and a GPU; the cache of a 0.5B model then takes 200 MiB
LOGITS_AT_ONCE = 1 << 25  # 128 MiB in float32: with 150,000 tokens to choose from, 220 positions
IGNORED = -100  # as a target: no prediction is asked for


def row_nats(
    network: Any, rows: Sequence[Sequence[int]], supervised: Sequence[Sequence[bool]]
) -> NDArray[np.float64]:
    """Sum -log p, in nats, over the supervised tokens of each row; the first token has no p.

    Rows are padded here and packed in training: the sums are the same.
    """
    nats = np.zeros(len(rows))
    vocabulary = network.config.get_text_config().vocab_size
    for here in _batches([len(row) for row in rows], vocabulary):
        ids, mask = _right_padded([rows[at] for at in here], network.device)
        targets = torch.full_like(ids, IGNORED)
        for at, row in enumerate(here):
            asked = torch.tensor(supervised[row], device=ids.device)
            targets[at, : len(asked)].masked_scatter_(asked, ids[at, : len(asked)][asked])
        targets = targets[:, 1:]
        kept = (targets != IGNORED).any(dim=0).nonzero().squeeze(1)
        with torch.inference_mode():
            said = network(input_ids=ids, attention_mask=mask, logits_to_keep=kept, use_cache=False)
        nats[here] = _nats(said.logits, targets[:, kept]).numpy(force=True)
    return nats


def label_log_likelihoods(
    network: Any, prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """Sum log p, in nats, over the tokens of every label as the answer to every prompt.

    A prompt is read once and its keys and values serve all labels. The end of a turn belongs to
    a label: without it "refund" is never less likely than "refunded".

    Args:
        network: a causal language model of transformers, in evaluation mode.
        prompts: token ids, at least one each.
        labels: token ids, at least one each.

    Returns:
        (prompts, labels), at most 0.
    """
    found = np.empty((len(prompts), len(labels)))
    vocabulary = network.config.get_text_config().vocab_size
    longest = max(map(len, labels))
    cost = [len(prompt) + longest for prompt in prompts]
    for group in _batches(cost, 0, len(labels)):
        room = TOKENS_AT_ONCE // (cost[group[0]] * len(group))
        room = min(room, LOGITS_AT_ONCE // (vocabulary * longest * len(group)))
        read = [prompts[at] for at in group]
        found[group] = _every_label(network, read, labels, max(1, room)).numpy(force=True)
    return found


def _every_label(
    network: Any, prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], chunk: int
) -> Tensor:
    """(B, L) float64; ``chunk`` labels at a time."""
    ids, mask = (part.to(network.device) for part in left_padded(prompts))
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    lengths = mask.sum(dim=1, keepdim=True)
    with torch.inference_mode():
        read = network(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            logits_to_keep=1,
            use_cache=True,
        )
        first = read.logits[:, -1].float().log_softmax(dim=-1).double()
        found: Tensor = first[:, [label[0] for label in labels]]
        for start in range(0, len(labels), chunk):
            part = labels[start : start + chunk]
            if max(map(len, part)) == 1:
                continue
            last = start + chunk >= len(labels)
            cache = read.past_key_values if last else copy.deepcopy(read.past_key_values)
            cache.batch_repeat_interleave(len(part))
            tokens, real = _right_padded(part, network.device)
            tokens, real = tokens.repeat(len(prompts), 1), real.repeat(len(prompts), 1)
            width = tokens.shape[1] - 1
            said = network(
                input_ids=tokens[:, :-1],
                attention_mask=torch.cat(
                    [mask.repeat_interleave(len(part), dim=0), real[:, :-1]], dim=1
                ),
                position_ids=lengths.repeat_interleave(len(part), dim=0)
                + torch.arange(width, device=ids.device),
                past_key_values=cache,
                use_cache=True,
            )
            targets = tokens[:, 1:].masked_fill(~real[:, 1:], IGNORED)
            rest = _nats(said.logits, targets).view(len(prompts), len(part))
            found[:, start : start + len(part)] -= rest
    return found


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over the positions: logits (B, T, V), targets (B, T), result (B,) in float64."""
    each = cross_entropy(  # flat: CUDA's kernel for more axes is not deterministic
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    ).view_as(targets)
    return each.double().sum(dim=1)


def _batches(
    lengths: Sequence[int], vocabulary: int, copies: int = 1
) -> Iterator[NDArray[np.int64]]:
    """Every row once, longest first, so many at once as their padded tokens and logits allow."""
    order = np.argsort(-np.array(lengths, dtype=np.int64), kind="stable")
    start = 0
    while start < len(order):
        longest = lengths[order[start]]
        rows = TOKENS_AT_ONCE // (longest * copies)
        if vocabulary:
            rows = min(rows, LOGITS_AT_ONCE // (longest * vocabulary))
        yield order[start : start + max(1, rows)]
        start += max(1, rows)


def _right_padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids (B, T) and which of them are real (B, T); any token pads, since none looks at it."""
    longest = max(map(len, rows))
    ids = [[*row, *[0] * (longest - len(row))] for row in rows]
    real = [[True] * len(row) + [False] * (longest - len(row)) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(real, device=device)
