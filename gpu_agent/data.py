"""Rows to batches: read, split, tokenise once, and an order that is a function of seed, epoch and step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domain.datasets.conversations import Conversation
from domain.datasets.preferences import PreferencePair, RatedCompletion
from domain.datasets.rows import Row, read_conversations, read_pairs, read_rated, read_rows
from domain.datasets.split import (
    Split,
    assign_conversation_splits,
    assign_splits,
    leaked_conversations,
    leaked_rows,
)
from domain.jobs.spec import DatasetRef, JobSpec
from gpu_agent.outcomes import DataUnreadable

WINDOW = 8  # batches sorted by length together: little padding, and still almost any row beside any other
READ_ROWS = 64  # at once, where no gradient is kept
READ_BYTES = 1 << 20  # at once

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Splits:
    labels: tuple[str, ...]  # of the training file, sorted
    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]
    leaked: int  # training rows left out because their text is in the test file


@dataclass(frozen=True, slots=True)
class ConversationSplits:
    train: tuple[Conversation, ...]
    validation: tuple[Conversation, ...]
    test: tuple[Conversation, ...]
    leaked: int  # training conversations left out because their prompt is in the test file


@dataclass(frozen=True, slots=True)
class RowSplits(Generic[T]):
    """Rows of one kind, parted."""

    train: tuple[T, ...]
    validation: tuple[T, ...]
    test: tuple[T, ...]
    leaked: int = 0  # training rows left out because their prompt is in the test file


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokenised texts and what pads them."""

    ids: tuple[tuple[int, ...], ...]
    pad: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.array([len(ids) for ids in self.ids], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Examples:
    tokens: Tokens
    targets: Tensor  # (rows,) int64, indices into the labels

    def __len__(self) -> int:
        return len(self.tokens.ids)


@dataclass(frozen=True, slots=True)
class Batch:
    """B rows padded to the longest of them, T tokens."""

    input_ids: Tensor  # (B, T) int64
    attention_mask: Tensor  # (B, T) int64, 0 at padding
    tokens: int  # padding left out


def read_splits(spec: JobSpec, train: Path, test: Path | None) -> Splits:
    """Read the rows and part them as the job says; what was held out is never trained on.

    Raises:
        DataUnreadable: the bytes do not hold what was registered, or are too few to be parted.
    """
    rows = _read(train, spec.train)
    held_out = _read(test, spec.test) if test and spec.test else []
    leaked = set(leaked_rows((row.text for row in rows), (row.text for row in held_out)))
    rows = [row for at, row in enumerate(rows) if at not in leaked]
    labels = tuple(sorted({row.label for row in rows}))
    if len(labels) < 2:
        raise DataUnreadable(f"{spec.train.name}: fewer than two labels are left to be told apart")
    try:
        places = assign_splits(
            [row.text for row in rows],
            [row.label for row in rows],
            seed=spec.split.seed,
            validation_fraction=spec.split.validation_fraction,
            test_fraction=0.0 if held_out else spec.split.test_fraction,
        )
    except ValueError as error:
        raise DataUnreadable(f"{spec.train.name}: {error}") from error

    def at(place: str) -> tuple[Row, ...]:
        return tuple(row for row, there in zip(rows, places, strict=True) if there == place)

    return Splits(
        labels=labels,
        train=at("train"),
        validation=at("validation"),
        test=tuple(held_out) or at("test"),
        leaked=len(leaked),
    )


def read_conversation_splits(spec: JobSpec, train: Path, test: Path | None) -> ConversationSplits:
    """Read the conversations and part them as the job says; what was held out is never trained on.

    Raises:
        DataUnreadable: the bytes do not hold what was registered, or are too few to be parted.
    """
    conversations = _read_conversations(train, spec.train)
    held_out = _read_conversations(test, spec.test) if test and spec.test else []
    leaked = set(leaked_conversations(conversations, held_out))
    conversations = [each for at, each in enumerate(conversations) if at not in leaked]
    if not conversations:
        raise DataUnreadable(f"{spec.train.name}: every prompt of it is in the test file")
    places = _places(spec, conversations, tested=bool(held_out))

    def at(place: str) -> tuple[Conversation, ...]:
        both = zip(conversations, places, strict=True)
        return tuple(conversation for conversation, there in both if there == place)

    return ConversationSplits(
        train=at("train"),
        validation=at("validation"),
        test=tuple(held_out) or at("test"),
        leaked=len(leaked),
    )


def read_pair_splits(spec: JobSpec, train: Path, test: Path | None) -> RowSplits[PreferencePair]:
    """Read pairs of answers and part them by their prompts.

    Raises:
        DataUnreadable: the bytes do not hold what was registered, or are too few to be parted.
    """
    pairs = _read_answers(read_pairs, train, spec.train)
    held_out = _read_answers(read_pairs, test, spec.test) if test and spec.test else []
    return _by_prompt(spec, pairs, held_out, lambda pair: pair.answered()[0])


def read_rated_splits(spec: JobSpec, train: Path, test: Path | None) -> RowSplits[RatedCompletion]:
    """Read rated answers and part them by their prompts.

    Raises:
        DataUnreadable: the bytes do not hold what was registered, or are too few to be parted.
    """
    rated = _read_answers(read_rated, train, spec.train)
    held_out = _read_answers(read_rated, test, spec.test) if test and spec.test else []
    return _by_prompt(spec, rated, held_out, RatedCompletion.answered)


def read_asked_splits(spec: JobSpec, train: Path, test: Path | None) -> ConversationSplits:
    """Read what a language model may be asked: of answers that were compared or rated, the good ones.

    Raises:
        DataUnreadable: the bytes do not hold what was registered, or are too few to be parted.
    """
    match spec.train.kind:
        case "preference":
            pairs = read_pair_splits(spec, train, test)
            return ConversationSplits(
                train=tuple(pair.answered()[0] for pair in pairs.train),
                validation=tuple(pair.answered()[0] for pair in pairs.validation),
                test=tuple(pair.answered()[0] for pair in pairs.test),
                leaked=pairs.leaked,
            )
        case "kto":
            rated = read_rated_splits(spec, train, test)
            return ConversationSplits(
                train=tuple(row.answered() for row in rated.train if row.desirable),
                validation=tuple(row.answered() for row in rated.validation if row.desirable),
                test=tuple(row.answered() for row in rated.test if row.desirable),
                leaked=rated.leaked,
            )
        case _:
            return read_conversation_splits(spec, train, test)


def _by_prompt(
    spec: JobSpec, rows: Sequence[T], held_out: Sequence[T], asked: Callable[[T], Conversation]
) -> RowSplits[T]:
    leaked = set(leaked_conversations(map(asked, rows), map(asked, held_out)))
    rows = [row for at, row in enumerate(rows) if at not in leaked]
    if not rows:
        raise DataUnreadable(f"{spec.train.name}: every prompt of it is in the test file")
    places = _places(spec, list(map(asked, rows)), tested=bool(held_out))

    def at(place: str) -> tuple[T, ...]:
        return tuple(row for row, there in zip(rows, places, strict=True) if there == place)

    test = tuple(held_out) or at("test")
    return RowSplits(at("train"), at("validation"), test, len(leaked))


def _places(spec: JobSpec, conversations: Sequence[Conversation], *, tested: bool) -> list[Split]:
    """Where each row belongs; with a test file none is held out for a test."""
    try:
        return assign_conversation_splits(
            conversations,
            seed=spec.split.seed,
            validation_fraction=spec.split.validation_fraction,
            test_fraction=0.0 if tested else spec.split.test_fraction,
        )
    except ValueError as error:
        raise DataUnreadable(f"{spec.train.name}: {error}") from error


def _read_answers(read: Callable[..., Iterator[T]], path: Path, ref: DatasetRef) -> list[T]:
    columns = (ref.text_column or None, ref.label_column)
    try:
        return list(read(read_chunks(path), ref.format, ref.delimiter, *columns))
    except (OSError, ValueError) as error:
        raise DataUnreadable(f"{ref.name}: {error}") from error


def _read(path: Path, ref: DatasetRef) -> list[Row]:
    columns = (ref.text_column, ref.label_column)
    try:
        return list(read_rows(read_chunks(path), ref.format, *columns, ref.delimiter))
    except (OSError, ValueError) as error:
        raise DataUnreadable(f"{ref.name}: {error}") from error


def _read_conversations(path: Path, ref: DatasetRef) -> list[Conversation]:
    columns = (ref.text_column, ref.label_column)
    try:
        chunks = read_chunks(path)
        return list(read_conversations(chunks, ref.format, ref.kind, ref.delimiter, *columns))
    except (OSError, ValueError) as error:
        raise DataUnreadable(f"{ref.name}: {error}") from error


def read_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            yield chunk


def tokenise(tokenizer: Any, texts: Sequence[str], max_length: int) -> Tokens:
    if not texts:
        return Tokens((), tokenizer.pad_token_id)
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length)
    return Tokens(tuple(tuple(ids) for ids in encoded["input_ids"]), tokenizer.pad_token_id)


