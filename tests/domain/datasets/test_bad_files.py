"""Every way a file can be wrong is named by line and field, with what would be right."""

import json
import pickle

import pytest

from domain.datasets.lines import MAX_LINE_BYTES
from domain.datasets.problems import MAX_COUNTED, MAX_PROBLEMS, LineProblem
from domain.datasets.rows import DatasetUnreadable, Row, RowReader, read_rows

GOOD = "text,label\nhello,greeting\nbye,farewell\n"


def read(data: bytes | str, **options: object) -> tuple[list[Row], RowReader]:
    reader = RowReader(**options)  # type: ignore[arg-type]
    rows = reader.feed(data.encode() if isinstance(data, str) else data)
    return rows + reader.finish(), reader


def only_problem(data: bytes | str, **options: object) -> LineProblem:
    _, reader = read(data, **options)
    assert reader.problem_count == len(reader.problems) == 1, reader.problems
    return reader.problems[0]


@pytest.mark.parametrize(
    ("line", "code", "column", "field", "expected"),
    [
        ("only one field", "wrong_field_count", None, "label", "2 fields parted by commas"),
        ("a,b,c", "wrong_field_count", None, None, "stands in double quotes"),
        (",x", "empty_text", None, "text", "some text"),
        (" \t,x", "empty_text", None, "text", "some text"),
        ("x,", "empty_label", None, "label", "the name of a class"),
        ('x,""', "empty_label", None, "label", "the name of a class"),
        (f"x,{'y' * 201}", "label_too_long", None, "label", "at most 200 characters"),
        (f"{'y' * 100_001},x", "field_too_long", None, "text", "at most 100,000 characters"),
        (f"{'y' * 140_000},x", "field_too_long", None, None, "at most 100,000 characters"),
        ("n\0l,x", "nul_byte", 2, None, "UTF-8"),
        ('"quoted" text,x', "bad_quote", 1, "text", "a quote inside it written twice"),
        ('x,"quoted" label', "bad_quote", 3, "label", "a quote inside it written twice"),
        ('x,"two\nlines"', "label_line_break", None, "label", "on one line"),
    ],
)
def test_bad_csv_line_is_named_with_what_would_be_right(
    line: str, code: str, column: int | None, field: str | None, expected: str
) -> None:
    problem = only_problem(GOOD + line + "\nso long,farewell\n")

    assert (problem.line, problem.code, problem.column, problem.field) == (4, code, column, field)
    assert expected in problem.expected


def test_rows_around_a_bad_line_are_read() -> None:
    rows, _ = read(GOOD + "no label\nso long,farewell\n")

    assert [row.line for row in rows] == [2, 3, 5]


def test_unterminated_quote_is_named_at_the_line_where_it_opens() -> None:
    rows, reader = read(GOOD + 'a,x\nsee,"farewell\nb,y\nc,z')

    problem = reader.problems[0]
    assert reader.problem_count == 1
    assert (problem.line, problem.column, problem.field) == (5, 5, "label")
    assert problem.code == "unterminated_quote"
    assert [row.line for row in rows] == [2, 3, 4, 6, 7]


def test_quote_that_swallows_lines_up_to_the_next_one_is_named_where_it_opens() -> None:
    rows, reader = read(GOOD + '"a,x\nb,y\n"c, d",z\n')

    assert [(p.line, p.code) for p in reader.problems] == [(4, "unterminated_quote")]
    assert [row.line for row in rows] == [2, 3, 5, 6]


def test_quote_that_opens_below_a_good_quoted_field_is_named_at_its_own_line() -> None:
    problem = only_problem('text,label\n"one\ntwo","three\nb,y\n')

    assert (problem.line, problem.column, problem.field) == (3, 6, "label")


def test_quote_left_open_over_a_very_long_file_loses_no_later_row() -> None:
    rows, reader = read(GOOD + '"open,x\n' + "some more text,greeting\n" * 20_000)

    assert [(p.line, p.code) for p in reader.problems] == [(4, "unterminated_quote")]
    assert len(rows) == 20_002


