"""Every container and every kind of answers is read, told with a reason, and read again alike."""

import csv
import gzip
import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.datasets.conversations import Conversation, Message, ToolCall
from domain.datasets.preference_rows import shared_prompt
from domain.datasets.preferences import PreferencePair, RatedCompletion
from domain.datasets.problems import LineProblem
from domain.datasets.rows import RowReader
from domain.datasets.shapes import AnyRow
from domain.datasets.unpacking import MAX_RATIO, RATIO_FROM_BYTES

PIECES = (1, 7, 64, 1 << 20)
USER = {"role": "user", "content": "Which one?"}
RED, BLUE = ({"role": "assistant", "content": each} for each in ("red", "blue"))
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"step": 0.5}}}


def asked(call: str, name: str = "weather", arguments: Any = '{"city": "Paris"}') -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call, "type": "function", "function": function}


def told(call: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call, "content": "18 degrees"}


def calls(*made: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(made)}


def read(data: bytes, **options: Any) -> tuple[list[AnyRow], RowReader]:
    reader = RowReader(**options)
    return [*reader.feed(data), *reader.finish()], reader


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def as_array(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, indent=2).encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, row_group_size=2)
    return out.getvalue()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def contents(rows: list[AnyRow]) -> list[object]:
    """What is learned from, without the lines, which differ from format to format."""
    return [[getattr(row, name) for name in row.__slots__ if name != "line"] for row in rows]


LABELLED = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(5)]
COMPARED = [{"prompt": f"which {n}?", "chosen": "red", "rejected": "blue"} for n in range(5)]
CHATS = [{"messages": [USER, RED]} for _ in range(5)]


@pytest.mark.parametrize("rows", [LABELLED, COMPARED, CHATS], ids=["labels", "pairs", "chats"])
@pytest.mark.parametrize("written", [as_jsonl, as_array, as_parquet, as_csv])
@pytest.mark.parametrize("packed", [False, True])
def test_the_same_rows_come_out_of_every_container(rows: Any, written: Any, packed: bool) -> None:
    if written is as_csv and rows is CHATS:
        return  # a field of CSV holds no messages
    expected, first = read(as_jsonl(rows))
    data = gzip.compress(written(rows)) if packed else written(rows)

    found, reader = read(data)

    assert reader.problems == []
    assert contents(found) == contents(expected)
    assert (reader.kind, reader.compression) == (first.kind, "gzip" if packed else None)


@pytest.mark.parametrize("written", [as_array, as_parquet, as_jsonl])
def test_it_does_not_matter_in_which_chunks_a_packed_file_comes(written: Any) -> None:
    data = gzip.compress(written(CHATS))

    for piece in PIECES:
        reader = RowReader()
        rows = [
            row for at in range(0, len(data), piece) for row in reader.feed(data[at : at + piece])
        ]
        rows += reader.finish()

        assert (len(rows), reader.problems) == (5, [])


def test_a_file_of_several_gzip_members_is_one_file() -> None:
    data = gzip.compress(as_jsonl(LABELLED[:2]) + b"\n") + gzip.compress(as_jsonl(LABELLED[2:]))

    assert len(read(data + b"\0" * 100)[0]) == 5


