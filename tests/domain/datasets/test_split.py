"""Rows are parted by the seed alone, label by label, and no text stands on two sides."""

from collections import Counter, defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.datasets.split import SplitImpossible, assign_splits, leaked_rows

steady = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
seeds = st.integers(0, 2**32 - 1)
label_sizes = st.lists(st.integers(3, 60), min_size=2, max_size=12)


def unique_rows(sizes: list[int]) -> tuple[list[str], list[str]]:
    labels = [f"label {index}" for index, size in enumerate(sizes) for _ in range(size)]
    return [f"text {index}" for index in range(len(labels))], labels


@given(sizes=label_sizes, seed=seeds, test=st.floats(0.01, 0.45), validation=st.floats(0, 0.4))
@steady
def test_each_label_gives_its_share_to_within_one_row(
    sizes: list[int], seed: int, test: float, validation: float
) -> None:
    texts, labels = unique_rows(sizes)

    splits = assign_splits(
        texts, labels, seed=seed, validation_fraction=validation, test_fraction=test
    )

    counts = Counter(zip(labels, splits, strict=True))
    for index, size in enumerate(sizes):
        label = f"label {index}"
        assert counts[label, "train"] >= 1
        assert counts[label, "test"] >= 1
        assert abs(counts[label, "test"] - size * test) <= 1
        if size * (1 - test - validation) >= 3:  # room for a training row besides the rounding
            assert abs(counts[label, "validation"] - size * validation) <= 1


@given(sizes=st.lists(st.integers(20, 60), min_size=2, max_size=12), seed=seeds)
@steady
def test_all_labels_together_give_their_share(sizes: list[int], seed: int) -> None:
    texts, labels = unique_rows(sizes)

    splits = Counter(
        assign_splits(texts, labels, seed=seed, validation_fraction=0.1, test_fraction=0.2)
    )

    assert abs(splits["test"] - 0.2 * len(texts)) <= 1
    assert abs(splits["validation"] - 0.1 * len(texts)) <= 1


@given(
    rows=st.lists(st.tuples(st.integers(0, 8), st.sampled_from("xyz")), min_size=1, max_size=60),
    seed=seeds,
)
@steady
def test_no_text_stands_on_two_sides(rows: list[tuple[int, str]], seed: int) -> None:
    texts = [f"text {number}" for number, _ in rows]
    labels = [label for _, label in rows]

    try:
        splits = assign_splits(texts, labels, seed=seed, validation_fraction=0.2, test_fraction=0.3)
    except SplitImpossible:
        return  # too few distinct texts, which the tests below look at

    sides = defaultdict(set)
    labels_of = defaultdict(set)
    for text, label, split in zip(texts, labels, splits, strict=True):
        sides[text].add(split)
        labels_of[text].add(label)
    assert all(len(side) == 1 for side in sides.values())
    assert all(sides[text] == {"train"} for text, own in labels_of.items() if len(own) > 1)
    assert {label for label, split in zip(labels, splits, strict=True) if split == "train"} == set(
        labels
    )


@given(order=st.permutations(range(30)), seed=seeds)
@steady
def test_order_of_the_rows_does_not_matter(order: list[int], seed: int) -> None:
    texts, labels = unique_rows([10, 20])

    def parted(indices: list[int]) -> dict[str, str]:
        splits = assign_splits(
            [texts[i] for i in indices],
            [labels[i] for i in indices],
            seed=seed,
            validation_fraction=0.1,
            test_fraction=0.2,
        )
        return dict(zip([texts[i] for i in indices], splits, strict=True))

    assert parted(order) == parted(list(range(30)))


def test_same_seed_gives_the_same_split_on_every_machine_and_for_ever() -> None:
    texts, labels = unique_rows([5, 5])

    splits = assign_splits(texts, labels, seed=7, validation_fraction=0.2, test_fraction=0.2)

    assert "".join(split[0] + split[1] for split in splits) == "tevatrtrtrtrtrtetrva"


def test_other_seed_gives_another_split() -> None:
    texts, labels = unique_rows([50, 50])

    first, second = (
        assign_splits(texts, labels, seed=seed, validation_fraction=0.1, test_fraction=0.2)
        for seed in (1, 2)
    )

    assert first != second


def test_labels_with_one_or_two_rows_keep_a_training_row() -> None:
    texts, labels = unique_rows([1, 2, 30])

    splits = assign_splits(texts, labels, seed=0, validation_fraction=0.3, test_fraction=0.5)

    assert splits[0] == "train"
    assert "train" in splits[1:3]


def test_nothing_is_held_out_for_testing_when_a_test_file_is_given() -> None:
    texts, labels = unique_rows([10, 10])

    splits = assign_splits(texts, labels, seed=0, validation_fraction=0.2, test_fraction=0)

    assert Counter(splits) == {"train": 16, "validation": 4}


def test_label_whose_rows_are_all_the_same_text_cannot_be_parted() -> None:
    texts, labels = ["a", "a", "a", "b", "c", "d"], ["x"] * 3 + ["y"] * 3

    with pytest.raises(SplitImpossible, match="'x' has 3 rows but only 1 text") as caught:
        assign_splits(texts, labels, seed=0, validation_fraction=0.1, test_fraction=0.2)

    assert caught.value.label == "x"
    assert caught.value.counts == {"rows": 3, "distinct_texts": 1}


def test_dataset_too_small_to_hold_anything_out_is_refused() -> None:
    with pytest.raises(SplitImpossible, match="2 rows with 2 labels") as caught:
        assign_splits(["a", "b"], ["x", "y"], seed=0, validation_fraction=0.1, test_fraction=0.2)

    assert caught.value.label is None


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0.2), (0.1, -0.2), (0.5, 0.5), (0.9, 0.2)])
def test_fractions_must_leave_something_to_train_on(validation: float, test: float) -> None:
    with pytest.raises(ValueError, match="less than 1 together"):
        assign_splits(
            ["a", "b"], ["x", "y"], seed=0, validation_fraction=validation, test_fraction=test
        )


def test_training_rows_whose_text_is_tested_are_found() -> None:
    assert leaked_rows(["a", "b", "c", "a"], ["a", "d", "a"]) == [0, 3]
