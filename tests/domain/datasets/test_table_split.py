"""Rows of a table are parted class by class, and what belongs together is never parted."""

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.datasets.split import SplitImpossible, assign_group_splits
from domain.datasets.table_groups import group_rows, leaked_table_rows
from domain.datasets.table_scan import TableRow

steady = settings(deadline=None)  # on a busy machine
seeds = st.integers(0, 2**32 - 1)
rows_of_a_table = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 12), st.sampled_from(["ill", "well", "unsure"])),
    min_size=1,
    max_size=80,
)


def row(value: float, group: object = "", label: str = "well", line: int = 1) -> TableRow:
    return TableRow(line, {"value": float(value)}, label, (str(group),))


def table(content: list[tuple[int, int, str]]) -> list[TableRow]:
    return [row(value, group or "", label, at) for at, (value, group, label) in enumerate(content)]


@given(content=rows_of_a_table, seed=seeds)
@steady
def test_no_group_and_no_equal_inputs_stand_on_two_sides(
    content: list[tuple[int, int, str]], seed: int
) -> None:
    rows = table(content)
    try:
        splits = assign_group_splits(
            group_rows(rows),
            [one.label for one in rows],
            seed=seed,
            validation_fraction=0.1,
            test_fraction=0.2,
        )
    except SplitImpossible:
        # Each class then has one group, or fewer than three rows.
        assert len(set(group_rows(rows))) <= 6
        return

    sides = defaultdict(set)
    for one, side in zip(rows, splits, strict=True):
        sides["value", one.values["value"]].add(side)
        if one.groups[0]:
            sides["group", one.groups[0]].add(side)
    assert all(len(found) == 1 for found in sides.values())


@given(content=rows_of_a_table, seed=seeds, shuffle=st.randoms(use_true_random=False))
@steady
def test_the_order_of_the_rows_does_not_matter(
    content: list[tuple[int, int, str]], seed: int, shuffle: random.Random
) -> None:
    rows = table(content)
    shuffled = list(rows)
    shuffle.shuffle(shuffled)

    def places(of: list[TableRow]) -> dict[int, str] | None:
        labels = [one.label for one in of]
        try:
            found = assign_group_splits(
                group_rows(of), labels, seed=seed, validation_fraction=0.2, test_fraction=0.2
            )
        except SplitImpossible:
            return None
        return {one.line: side for one, side in zip(of, found, strict=True)}

    assert places(rows) == places(shuffled)


@given(sizes=st.lists(st.integers(10, 60), min_size=2, max_size=6), seed=seeds)
@steady
def test_each_class_gives_its_share_where_no_rows_belong_together(
    sizes: list[int], seed: int
) -> None:
    labels = [f"class {number}" for number, size in enumerate(sizes) for _ in range(size)]
    rows = [row(at, label=label) for at, label in enumerate(labels)]

    splits = assign_group_splits(
        group_rows(rows), labels, seed=seed, validation_fraction=0.1, test_fraction=0.2
    )

    counts = Counter(zip(labels, splits, strict=True))
    for number, size in enumerate(sizes):
        assert abs(counts[f"class {number}", "test"] - 0.2 * size) <= 1


def test_rows_hang_together_by_a_chain_of_groups_and_equal_inputs() -> None:
    rows = [row(1, "a"), row(2, "a"), row(2, "b"), row(3, "b"), row(4), row(5, "c"), row(4, "c")]

    groups = group_rows(rows)

    assert len(set(groups[:4])) == 1
    assert len({groups[4], groups[5], groups[6]}) == 1
    assert len(set(groups)) == 2


def test_an_empty_group_value_groups_nothing() -> None:
    assert len(set(group_rows([row(1), row(2)]))) == 2


def test_a_class_of_one_group_is_trained_on_and_goes_untested() -> None:
    rows = [
        *(row(at, "the only one", "ill") for at in range(5)),
        *(row(at + 10) for at in range(20)),
    ]

    splits = assign_group_splits(
        group_rows(rows),
        [one.label for one in rows],
        seed=0,
        validation_fraction=0.0,
        test_fraction=0.2,
    )

    assert set(splits[:5]) == {"train"}
    assert splits[5:].count("test") == 4


def test_a_table_of_one_group_cannot_be_parted() -> None:
    rows = [row(at, "a", ("ill", "well")[at % 2]) for at in range(10)]

    with pytest.raises(SplitImpossible, match="10 rows in 1 groups"):
        assign_group_splits(
            group_rows(rows),
            [one.label for one in rows],
            seed=0,
            validation_fraction=0.1,
            test_fraction=0.2,
        )


def test_training_rows_that_a_test_file_knows_are_found_by_inputs_and_by_group() -> None:
    training = [row(1, "a"), row(2, "b"), row(3, "c"), row(4)]
    test = [row(1, "z"), row(9, "c"), row(8)]

    assert leaked_table_rows(training, test) == [0, 2]