def examples(
    tokenizer: Any, rows: Sequence[Row], labels: Sequence[str], max_length: int
) -> Examples:
    number = {label: at for at, label in enumerate(labels)}
    tokens = tokenise(tokenizer, [row.text for row in rows], max_length)
    targets = torch.tensor([number[row.label] for row in rows], dtype=torch.int64)
    return Examples(tokens, targets)


def make_batch(
    tokens: Tokens, rows: Sequence[int] | NDArray[np.int64], device: torch.device
) -> Batch:
    chosen = [tokens.ids[row] for row in rows]
    longest = max(map(len, chosen))
    input_ids = torch.full((len(chosen), longest), tokens.pad, dtype=torch.int64)
    attention_mask = torch.zeros_like(input_ids)
    for at, ids in enumerate(chosen):
        input_ids[at, : len(ids)] = torch.tensor(ids)
        attention_mask[at, : len(ids)] = 1
    return Batch(input_ids.to(device), attention_mask.to(device), sum(map(len, chosen)))


def epoch_batches(
    lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Shuffle the rows of an epoch, counted from 0, and part them; each row is in exactly one batch.

    Rows of like length meet in one batch, within windows of the shuffled order; the batches of a
    window then stand in a random order, so that length says nothing about the step.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), WINDOW * batch_size):
        window = order[start : start + WINDOW * batch_size]
        window = window[np.argsort(lengths[window], kind="stable")]
        parts = [window[at : at + batch_size] for at in range(0, len(window), batch_size)]
        batches += [parts[at] for at in rng.permutation(len(parts))]
    return batches


def shuffled_batches(rows: int, batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Shuffle the rows of an epoch, counted from 0, and part them, whatever their lengths."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return [order[at : at + batch_size] for at in range(0, rows, batch_size)]


def reading_batches(tokens: Tokens) -> Iterator[NDArray[np.int64]]:
    """Every row once, longest first: the most memory is asked for at the start."""
    order = np.argsort(-tokens.lengths, kind="stable")
    for start in range(0, len(order), READ_ROWS):
        yield order[start : start + READ_ROWS]
