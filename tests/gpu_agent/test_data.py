"""Splits that keep held-out rows out, and an order that is a function of seed, epoch and step."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gpu_agent.data import Tokens, epoch_batches, make_batch, read_splits, reading_batches
from gpu_agent.outcomes import DataUnreadable
from tests.gpu_agent import tiny

LENGTHS = np.random.default_rng(1).integers(3, 60, size=203)


def test_every_row_is_in_exactly_one_batch_of_an_epoch() -> None:
    batches = epoch_batches(LENGTHS, 16, seed=0, epoch=0)

    assert len(batches) == 13
    assert sorted(np.concatenate(batches).tolist()) == list(range(203))


def test_batches_depend_on_nothing_but_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        return [batch.tolist() for batch in epoch_batches(LENGTHS, 16, seed, epoch)]

    assert order(5, 2) == order(5, 2)
    assert order(5, 2) != order(5, 3)
    assert order(5, 2) != order(6, 2)


def test_batches_hold_little_padding() -> None:
    batches = epoch_batches(LENGTHS, 16, seed=0, epoch=0)
    read = sum(len(batch) * LENGTHS[batch].max() for batch in batches)

    in_any_order = np.random.default_rng(0).permutation(203)
    parts = [in_any_order[at : at + 16] for at in range(0, 203, 16)]
    read_in_any_order = sum(len(part) * LENGTHS[part].max() for part in parts)

    assert read < 1.25 * LENGTHS.sum()
    assert read < 0.8 * read_in_any_order


def test_batch_is_padded_to_its_longest_row() -> None:
    tokens = Tokens(((7, 8), (9,), (1, 2, 3)), pad=0)

    batch = make_batch(tokens, [1, 0], torch.device("cpu"))

    assert batch.input_ids.tolist() == [[9, 0], [7, 8]]
    assert batch.attention_mask.tolist() == [[1, 0], [1, 1]]
    assert batch.tokens == 3


def test_reading_takes_every_row_once_and_the_longest_first() -> None:
    tokens = Tokens(tuple((1,) * int(length) for length in LENGTHS), pad=0)

    order = np.concatenate(list(reading_batches(tokens)))

    assert sorted(order.tolist()) == list(range(203))
    assert LENGTHS[order[0]] == LENGTHS.max()


def test_held_out_rows_are_not_trained_on(data: Path) -> None:
    splits = read_splits(tiny.spec(data), data, None)

    texts = [{row.text for row in part} for part in (splits.train, splits.validation, splits.test)]
    assert [len(part) for part in texts] == [42, 6, 12]
    assert len(texts[0] | texts[1] | texts[2]) == 60
    assert splits.labels == tiny.LABELS


def test_test_file_takes_the_place_of_the_test_share(data: Path, tmp_path: Path) -> None:
    test = tiny.write_rows(tmp_path / "test.csv", [("more soup", "food"), ("much fog", "weather")])

    splits = read_splits(tiny.spec(data, test), data, test)

    assert [row.text for row in splits.test] == ["more soup", "much fog"]
    assert len(splits.train) + len(splits.validation) == 60
    assert splits.leaked == 0


def test_training_row_that_stands_in_the_test_file_is_left_out(data: Path, tmp_path: Path) -> None:
    seen, label = tiny.rows()[0]
    test = tiny.write_rows(tmp_path / "test.csv", [(seen, label), ("much fog", "weather")])

    splits = read_splits(tiny.spec(data, test), data, test)

    assert splits.leaked == 1
    assert seen not in {row.text for row in (*splits.train, *splits.validation)}


def test_file_that_does_not_hold_the_named_columns_is_an_outcome(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n", encoding="utf-8")

    with pytest.raises(DataUnreadable, match=r"rows\.csv"):
        read_splits(tiny.spec(path), path, None)


def test_training_rows_that_all_stand_in_the_test_file_are_an_outcome(data: Path) -> None:
    with pytest.raises(DataUnreadable, match="fewer than two labels"):
        read_splits(tiny.spec(data, data), data, data)


def test_missing_file_is_an_outcome(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataUnreadable, match="No such file"):
        read_splits(tiny.spec(data), tmp_path / "gone.csv", None)