def test_invalid_utf8_is_named_by_line_and_offset() -> None:
    start = "text,label\ngrüße,x\n".encode()

    problem = only_problem(start + "caf\xe9,y\n".encode("latin-1"))

    assert (problem.line, problem.column, problem.code) == (3, 4, "invalid_utf8")
    assert f"byte 0xE9 at offset {len(start) + 3} " in problem.message
    assert "UTF-8" in problem.expected


def test_offset_counts_the_byte_order_mark_and_earlier_blocks() -> None:
    start = b"\xef\xbb\xbftext,label\n" + "größer,x\n".encode() * 30_000

    problem = only_problem(start + b"a\xff,y\n")

    assert f"offset {len(start) + 1:,} " in problem.message
    assert problem.line == 30_002


@pytest.mark.parametrize(
    ("data", "code", "line", "field", "says"),
    [
        (b"", "empty_file", 1, None, "empty"),
        (b"\n \r\n\r", "empty_file", 1, None, "empty"),
        (b"\xef\xbb\xbf", "empty_file", 1, None, "empty"),
        (b"text,label\n", "no_rows", 1, None, "no row"),
        (b"text,label\na,x\nb,x\n", "one_label", 1, "label", '"x"'),
        (b"\ntext,label,text\na,x,b\n", "duplicate_column", 2, "text", '"text"'),
        (b"text," + b"x" * 201 + b"\na,x\n", "bad_header", 1, None, "201"),
        (b'"text,label\na,x\nb,y\n', "unterminated_quote", 1, None, "not closed"),
        (b"te\xffxt,label\na,x\nb,y\n", "invalid_utf8", 1, None, "0xFF at offset 2"),
        ("text,label\na,x\n".encode("utf-16"), "wrong_encoding", 1, None, "UTF-16"),
        (b"\xfe\xff\0t\0e", "wrong_encoding", 1, None, "UTF-16"),
        ("text,label".encode("utf-32"), "wrong_encoding", 1, None, "UTF-32"),
        ("text,label\na,x\n".encode("utf-16-le"), "binary_content", 1, None, "NUL"),
        (b"PK\x03\x04....xl/workbook.xml", "binary_content", 1, None, "an Excel workbook"),
        (b"PK\x03\x04....data.csv", "binary_content", 1, None, "a ZIP archive"),
        (b"PAR1\x15\x04", "bad_parquet", 1, None, "cannot be read"),
        (b"\x1f\x8b\x08\x00", "bad_gzip", 1, None, "ends before its end"),
        (b"%PDF-1.7\n", "binary_content", 1, None, "a PDF document"),
        (pickle.dumps(["a"]), "binary_content", 1, None, "a Python pickle"),
        (b"<!DOCTYPE html><html>", "binary_content", 1, None, "a web page"),
    ],
)
def test_hopeless_file_is_refused_as_a_whole(
    data: bytes, code: str, line: int, field: str | None, says: str
) -> None:
    problem = only_problem(data)

    assert (problem.code, problem.line, problem.field) == (code, line, field)
    assert says in problem.message
    assert problem.expected


def test_unknown_columns_are_listed_with_how_to_choose() -> None:
    _, reader = read("id,says,topic\n1,a,b\n")

    assert [(p.code, p.line, p.field) for p in reader.problems] == [
        ("missing_column", 1, "text"),
        ("missing_column", 1, "label"),
    ]
    assert '"id", "says", "topic"' in reader.problems[0].message
    assert "--text COLUMN" in reader.problems[0].expected
    assert reader.stopped


def test_chosen_column_that_is_missing_is_named() -> None:
    problem = only_problem(GOOD, label_column="intent")

    assert (problem.code, problem.field) == ("missing_column", "intent")
    assert '"text", "label"' in problem.message


