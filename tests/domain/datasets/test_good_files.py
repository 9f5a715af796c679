"""Good files give their rows, however they were written and however they arrive."""

import csv
import io
import json

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from domain.datasets.rows import Row, RowReader, read_rows
from domain.datasets.sniff import detect_format

LINE_ENDS = ["\n", "\r\n", "\r"]
steady = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
printable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
texts = printable.filter(str.strip)
labels = st.text(st.characters(categories=["L", "N", "P", "Zs"]), max_size=20).filter(str.strip)
rows_of_two_labels = st.tuples(
    st.lists(st.tuples(texts, labels), max_size=8), st.tuples(texts, texts)
).map(lambda given: [*given[0], (given[1][0], "first"), (given[1][1], "second")])


def read(data: bytes, **options: object) -> tuple[list[Row], RowReader]:
    reader = RowReader(**options)  # type: ignore[arg-type]
    rows = reader.feed(data)
    return rows + reader.finish(), reader


def values(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row.text, row.label) for row in rows]


def seen(data: bytes, cuts: list[int], block_bytes: int = 64 * 1024) -> tuple[object, ...]:
    """All that can be known of a file, fed in the chunks that ``cuts`` make."""
    reader = RowReader(block_bytes=block_bytes)
    rows: list[Row] = []
    position = 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        rows += reader.feed(data[position:cut])
        position = cut
    rows += reader.finish()
    return (
        rows,
        [problem.model_dump_json() for problem in reader.problems],
        reader.problem_count,
        reader.format,
        reader.delimiter,
        reader.encoding,
        reader.text_column,
        reader.label_column,
        reader.labels,
        reader.blank_lines,
    )


dirty_lines = st.lists(
    st.sampled_from(
        [
            b"text,label", b"a,x", b"b,y", b'"a ""b"",', b'"', b'c",y', b"\xff,x", b"\xc3\xa9,y",
            b"\0,x", b"", b" ", b",", b'"one', b'two","x"', b"\xe2\x82", b'{"text":"a","label":"x"}',
            b'{"text":', b'{"text":"a","\\ud800":"x"}', b'{"\\udfff":1,"\\udfff":2}', b"a,b,c", b'"" "",', b'x","', b"\xef\xbb\xbf",
        ]
    ),
    max_size=12,
)  # fmt: skip
dirty_files = st.builds(
    lambda lines, ends: b"".join(
        line + ends[index % len(ends)] for index, line in enumerate(lines)
    ),
    dirty_lines,
    st.lists(st.sampled_from([b"\n", b"\r\n", b"\r", b""]), min_size=1, max_size=4),
)


@given(data=st.one_of(st.binary(max_size=400), dirty_files), cuts=st.lists(st.integers(0, 500)))
@steady
def test_any_bytes_in_any_chunks_read_the_same_and_never_raise(
    data: bytes, cuts: list[int]
) -> None:
    assert seen(data, cuts) == seen(data, [])


@given(
    data=dirty_files.map(lambda lines: b"text,label\nhello,greeting\n" + lines),
    block_bytes=st.integers(4, 40),
)
@steady
def test_borders_of_blocks_do_not_show(data: bytes, block_bytes: int) -> None:
    assert seen(data, [], block_bytes) == seen(data, [])


