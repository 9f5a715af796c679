"""Which held-out rows are shown side by side, and who of the two was right."""

from collections.abc import Sequence

import numpy as np

from domain.work import Example

EXAMPLES = 20
EXAMPLE_SEED = 0
EXAMPLE_CHARS = 500  # of a text; twenty of them stay far below the 64 KiB of an event


def choose_examples(base: Sequence[str], tuned: Sequence[str]) -> list[int]:
    """Pick rows in a fixed random order, those first on which the two systems differ."""
    order = np.random.default_rng(EXAMPLE_SEED).permutation(len(base)).tolist()
    chosen = sorted(order, key=lambda at: base[at] == tuned[at])  # a stable sort
    return chosen[:EXAMPLES]


def side_by_side(text: str, expected: str, base: str, tuned: str) -> Example:
    match base == expected, tuned == expected:
        case True, True:
            winner = "both"
        case True, False:
            winner = "base"
        case False, True:
            winner = "fine_tuned"
        case _:
            winner = "neither"
    text = text if len(text) <= EXAMPLE_CHARS else text[: EXAMPLE_CHARS - 1] + "…"
    return Example(text=text, expected=expected, base=base, fine_tuned=tuned, winner=winner)
