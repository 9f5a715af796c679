"""Sequences that are decoded together: one row each, padded on the left, over one key-value cache."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from typing_extensions import override

ROOM: Final = 64  # columns; all that is cached is copied once for so many tokens, and not for each


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, (B, heads, T, head size), with room for more columns."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._key_room = self._value_room = torch.empty(0, 0, 0, 0)

    @override
    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        used, new = self.keys.shape[2], key_states.shape[2]
        if used + new > self._key_room.shape[2]:
            self._key_room = pad(self.keys, (0, 0, 0, new + ROOM))
            self._value_room = pad(self.values, (0, 0, 0, new + ROOM))
        self._key_room[:, :, used : used + new] = key_states
        self._value_room[:, :, used : used + new] = value_states
        self._show(used + new)
        return self.keys, self.values

    def replace(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = self._key_room, self._value_room = keys, values

    def _show(self, columns: int) -> None:
        self.keys, self.values = self._key_room[:, :, :columns], self._value_room[:, :, :columns]


class Rows:
    """B rows of which T columns are cached; they grow by columns and by rows, and shrink.

    The cache keeps every position of every layer, also where a network looks back over a window only:
    the network's own mask then hides the rest, and rows of different lengths can share it.
    """

    def __init__(self, network: Any, rows: int) -> None:
        self._network = network
        self._device = next(network.parameters()).device
        self.cache = DynamicCache()
        self.cache.layer_class_to_replicate = RoomyLayer
        self.mask = torch.zeros((rows, 0), dtype=torch.bool, device=self._device)  # (B, T)

    def read(self, ids: Tensor, real: Tensor | None = None) -> Tensor:
        """Read more tokens in every row, and give the logits (B, V) that follow the last one.

        Args:
            ids: (B, N).
            real: (B, N), False where a row that is shorter than others is padded.
        """
        ids = ids.to(self._device)
        real = torch.ones_like(ids, dtype=torch.bool) if real is None else real.to(self._device)
        lengths = self.mask.sum(dim=1, keepdim=True)  # (B, 1)
        positions = (lengths + real.cumsum(dim=1) - 1).clamp(min=0)
        self.mask = torch.cat([self.mask, real], dim=1)
        output = self._network(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Let all other rows go, and the columns that only they had tokens in."""
        chosen = torch.tensor(rows, device=self._device)
        mask = self.mask[chosen]
        padded = int(mask.int().argmax(dim=1).min()) if mask.shape[1] else 0
        self.mask = mask[:, padded:]
        for layer in self.cache.layers:
            layer.replace(layer.keys[chosen, :, padded:], layer.values[chosen, :, padded:])

    def join(self, other: "Rows") -> None:
        """Put the rows of another batch of the same network below these."""
        longest = max(self.mask.shape[1], other.mask.shape[1])
        self.mask = torch.cat([_widen(self.mask, longest, 1), _widen(other.mask, longest, 1)])
        for mine, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            keys = _widen(mine.keys, longest, 2), _widen(theirs.keys, longest, 2)
            values = _widen(mine.values, longest, 2), _widen(theirs.values, longest, 2)
            mine.replace(torch.cat(keys), torch.cat(values))


def _widen(tensor: Tensor, columns: int, axis: int) -> Tensor:
    """Pad on the left of an axis with zeros, which the mask hides."""
    missing = columns - tensor.shape[axis]
    if not missing:
        return tensor
    behind = tensor.dim() - axis - 1
    return pad(tensor, (0, 0) * behind + (missing, 0))


def left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Give token ids (B, T) and which of them are real (B, T)."""
    longest = max(len(prompt) for prompt in prompts)
    ids = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    real = [[False] * (longest - len(prompt)) + [True] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(real)
