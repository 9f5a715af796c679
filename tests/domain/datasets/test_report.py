"""What is said of a dataset follows from its rows."""

import csv
from pathlib import Path

import pytest

from domain.datasets.report import MAX_EXAMPLES, ConflictingText, DatasetReport, ReportBuilder
from domain.datasets.rows import RowReader

EXAMPLES = Path(__file__).parents[3] / "examples"


def report(data: bytes) -> DatasetReport | None:
    reader, builder = RowReader(), ReportBuilder()
    for row in reader.feed(data) + reader.finish():
        builder.add(row)
    return builder.build(reader)


def test_report_counts_what_the_file_holds() -> None:
    made = report(b"\xef\xbb\xbftext;label\r\n\r\nab;x\r\nabcd;y\r\nab;x\r\nab;y\r\nab;y\r\n")

    assert made == DatasetReport(
        rows=5,
        labels={"x": 2, "y": 3},
        blank_lines=1,
        duplicate_rows=2,
        conflicting_texts=1,
        conflicts=(ConflictingText(first_line=3, first_label="x", line=6, label="y"),),
        longest_text_chars=4,
        mean_text_chars=2.4,
        format="csv",
        delimiter=";",
        encoding="utf-8-sig",
        text_column="text",
        label_column="label",
    )


def test_labels_are_sorted_whatever_their_order_in_the_file() -> None:
    made = report(b"text,label\na,z\nb,a\nc,m\n")

    assert made is not None
    assert list(made.labels) == ["a", "m", "z"]


def test_examples_of_conflicts_are_limited_and_all_are_counted() -> None:
    pairs = "".join(f"text {n},x\ntext {n},y\n" for n in range(30))

    made = report(b"text,label\n" + pairs.encode())

    assert made is not None
    assert made.conflicting_texts == 30
    assert len(made.conflicts) == MAX_EXAMPLES


def test_report_survives_json() -> None:
    made = report(b"text,label\na,z\nb,a\n")

    assert made is not None
    assert DatasetReport.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize("data", [b"", b"text,label\n", b"PK\x03\x04", b"a,b,c\n1,2,3\n"])
def test_there_is_no_report_of_a_file_without_rows(data: bytes) -> None:
    assert report(data) is None


def test_shipped_example_is_clean_and_balanced() -> None:
    made = report((EXAMPLES / "intents.csv").read_bytes())

    assert made is not None
    assert made.rows >= 800
    assert len(made.labels) == 8
    assert min(made.labels.values()) >= 100
    assert (made.duplicate_rows, made.conflicting_texts) == (0, 0)


def test_shipped_example_is_described_as_it_is() -> None:
    made = report((EXAMPLES / "intents.csv").read_bytes())
    described = (EXAMPLES / "README.md").read_text(encoding="utf-8")

    assert made is not None
    assert f"{made.rows} rows in all" in described
    for label, rows in made.labels.items():
        assert f"| `{label}` | {rows} |" in described


def test_reader_agrees_with_the_standard_library_on_the_shipped_example() -> None:
    path = EXAMPLES / "intents.csv"
    with path.open(encoding="utf-8", newline="") as file:
        expected = [(row["text"], row["intent"]) for row in csv.DictReader(file)]
    reader = RowReader()

    rows = reader.feed(path.read_bytes()) + reader.finish()

    assert [(row.text, row.label) for row in rows] == expected
