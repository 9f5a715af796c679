"""A table is read by stated rules: what its columns are for, and what every cell says."""

import csv
import io
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.datasets.cells import read_number
from domain.datasets.rows import RowReader, read_table
from domain.datasets.table_rows import CellReader
from domain.datasets.tables import TableChoice, TableColumn, TableSchema
from tests.published import published

steady = settings(deadline=None)  # on a busy machine

HEADER = ("patient_id", "age", "sex", "note", "visit", "risk")


def file(
    rows: Sequence[Sequence[object]], header: Sequence[str] = HEADER, end: str = "\n"
) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=end).writerows([header, *rows])
    return out.getvalue().encode()


def patients(count: int = 40) -> list[list[object]]:
    return [
        [1000 + at % 30, 20 + at, "fm"[at % 2], f"note {at}" * 3, at % 3, ("low", "high")[at % 2]]
        for at in range(count)
    ]


def scanned(data: bytes, choice: TableChoice | None = None) -> RowReader:
    reader = RowReader(kind="tabular", table=choice or TableChoice())
    reader.feed(data)
    reader.finish()
    return reader


def schema_of(data: bytes, choice: TableChoice | None = None) -> TableSchema:
    reader = scanned(data, choice)
    assert reader.problems == []
    assert reader.schema is not None
    return reader.schema


def read(data: bytes, schema: TableSchema) -> RowReader:
    reader = RowReader(kind="tabular", table=schema)
    reader.feed(data)
    reader.finish()
    return reader


def codes(reader: RowReader) -> list[str]:
    return [problem.code for problem in reader.problems]


def test_the_columns_that_nobody_named_are_told_by_stated_rules() -> None:
    rows = [[*row[:3], f"text {at} " * 4, 7, row[5]] for at, row in enumerate(patients(80))]

    schema = schema_of(file(rows))

    roles = {column.name: (column.role, column.why) for column in schema.columns}
    assert (schema.target, schema.target_why) == ("risk", "it is the last column")
    assert roles == {
        "patient_id": (
            "group",
            "an identifier by its name; rows with the same one stay together",
        ),
        "age": ("numeric", "all of its values are numbers"),
        "sex": ("categorical", "it holds 2 categories"),
        "note": ("ignored", "more than 50 different texts are no categories"),
        "visit": ("ignored", "it holds one value only"),
    }


@pytest.mark.parametrize(
    ("values", "role"),
    [
        ([1000 + at for at in range(40)], "ignored"),  # another one in every row
        ([1000 + at % 30 for at in range(40)], "group"),  # people who come again
        ([at % 4 for at in range(40)], "numeric"),  # a number of something is no identifier
        ([at + 0.5 for at in range(40)], "numeric"),  # a measurement, whatever it is called
    ],
)
def test_an_identifier_is_told_by_its_name_and_its_values(values: list[float], role: str) -> None:
    rows = [[value, at, ("low", "high")[at % 2]] for at, value in enumerate(values)]

    schema = schema_of(file(rows, ("Patient No", "age", "risk")))

    assert schema.columns[0].role == role


@pytest.mark.parametrize(("sites", "role"), [(9, "numeric"), (10, "group")])
def test_an_id_that_repeats_often_still_keeps_its_rows_together(sites: int, role: str) -> None:
    rows = [[at % sites, at, ("low", "high")[at % 2]] for at in range(60)]

    schema = schema_of(file(rows, ("siteId", "age", "risk")))

    assert schema.columns[0].role == role


def test_what_was_said_of_a_column_wins_over_what_stands_in_it() -> None:
    choice = TableChoice(
        target="SEX", numeric=("visit",), categorical=("risk",), group=("age",), ignored=("note",)
    )

    schema = schema_of(file(patients()), choice)

    roles = {column.name: column.role for column in schema.columns}
    assert (schema.target, schema.classes) == ("sex", ("f", "m"))
    assert roles == {
        "patient_id": "group",
        "age": "group",
        "note": "ignored",
        "visit": "numeric",
        "risk": "categorical",
    }


@pytest.mark.parametrize(
    ("choice", "code"),
    [
        (TableChoice(target="outcome"), "missing_column"),
        (TableChoice(numeric=("height",)), "missing_column"),
        (TableChoice(numeric=("sex",)), "not_numeric"),
        (TableChoice(target="risk", numeric=("risk",)), "same_column"),
        (TableChoice(numeric=("age",), ignored=("age",)), "same_column"),
        (TableChoice(shipped="diabetes"), "missing_column"),
        (TableChoice(ignored=("age", "sex", "visit"), target="risk"), "no_inputs"),
    ],
)
def test_what_was_said_and_cannot_be_is_refused(choice: TableChoice, code: str) -> None:
    reader = scanned(
        file([[*row[:3], f"{row[3]} {row[0]}", *row[4:]] for row in patients(60)]), choice
    )

    assert code in codes(reader)
    assert reader.schema is None


