"""Rows to training, validation and test rows: by a seed, the same everywhere.

Rows of a text and a label are parted label by label, and so are rows of a table, whose groups stay
together; conversations are parted by their prompts alone.

Rows with the same text always stay together, so no held-out text was trained on. Which side a text
falls on depends on the seed, the text and how many rows its label has; the order of the rows in the
file does not matter, and neither does the platform.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from domain.datasets.conversations import Conversation
from domain.datasets.digests import text_digest

Split = Literal["train", "validation", "test"]

TESTED_FROM_ROWS = 3  # a label with fewer rows is trained on and may go untested
_PARTS = 1_000_000  # fractions are counted in millionths, where sums are exact


class SplitImpossible(ValueError):
    """A label cannot be parted as asked; other rows or other fractions may help."""

    def __init__(self, message: str, label: str | None, counts: dict[str, int]) -> None:
        super().__init__(message)
        self.label = label  # None when it is about all of them
        self.counts = counts  # rows and distinct texts


@dataclass(frozen=True, slots=True)
class _Text:
    """All rows of one text."""

    key: bytes  # orders the texts of a label
    rows: list[int]


def assign_splits(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    seed: int,
    validation_fraction: float,
    test_fraction: float,
) -> list[Split]:
    """Say for every row where it belongs.

    Each label gives its share of rows, to within one row where no text repeats, and all labels
    together give theirs. Each label keeps a training row and, from three rows on, has a test row
    (unless ``test_fraction`` is 0, as it is when a test file is given). A text that stands under
    several labels is trained on and never tested: no answer to it could be called right.

    Args:
        validation_fraction: of all rows; at least 0, less than 1 together with ``test_fraction``.

    Raises:
        SplitImpossible: a label has three rows or more and too few distinct texts to hold one out,
            or there is nothing at all to test on.
    """
    _check_fractions(validation_fraction, test_fraction)
    splits: list[Split] = ["train"] * len(texts)
    by_label = _texts_by_label(texts, labels, seed)
    test_share = _Share(test_fraction)
    validation_share = _Share(validation_fraction)
    for label, rows in sorted(_count(labels).items()):
        single = by_label.get(label, [])
        counts = {"rows": rows, "distinct_texts": len(single)}
        free = len(single) - (sum(len(text.rows) for text in single) == rows)  # one text is kept
        wanted = test_share.of(rows)
        if test_fraction > 0 and rows >= TESTED_FROM_ROWS:
            wanted = max(wanted, 1)
            if free < 1:
                message = (
                    f"label {label!r} has {rows} rows but only {len(single)} text"
                    f"{'s' if len(single) != 1 else ''} of its own, so none can be held out"
                )
                raise SplitImpossible(message, label, counts)
        test, rest = _take(single, wanted, free)
        validation, _ = _take(rest, validation_share.of(rows), free - len(test))
        for index in _rows(test):
            splits[index] = "test"
        for index in _rows(validation):
            splits[index] = "validation"
    if test_fraction > 0 and "test" not in splits:
        counts = {"rows": len(texts), "labels": len(set(labels))}
        message = f"{len(texts)} rows with {len(set(labels))} labels are too few to hold one out"
        raise SplitImpossible(message, None, counts)
    return splits


def assign_group_splits(
    groups: Sequence[bytes],
    labels: Sequence[str],
    *,
    seed: int,
    validation_fraction: float,
    test_fraction: float,
) -> list[Split]:
    """Say for every row of a table where it belongs; the rows of a group are never parted.

    A group counts among the rows of its commonest label, and each label gives its share as far as
    its groups allow. The label of a single group is trained on and may go untested.

    Raises:
        SplitImpossible: there is nothing at all to test on.
    """
    _check_fractions(validation_fraction, test_fraction)
    splits: list[Split] = ["train"] * len(labels)
    test_share, validation_share = _Share(test_fraction), _Share(validation_fraction)
    for units in _groups_by_label(groups, labels, seed):
        rows, free = sum(len(unit.rows) for unit in units), len(units) - 1  # one is learned from
        wanted = test_share.of(rows)
        if test_fraction > 0 and rows >= TESTED_FROM_ROWS:
            wanted = max(wanted, 1)
        test, rest = _take(units, wanted, free)
        validation, _ = _take(rest, validation_share.of(rows), free - len(test))
        for index in _rows(test):
            splits[index] = "test"
        for index in _rows(validation):
            splits[index] = "validation"
    if test_fraction > 0 and "test" not in splits:
        counts = {"rows": len(labels), "groups": len(set(groups))}
        message = (
            f"{len(labels)} rows in {len(set(groups))} groups, of rows with equal inputs or of one"
            " group value, leave none that can be held out"
        )
        raise SplitImpossible(message, None, counts)
    return splits


def leaked_rows(training_texts: Iterable[str], test_texts: Iterable[str]) -> list[int]:
    """Indices of the training rows whose text also stands in the test file."""
    tested = {text_digest(text) for text in test_texts}
    return [index for index, text in enumerate(training_texts) if text_digest(text) in tested]


def assign_conversation_splits(
    conversations: Sequence[Conversation],
    *,
    seed: int,
    validation_fraction: float,
    test_fraction: float,
) -> list[Split]:
    """Say for every conversation where it belongs.

    The shares hold to the nearest row where no prompt repeats; conversations with the same prompt
    stay together. At least one prompt is trained on, and at least one is tested unless
    ``test_fraction`` is 0, as it is when a test file is given.

    Raises:
        SplitImpossible: all conversations have one prompt, so none can be held out.
    """
    _check_fractions(validation_fraction, test_fraction)
    rows: dict[bytes, list[int]] = defaultdict(list)
    for index, conversation in enumerate(conversations):
        rows[text_digest(conversation.prompt)].append(index)
    prompts = [_Text(_key(seed, digest), indices) for digest, indices in rows.items()]
    prompts.sort(key=lambda prompt: prompt.key)
    total, free = len(conversations), len(prompts) - 1  # one is kept to learn from
    wanted = _Share(test_fraction).of(total)
    if test_fraction > 0:
        wanted = max(wanted, 1)
        if free < 1:
            few = (
                "there is 1 conversation"
                if total == 1
                else f"the {total} conversations share a prompt"
            )
            message = f"{few}, so none can be held out to test on"
            raise SplitImpossible(message, None, {"rows": total, "distinct_texts": len(prompts)})
    test, rest = _take(prompts, wanted, free)
    validation, _ = _take(rest, _Share(validation_fraction).of(total), free - len(test))
    splits: list[Split] = ["train"] * total
    for index in _rows(test):
        splits[index] = "test"
    for index in _rows(validation):
        splits[index] = "validation"
    return splits


def leaked_conversations(
    training: Iterable[Conversation], test: Iterable[Conversation]
) -> list[int]:
    """Indices of the training conversations whose prompt also stands in the test file."""
    return leaked_rows((each.prompt for each in training), (each.prompt for each in test))


class _Share:
    """Gives each label its part of the rows and carries fractions of a row on to the next label."""

    def __init__(self, fraction: float) -> None:
        self._parts = round(fraction * _PARTS)
        self._carry = _PARTS // 2  # so that a single label is rounded to the nearest row

    def of(self, rows: int) -> int:
        whole, self._carry = divmod(self._carry + rows * self._parts, _PARTS)
        return whole


def _check_fractions(validation: float, test: float) -> None:
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise ValueError(
            f"validation_fraction {validation} and test_fraction {test} must be at least 0"
            " and less than 1 together"
        )


def _texts_by_label(
    texts: Sequence[str], labels: Sequence[str], seed: int
) -> dict[str, list[_Text]]:
    """The texts that stand under one label only, each label's in the order of the seed."""
    rows: dict[bytes, list[int]] = defaultdict(list)
    for index, text in enumerate(texts):
        rows[text_digest(text)].append(index)
    result: dict[str, list[_Text]] = defaultdict(list)
    for digest, indices in rows.items():
        if len({labels[index] for index in indices}) == 1:
            result[labels[indices[0]]].append(_Text(_key(seed, digest), indices))
    for group in result.values():
        group.sort(key=lambda text: text.key)
    return result