@given(
    rows=rows_of_two_labels,
    delimiter=st.sampled_from([",", ";", "\t"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    line_end=st.sampled_from(LINE_ENDS),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    block_bytes=st.integers(4, 100),
)
@steady
def test_csv_written_by_others_gives_the_same_rows(
    rows: list[tuple[str, str]],
    delimiter: str,
    quoting: int,
    line_end: str,
    mark: bytes,
    block_bytes: int,
) -> None:
    if quoting == csv.QUOTE_MINIMAL:  # before 3.13 csv quotes no line end but the writer's own
        bare = set("\r\n") - set(line_end)
        assume(not any(bare & set(text) for text, _ in rows))
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=line_end)  # type: ignore[arg-type]
    writer.writerows([("text", "label"), *rows])

    found, reader = read(mark + out.getvalue().encode(), block_bytes=block_bytes)

    assert values(found) == [(text.strip(), label.strip()) for text, label in rows]
    assert reader.problems == []
    assert (reader.format, reader.delimiter) == ("csv", delimiter)
    assert reader.encoding == ("utf-8-sig" if mark else "utf-8")


@given(
    rows=rows_of_two_labels,
    ascii_only=st.booleans(),
    line_end=st.sampled_from(LINE_ENDS),
    block_bytes=st.integers(4, 100),
)
@steady
def test_json_lines_written_by_others_give_the_same_rows(
    rows: list[tuple[str, str]], ascii_only: bool, line_end: str, block_bytes: int
) -> None:
    lines = [
        json.dumps({"text": text, "label": label}, ensure_ascii=ascii_only) for text, label in rows
    ]

    found, reader = read(line_end.join(lines).encode(), block_bytes=block_bytes)

    assert values(found) == [(text.strip(), label.strip()) for text, label in rows]
    assert reader.problems == []
    assert reader.format == "jsonl"


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_line_numbers_are_those_of_the_file(line_end: str) -> None:
    lines = ["", "text,label", "a,x", "", '"b', "", 'b",x', " ", "c,y"]
    rows, reader = read(line_end.join(lines).encode())

    assert [(row.line, row.text) for row in rows] == [
        (3, "a"),
        (5, f"b{line_end * 2}b"),
        (9, "c"),
    ]
    assert reader.blank_lines == 3


def test_mixed_line_ends_count_one_line_each() -> None:
    rows, reader = read(b"text,label\ra,x\r\nb,y\n\r\nc,x\r\rd,y")

    assert [row.line for row in rows] == [2, 3, 5, 7]
    assert reader.blank_lines == 2


def test_rows_of_nothing_but_delimiters_are_blank_lines() -> None:
    rows, reader = read(b"text,label\na,x\nb,y\n,\n , \n")

    assert (len(rows), reader.blank_lines, reader.problems) == (2, 2, [])


def test_white_space_around_texts_and_labels_is_dropped() -> None:
    rows, reader = read(b"text,label\n  a b ,Y \nc,Y\nd,\tN\n")

    assert values(rows) == [("a b", "Y"), ("c", "Y"), ("d", "N")]
    assert reader.labels == {"N": 1, "Y": 2}


@pytest.mark.parametrize(
    ("header", "text", "label"),
    [
        ("text,label", "text", "label"),
        ("Message;Intent", "Message", "Intent"),
        ("id\tquestion\tCATEGORY", "question", "CATEGORY"),
        (" text , label ", "text", "label"),
        ("query,text,class,label", "text", "label"),
        ("text,topic", "text", "topic"),
        ("says,label", "says", "label"),
        (",text,label,", "text", "label"),
        ('"text","label"', "text", "label"),
        ("Text,text,label", "text", "label"),
    ],
)  # fmt: skip
def test_columns_are_found_by_their_usual_names(header: str, text: str, label: str) -> None:
    _, reader = read(header.encode() + b"\n")

    assert (reader.text_column, reader.label_column) == (text, label)


def test_chosen_columns_win_over_usual_names() -> None:
    data = b"text,label,body,kind\na,x,b,y\nc,x,d,z\n"

    rows, reader = read(data, text_column="BODY", label_column="kind")

    assert values(rows) == [("b", "y"), ("d", "z")]
    assert reader.text_column == "body"


def test_given_delimiter_is_used() -> None:
    rows, _ = read(b"text|label\na,b|x\nc;d|y\n", delimiter="|")

    assert values(rows) == [("a,b", "x"), ("c;d", "y")]


def test_delimiter_is_found_in_the_header_alone() -> None:
    rows, _ = read(b"text;label\na, b, c;x\nd, e;y\n")

    assert values(rows) == [("a, b, c", "x"), ("d, e", "y")]


def test_integer_and_boolean_labels_keep_their_json_spelling() -> None:
    digits = "1" * 150
    lines = [f'{{"text":"a","label":{label}}}' for label in ("1", "-0", "true", "false", digits)]

    rows, _ = read("\n".join(lines).encode())

    assert [row.label for row in rows] == ["1", "-0", "true", "false", digits]


def test_quotes_inside_an_unquoted_field_are_text() -> None:
    rows, _ = read(b'text,label\na 5" disc,x\nthe "blue" one,y\n')

    assert [row.text for row in rows] == ['a 5" disc', 'the "blue" one']


@pytest.mark.parametrize(
    ("filename", "content_type", "head", "expected"),
    [
        ("a.csv", None, b"text,label\n", "csv"),
        ("a.tsv", None, b"text\tlabel\n", "csv"),
        ("a.JSONL", None, b"", "jsonl"),
        ("a.ndjson", "text/csv", b"", "jsonl"),
        (None, "application/x-ndjson; charset=utf-8", b"", "jsonl"),
        (None, "text/csv", b"", "csv"),
        (None, None, b"", "csv"),
        ("a.csv", "text/csv", b'\xef\xbb\xbf \n{"text"', "jsonl"),
        (None, None, b"[", "json"),
        ("a.csv", "text/csv", b"PAR1", "parquet"),
        ("notes.txt", None, b"Once, upon a time", "text"),
        ("notes.txt", None, b"text\tlabel\n", "csv"),
        ("a.csv.gz", None, b"x", "csv"),
    ],
)
def test_format_is_told_by_content_then_name_then_type(
    filename: str | None, content_type: str | None, head: bytes, expected: str
) -> None:
    found, why = detect_format(filename, content_type, head)

    assert found == expected
    assert why


def test_rows_come_out_while_the_file_still_comes_in() -> None:
    reader = RowReader()
    reader.feed(b"text,label\n")

    rows = reader.feed(b"some text,greeting\n" * 10_000)

    assert len(rows) > 3000


def test_good_file_is_read_in_one_go() -> None:
    rows = list(read_rows([b"text,la", b"bel\na,x\nb,", b"y"]))

    assert rows == [Row(2, "a", "x"), Row(3, "b", "y")]


@pytest.mark.parametrize("size", [997, 65_535, 65_537, 200_000])
def test_large_file_in_chunks_of_any_size_reads_the_same(size: int) -> None:
    lines = "".join(f'"größer\r\n{n}","label {n % 7}"\r' for n in range(12_000))
    data = b"text,label\r" + lines.encode()

    assert seen(data, list(range(0, len(data), size))) == seen(data, [])