def test_a_column_of_too_many_categories_is_refused_where_it_was_chosen() -> None:
    rows = [[f"name {at}", at, ("low", "high")[at % 2]] for at in range(60)]

    reader = scanned(file(rows, ("name", "age", "risk")), TableChoice(categorical=("name",)))

    assert codes(reader) == ["too_many_categories"]


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        (patients(9), "too_few_rows"),
        ([[*row[:5], "low"] for row in patients()], "one_label"),
        ([[*row[:5], ""] for row in patients()], "empty_label"),
        ([[*row[:5], f"{at}"] for at, row in enumerate(patients(120))], "too_many_labels"),
        (
            [[*row[:5], f"{at % 99}"] for at, row in enumerate(patients(105))],
            "labels_hardly_repeat",
        ),
    ],
)
def test_a_table_that_cannot_be_learned_is_refused(rows: list[list[object]], code: str) -> None:
    assert code in codes(scanned(file(rows)))


def test_ten_rows_are_enough() -> None:
    assert schema_of(file(patients(10))).classes == ("high", "low")


def test_every_cell_that_is_read_otherwise_is_told_with_its_line() -> None:
    rows = patients(60)
    rows[0][2], rows[1][2], rows[2][1], rows[3][1] = "F", " m", "", "about 30"
    rows[4][1], rows[5][1], rows[6][5] = "n/a", " 41", "LOW"
    data = file(rows)
    schema = schema_of(data, TableChoice(target="risk", ignored=("note",)))

    reader = read(data, schema)

    assert reader.cleanings is not None
    assert [
        (each.line, each.column, each.was, each.became, each.why) for each in reader.cleanings.first
    ] == [
        (2, "sex", "F", "f", "spelling"),
        (3, "sex", " m", "m", "blanks"),
        (4, "age", "", None, "missing"),
        (5, "age", "about 30", None, "unreadable"),
        (6, "age", "n/a", None, "missing"),
        (7, "age", " 41", "41", "blanks"),
        (8, "risk", "LOW", "low", "spelling"),
    ]
    assert reader.cleanings.missing == {"age": 3}


def test_more_than_a_hundred_cleanings_are_counted_and_not_listed() -> None:
    data = file([[*row[:2], f" {row[2]}", *row[3:]] for row in patients(150)])

    reader = read(data, schema_of(data))

    assert reader.cleanings is not None
    assert (reader.cleanings.count, len(reader.cleanings.first)) == (150, 100)


@pytest.mark.parametrize(("delimiter", "missing"), [(";", 0), (",", 40)])
def test_a_decimal_comma_is_read_only_where_no_comma_parts_the_fields(
    delimiter: str, missing: int
) -> None:
    out = io.StringIO(newline="")
    rows = [
        ["age", "dose", "risk"],
        *([at, f"{at},5", ("low", "high")[at % 2]] for at in range(40)),
    ]
    csv.writer(out, delimiter=delimiter).writerows(rows)
    data = out.getvalue().encode()

    choice = TableChoice(numeric=("age",), categorical=() if delimiter == ";" else ("dose",))
    schema = schema_of(data, choice)
    numeric = schema.model_copy(
        update={
            "columns": tuple(one.model_copy(update={"role": "numeric"}) for one in schema.columns)
        }
    )
    reader = read(data, numeric)

    assert reader.cleanings is not None
    assert reader.cleanings.missing.get("dose", 0) == missing


def test_a_test_file_is_read_by_the_schema_of_training() -> None:
    schema = schema_of(file(patients()), TableChoice(target="risk", ignored=("note",)))
    other = file([[30, "X", "HIGH", "f"], [31, "f", "low", "m"]], ("AGE", "Sex", "Risk", "visit"))

    first, second = read_table([other], "csv", schema)

    assert (first.values, first.label) == ({"age": 30.0, "sex": None, "visit": None}, "high")
    assert (second.values["sex"], second.groups) == ("f", ("",))
    unknown = read(file([[30, "f", "dead", 1]], ("age", "sex", "risk", "visit")), schema)
    assert codes(unknown) == ["unknown_class"]