def test_a_file_that_unpacks_without_end_is_given_up_long_before_its_end() -> None:
    bomb = gzip.compress((b" " * 65_535 + b"\n") * (RATIO_FROM_BYTES // 32_768))

    _, reader = read(bomb)

    assert [(p.code, p.line) for p in reader.problems] == [("unpacks_too_large", 1)]
    assert f"{MAX_RATIO} times" in reader.problems[0].expected


def test_a_parquet_file_whose_values_are_stored_once_is_given_up() -> None:
    text = "x" * 50_000
    out = io.BytesIO()
    table = pa.table({"text": pa.array([text] * 2000), "label": pa.array(["a", "b"] * 1000)})
    pq.write_table(table, out, compression="zstd")

    _, reader = read(out.getvalue())

    assert [p.code for p in reader.problems] == ["unpacks_too_large"]
    assert reader.row_count < 1000


def test_a_problem_of_a_parquet_file_is_named_by_its_row() -> None:
    rows: list[dict[str, Any]] = [*LABELLED, {"text": None, "label": "a"}]

    _, reader = read(as_parquet(rows))

    assert [(p.line, p.field, p.code) for p in reader.problems] == [(6, "text", "wrong_type")]


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [
        (b'[{"text": "a", "label": "x"},\n {"text": "b" "label": "y"}]', 2, 15),
        (b'[{"text": "a", "label": "x"}\n {"text": "b", "label": "y"}]', 2, 2),
        (b'[{"text": "a", "label": "x"},\n]', 2, 1),
        (b'[{"text": "a", "label": "x"}', 1, 29),
        (b'[{"text": "a", "label": "x"}]\n[]', 2, 1),
    ],
)
def test_where_an_array_goes_wrong_is_said(data: bytes, line: int, column: int) -> None:
    _, reader = read(data)

    assert [(p.code, p.line, p.column) for p in reader.problems] == [("invalid_json", line, column)]


@pytest.mark.parametrize(
    ("data", "options", "why"),
    [
        (as_jsonl(CHATS), {}, "chat, because the first row has messages with roles; JSON Lines, because"),
        (as_csv(COMPARED), {}, "preference, because the header has chosen, rejected; CSV, because"),
        (as_jsonl(LABELLED), {"kind": "classification"}, "classification, because it was asked for"),
        (b"a\n\nb", {"filename": "a.txt"}, "text, because plain text has no columns; plain text, because its name"),
        (gzip.compress(as_array(CHATS), mtime=0), {}, "JSON, packed with gzip, because it begins with ["),
    ],
)  # fmt: skip
def test_the_reason_for_a_kind_and_a_format_is_stated(
    data: bytes, options: dict[str, Any], why: str
) -> None:
    assert why in read(data, **options)[1].why


def test_what_was_asked_for_wins_over_what_is_told() -> None:
    row = {"prompt": "a", "completion": "b", "label": "note"}

    (found,), reader = read(as_jsonl([row]), kind="prompt_completion")

    assert isinstance(found, Conversation)
    assert reader.why.startswith("prompt_completion, because it was asked for")
    assert [p.code for p in read(as_jsonl([row]))[1].problems] == ["bad_rating"]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER], "chosen": [RED], "rejected": [BLUE]},
        {"prompt": "Which one?", "chosen": [RED], "rejected": [BLUE]},
        {"chosen": [USER, RED], "rejected": [USER, BLUE]},
        {"prompt": "Which one?", "chosen": [USER, RED], "rejected": [USER, BLUE]},
        {"input": {"messages": [USER]}, "preferred_output": [RED], "non_preferred_output": [BLUE]},
        {
            "input": {"messages": [USER]},
            "preferred_completion": [RED],
            "non_preferred_completion": [BLUE],
        },
    ],
)
def test_every_spelling_of_a_comparison_says_the_same(row: dict[str, Any]) -> None:
    (found,), reader = read(as_jsonl([row]))

    prompt = (Message("user", "Which one?", supervised=False),)
    assert found == PreferencePair(1, prompt, "red", "blue")
    again = RowReader("jsonl", reader.text_column, reader.label_column, kind=reader.kind)
    assert [*again.feed(as_jsonl([row])), *again.finish()] == [found]


def test_two_texts_are_parted_where_their_last_answer_begins() -> None:
    assert shared_prompt("\n\nHuman: a\n\nAssistant: So so", "\n\nHuman: a\n\nAssistant: Soon") == (
        "\n\nHuman: a\n\nAssistant:"
    )
    assert shared_prompt("Name it: bluest", "Name it: blurred") == "Name it: "