def _groups_by_label(
    groups: Sequence[bytes], labels: Sequence[str], seed: int
) -> Iterator[list[_Text]]:
    """The groups of each label, sorted by label, each label's in the order of the seed."""
    rows: dict[bytes, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        rows[group].append(index)
    result: dict[str, list[_Text]] = defaultdict(list)
    for group, indices in rows.items():
        counts = _count([labels[index] for index in indices])
        label = min(counts, key=lambda label: (-counts[label], label))
        result[label].append(_Text(_key(seed, group), indices))
    for _, units in sorted(result.items()):
        yield sorted(units, key=lambda unit: unit.key)


def _key(seed: int, digest: bytes) -> bytes:
    return hashlib.sha256(f"{seed}:{digest.hex()}".encode()).digest()


def _take(texts: list[_Text], wanted: int, free: int) -> tuple[list[_Text], list[_Text]]:
    """The first texts with ``wanted`` rows at most, but one where any was wanted; and the rest."""
    taken: list[_Text] = []
    rest: list[_Text] = []
    for text in texts:
        if len(taken) < free and len(text.rows) <= wanted:
            taken.append(text)
            wanted -= len(text.rows)
        else:
            rest.append(text)
    if not taken and wanted and free > 0:
        smallest = min(rest, key=lambda text: len(text.rows))
        rest.remove(smallest)
        taken.append(smallest)
    return taken, rest


def _rows(texts: list[_Text]) -> Iterator[int]:
    for text in texts:
        yield from text.rows


def _count(labels: Sequence[str]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for label in labels:
        counts[label] += 1
    return counts