def test_json_lines_hold_tables_too() -> None:
    lines = [
        f'{{"age": {20 + at}, "smoker": {"true" if at % 3 else "false"}, "bmi": null, "risk": {at % 2}}}'
        for at in range(20)
    ]
    data = "\n".join(lines).encode()

    reader = scanned(data)

    assert reader.schema is not None
    assert reader.schema.classes == ("0", "1")
    assert {one.name: one.role for one in reader.schema.columns} == {
        "age": "numeric",
        "smoker": "categorical",
        "bmi": "ignored",
    }
    assert codes(scanned(b'{"age": [1], "risk": 0}\n' + data)) == ["wrong_type"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Non-diabetic", "N"),
        ("diabetic ", "Y"),
        ("PREDIABETIC", "P"),
        ("n", "N"),
        ("p", "P"),
    ],
)
def test_the_classes_of_the_diabetes_schema_are_known_in_both_spellings(
    written: str, read: str
) -> None:
    names = ("Y", "Diabetic", "N", "No diabetes", "P", "Pre-Diabetic", written)
    rows = [[5 + at / 10, 40 + at, 22 + at, "FM"[at % 2], names[at % 7]] for at in range(42)]

    schema = schema_of(
        file(rows, ("HbA1c", "AGE", "BMI", "Gender", "CLASS")), TableChoice(shipped="diabetes")
    )

    assert schema.classes == ("N", "P", "Y")
    assert CellReader(schema, decimal_comma=False).label(written) == read


@given(st.floats(allow_nan=False, allow_infinity=False))
@steady
def test_every_number_that_python_writes_is_read_back(number: float) -> None:
    assert read_number(repr(number), decimal_comma=False) == number


@pytest.mark.parametrize("text", ["1_000", "0x10", "inf", "nan", "1e999", "٣", "1 000", "", "."])
def test_what_is_no_plain_number_is_not_read_as_one(text: str) -> None:
    assert read_number(text, decimal_comma=True) is None


@given(
    spellings=st.lists(
        st.sampled_from(["Yes", "yes", " YES", "no", "No "]), min_size=10, max_size=40
    ),
    seed=st.randoms(use_true_random=False),
)
@steady
def test_categories_do_not_depend_on_the_order_of_the_rows(
    spellings: list[str], seed: object
) -> None:
    rows = [[text, at, ("a", "b")[at % 2]] for at, text in enumerate(spellings)]
    shuffled = list(rows)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]

    both = [
        schema_of(file(each, ("smoker", "age", "risk")), TableChoice(categorical=("smoker",)))
        for each in (rows, shuffled)
    ]

    assert both[0] == both[1]


@given(
    rows=st.lists(
        st.tuples(
            st.one_of(st.floats(-1e6, 1e6), st.none()),
            st.sampled_from(["red", "green", "blue"]),
            st.sampled_from(["up", "down"]),
        ),
        min_size=12,
        max_size=40,
    ),
    cut=st.integers(1, 50),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
@steady
def test_a_clean_table_is_read_as_it_stands(
    rows: list[tuple[float | None, str, str]], cut: int, end: str
) -> None:
    written = [["" if number is None else repr(number), *rest] for number, *rest in rows]
    data = file(written, ("size", "colour", "class"), end)
    column = TableColumn
    schema = TableSchema(
        target="class",
        target_why="chosen",
        classes=("down", "up"),
        columns=(
            column(name="size", role="numeric", why="chosen"),
            column(
                name="colour", role="categorical", why="chosen", categories=("blue", "green", "red")
            ),
        ),
    )

    chunks = [data[at : at + cut] for at in range(0, len(data), cut)]
    found = list(read_table(chunks, "csv", schema))

    assert [(row.values["size"], row.values["colour"], row.label) for row in found] == rows


def test_the_published_file_is_read_as_it_is() -> None:
    data = published("diabetes/diabetes.csv").read_bytes()
    assert data.count(b"\r") > 1000
    assert data.count(b"\n") < 2

    schema = schema_of(data)
    reader = read(data, schema)

    assert reader.labels == {"N": 103, "P": 53, "Y": 844}
    assert [one.name for one in schema.columns if one.role == "group"] == ["ID", "No_Pation"]
    assert reader.cleanings is not None
    assert [(one.line, one.column, one.was, one.became) for one in reader.cleanings.first] == [
        (104, "CLASS", "N ", "N"),
        (993, "Gender", "f", "F"),
        *((line, "CLASS", "Y ", "Y") for line in (998, 999, 1000, 1001)),
    ]