@pytest.mark.parametrize(
    ("row", "code", "field"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "same_answers", "rejected"),
        ({"prompt": "a", "chosen": "b", "rejected": ""}, "empty_text", "rejected"),
        ({"prompt": "a", "chosen": "b", "rejected": 1}, "wrong_type", "rejected"),
        ({"chosen": "b", "rejected": "c"}, "prompts_differ", "chosen"),
        ({"chosen": [USER, RED], "rejected": [RED]}, "prompts_differ", "rejected"),
        ({"prompt": "b", "chosen": [USER, RED], "rejected": [USER, BLUE]}, "prompts_differ", "prompt"),
        ({"prompt": [USER], "chosen": [RED, RED], "rejected": [BLUE]}, "several_answers", "chosen"),
        ({"prompt": [USER], "chosen": [], "rejected": [BLUE]}, "no_messages", "chosen"),
        ({"prompt": [USER, RED], "chosen": [RED], "rejected": [BLUE]}, "role_order", "prompt.role"),
        ({"input": {}, "preferred_output": [RED], "non_preferred_output": [BLUE]}, "missing_key", "input.messages"),
        ({"prompt": [USER], "chosen": [calls(asked("1"))], "rejected": [BLUE]}, "unsupported_tools", "chosen"),
        ({"prompt": "a", "completion": "b", "label": "maybe"}, "bad_rating", "label"),
        ({"prompt": "a", "completion": "b", "label": None}, "wrong_type", "label"),
        ({"prompt": [USER], "completion": [RED, USER, BLUE], "label": True}, "several_answers", "completion"),
        ({"text": " "}, "empty_text", "text"),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_compared_is_named(
    row: dict[str, Any], code: str, field: str
) -> None:
    assert [(p.code, p.field) for p in problems(row)] == [(code, field)]


def problems(row: dict[str, Any], **options: Any) -> list[LineProblem]:
    return read(as_jsonl([row]), **options)[1].problems


@pytest.mark.parametrize(
    ("label", "wanted"), [(True, True), ("False", False), (1, True), ("0", False)]
)
def test_a_rated_answer_is_wanted_or_not(label: object, wanted: bool) -> None:
    (found,), _ = read(as_jsonl([{"prompt": "a", "completion": " b", "label": label}]))

    asked_for = (Message("user", "a", supervised=False),)
    assert found == RatedCompletion(1, asked_for, " b", wanted, raw=True)


def test_all_of_a_text_is_learned_and_it_must_not_stand_in_training_and_test_both() -> None:
    (found,), _ = read(b'{"text": "once upon"}')

    assert found == Conversation(1, (Message("assistant", "once upon", supervised=True),), raw=True)
    assert found.prompt == "once upon"


def test_paragraphs_of_plain_text_are_rows() -> None:
    found, reader = read(b"one\r\ntwo\r\n\r\n\r\n  three\n", filename="notes.txt")

    assert [(row.line, row.answer) for row in found if isinstance(row, Conversation)] == [
        (1, "one\ntwo"),
        (5, "  three"),
    ]
    assert reader.blank_lines == 2


def test_a_conversation_in_the_words_of_sharegpt_is_a_chat() -> None:
    row = {
        "system": "Be short.",
        "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
    }

    (found,), _ = read(as_jsonl([row]))

    assert isinstance(found, Conversation)
    assert [(each.role, each.content) for each in found.messages] == [
        ("system", "Be short."),
        ("user", "a"),
        ("assistant", "b"),
    ]


def test_a_conversation_with_tools_keeps_what_was_asked_and_told() -> None:
    row = {
        "tools": [WEATHER],
        "messages": [USER, calls(asked("1"), asked("2")), told("2"), told("1"), RED],
    }

    (found,), _ = read(as_jsonl([row]))

    assert isinstance(found, Conversation)
    assert [json.loads(tool) for tool in found.tools] == [WEATHER]
    assert found.messages[1].tool_calls == tuple(
        ToolCall(number, "weather", '{"city": "Paris"}') for number in "12"
    )
    assert [each.tool_call_id for each in found.messages] == ["", "", "2", "1", ""]


def bad_tools() -> Iterator[tuple[list[dict[str, Any]], str]]:
    yield (
        [USER, calls(asked("1", name="time")), told("1"), RED],
        "messages[1].tool_calls[0].function.name",
    )
    yield (
        [USER, calls(asked("1", arguments="{")), told("1"), RED],
        "messages[1].tool_calls[0].function.arguments",
    )
    yield (
        [USER, calls(asked("1", arguments="[1]")), told("1"), RED],
        "messages[1].tool_calls[0].function.arguments",
    )
    yield [USER, calls(asked("1"), asked("1")), told("1"), RED], "messages[1].tool_calls"
    yield [USER, calls(asked("1"), asked("2")), told("2"), RED], "messages[1].tool_calls[0]"
    yield [USER, calls(asked("1")), told("9"), RED], "messages[2].tool_call_id"


@pytest.mark.parametrize(("messages", "field"), list(bad_tools()))  # fmt: skip
def test_a_call_that_is_wrong_is_named(messages: list[dict[str, Any]], field: str) -> None:
    found = problems({"tools": [WEATHER], "messages": messages})

    assert [(p.code, p.field) for p in found] == [("bad_tool_call", field)]


def test_a_tool_speaks_only_when_it_was_asked() -> None:
    assert [(p.code, p.field) for p in problems({"messages": [USER, RED, told("1"), RED]})] == [
        ("role_order", "messages[2].role")
    ]
    assert [p.code for p in problems({"tools": [{"name": "f"}], "messages": [USER, RED]})] == [
        "bad_tools"
    ]
