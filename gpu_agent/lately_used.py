"""Keeps what was asked for lately, up to a number of things."""

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def remembered(cache: OrderedDict[K, V], key: K, make: Callable[[], V], size: int) -> V:
    """Get an entry, or make it and let the one go that has not been asked for the longest."""
    value = cache[key] if key in cache else make()
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > size:
        cache.popitem(last=False)
    return value