@pytest.mark.parametrize("name", ["\\ud800", "x" * 201, ""])
def test_only_a_name_is_taken_for_the_other_column(name: str) -> None:
    problem = only_problem(f'{{"text": "a", "{name}": "x"}}\n')

    assert (problem.code, problem.field) == ("missing_column", "label")


def test_one_column_cannot_be_both_text_and_label() -> None:
    assert only_problem(GOOD, text_column="label").code == "same_column"


def test_thousand_and_one_labels_ask_for_the_right_column() -> None:
    data = "text,price\n" + "".join(f"a,{n}.5\n" for n in range(2000))

    problem = only_problem(data, label_column="price")

    assert (problem.code, problem.line, problem.field) == ("too_many_labels", 1002, "price")
    assert "they are numbers" in problem.message
    assert "right column" in problem.message


def test_labels_that_hardly_repeat_ask_for_the_right_column() -> None:
    problem = only_problem("text,label\n" + "".join(f"a,id{n}\n" for n in range(100)))

    assert (problem.code, problem.field) == ("labels_hardly_repeat", "label")
    assert "numbers" not in problem.message


def test_small_test_set_may_hold_one_row_of_each_label() -> None:
    rows, reader = read("text,label\n" + "".join(f"a,id{n}\n" for n in range(99)))

    assert (len(rows), reader.problem_count) == (99, 0)


def test_label_names_that_would_not_fit_one_event_are_refused() -> None:
    data = "text,label\n" + "".join(f"a,{n:0200}\n" for n in range(200)) * 3

    assert only_problem(data).code == "labels_too_large"


@pytest.mark.parametrize(
    ("line", "code", "field", "says"),
    [
        ('{"text": "a"}', "missing_key", "label", 'the keys are "text"'),
        ('{"label": "x"}', "missing_key", "text", 'the keys are "label"'),
        ('{"body": "a", "label": "x"}', "missing_key", "text", 'the keys are "body", "label"'),
        ('{"text": 5, "label": "x"}', "wrong_type", "text", "the number 5"),
        ('{"text": null, "label": "x"}', "wrong_type", "text", "null"),
        ('{"text": ["a"], "label": "x"}', "wrong_type", "text", "an array"),
        ('{"text": "a", "label": null}', "wrong_type", "label", "null"),
        ('{"text": "a", "label": ["x"]}', "wrong_type", "label", "an array"),
        ('{"text": "a", "label": {"x": 1}}', "wrong_type", "label", "an object"),
        ('{"text": "a", "label": 1.0}', "wrong_type", "label", "the number 1.0"),
        ('{"text": "a", "label": 1e2}', "wrong_type", "label", "the number 1e2"),
        ('{"text": " ", "label": "x"}', "empty_text", "text", "empty"),
        ('{"text": "a", "label": ""}', "empty_label", "label", "empty"),
        ('{"text": "a", "text": "b", "label": "x"}', "duplicate_key", "text", "twice"),
        ('{"\\ud800": 1, "\\ud800": 2}', "duplicate_key", None, "\\ud800"),
        ('{"text": "\\ud800", "label": "x"}', "invalid_character", "text", "\\ud800"),
        ('{"text": "a\\u0000", "label": "x"}', "invalid_character", "text", "\\u0000"),
        ('["a", "x"]', "not_an_object", None, "an array"),
        ('"a"', "not_an_object", None, "a string"),
        ("true", "not_an_object", None, "true"),
        ('{"text": "a", "label": "x", "n": NaN}', "invalid_json", None, "NaN"),
        ('{"text": "a", "label": "x", "n": -Infinity}', "invalid_json", None, "-Infinity"),
        (f'{{"text": {"[" * 100_000}', "too_deep", None, "64 levels"),
        (f'{{"text": {"[" * 65}{"]" * 65}, "label": "x"}}', "too_deep", None, "64 levels"),
    ],
)
def test_bad_json_line_is_named_with_what_would_be_right(
    line: str, code: str, field: str | None, says: str
) -> None:
    good = '{"text": "hello", "label": "greeting"}\n{"text": "bye", "label": "farewell"}\n'

    problem = only_problem(good + line + "\n" + good)

    assert (problem.line, problem.code, problem.field) == (3, code, field)
    assert says in problem.message
    assert problem.expected


def test_every_wrong_field_of_a_line_is_named() -> None:
    _, reader = read(GOOD + f" ,{'y' * 201}\n,x\n")

    assert [(p.line, p.field) for p in reader.problems] == [(4, "text"), (4, "label"), (5, "text")]


def test_invalid_json_is_named_with_its_column() -> None:
    problem = only_problem('{"text": "a", "label": "x"}\n  {"text": "a" "label": "x"}\n')

    assert (problem.line, problem.column, problem.code) == (2, 16, "invalid_json")


def test_brackets_inside_a_text_are_not_nesting() -> None:
    lines = [json.dumps({"text": '["{' * 100 + label, "label": label}) for label in "xy"]

    rows, reader = read("\n".join(lines))

    assert (len(rows), reader.problem_count) == (2, 0)


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        ('[{"text": "a", "label": "x"}]', "json_array", "format json"),
        ('[\n{"text": "a", "label": "x"},\n', "json_array", "format json"),
        ('{\n  "text": "a",\n  "label": "x"\n}\n', "json_over_lines", "jq -c"),
    ],
)
def test_other_json_is_refused_with_what_would_be_right(data: str, code: str, said: str) -> None:
    problem = only_problem(data, format="jsonl")

    assert problem.code == code
    assert said in problem.expected


def test_hundred_problems_are_kept_and_the_rest_is_counted() -> None:
    _, reader = read(GOOD + "no label\n" * 250)

    assert len(reader.problems) == MAX_PROBLEMS
    assert [p.line for p in reader.problems] == list(range(4, 104))
    assert reader.problem_count == 250
    assert not reader.stopped


def test_reason_to_stop_is_shown_after_a_hundred_other_problems() -> None:
    many_labels = "".join(f"a,{n}\n" for n in range(1500))

    _, reader = read(GOOD + "no label\n" * 250 + many_labels)

    assert len(reader.problems) == MAX_PROBLEMS
    assert reader.problems[-1].code == "too_many_labels"
    assert reader.problem_count == 251


def test_reading_stops_when_nothing_but_problems_comes() -> None:
    _, reader = read(GOOD + "x\n" * (MAX_COUNTED + 50_000))

    assert reader.stopped
    assert reader.problem_count == MAX_COUNTED + 1
    assert reader.problems[-1].code == "too_many_problems"


def test_line_without_end_is_not_held() -> None:
    reader = RowReader()
    rows = reader.feed(GOOD.encode())
    for _ in range(64):
        rows += reader.feed(b"x" * (MAX_LINE_BYTES // 16))
    rows += reader.feed(b"\r\nnext,greeting\n") + reader.finish()

    assert [(p.line, p.code) for p in reader.problems] == [(4, "line_too_long")]
    assert rows[-1] == Row(5, "next", "greeting")


def test_problem_is_plain_json() -> None:
    problem = only_problem(GOOD + "a\n")

    assert json.loads(problem.model_dump_json()) == {
        "line": 4,
        "column": None,
        "field": "label",
        "code": "wrong_field_count",
        "message": "the row has 1 field, the header has 2",
        "expected": "2 fields parted by commas; a field that holds one itself stands in double quotes",
    }


def test_reading_a_file_that_should_be_good_raises_at_its_end() -> None:
    rows: list[Row] = []

    with pytest.raises(DatasetUnreadable) as caught:
        rows.extend(read_rows([GOOD.encode(), b"a\n"]))

    assert caught.value.count == 1
    assert caught.value.problems[0].line == 4


def test_delimiter_must_be_one_that_parts_fields() -> None:
    with pytest.raises(ValueError, match="cannot part"):
        RowReader(delimiter="ab")
