"""Rows of a chat, an instruction or a prompt become conversations, whatever file they come in."""

import csv
import gzip
import io
import json
import re
import tracemalloc
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.datasets.conversations import Conversation, Message
from domain.datasets.rows import (
    DatasetUnreadable,
    LineProblem,
    RowReader,
    read_conversations,
    read_rows,
)
from domain.jobs.spec import RowKind

ROOT = Path(__file__).parents[3]
steady = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine


def system(content: str) -> Message:
    return Message("system", content, supervised=False)


def user(content: str) -> Message:
    return Message("user", content, supervised=False)


def assistant(content: str, *, learned: bool = True) -> Message:
    return Message("assistant", content, supervised=learned)


def read(data: bytes | str, **options: Any) -> tuple[list[Any], RowReader]:
    reader = RowReader(**options)
    rows = reader.feed(data.encode() if isinstance(data, str) else data)
    return rows + reader.finish(), reader


def conversation(row: dict[str, Any], **options: Any) -> Conversation:
    (found,), reader = read(json.dumps(row), **options)
    assert reader.problems == []
    assert isinstance(found, Conversation)
    return found


def said(*turns: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in turns]


def test_a_chat_is_told_by_its_messages() -> None:
    row = {"messages": said(("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello "))}

    (found,), reader = read("\n" + json.dumps(row | {"id": 3}) + "\n")

    assert found == Conversation(2, (system("Be kind."), user("Hi"), assistant("Hello ")))
    assert (reader.kind, reader.text_column, reader.label_column) == ("chat", "messages", "")
    assert (reader.row_count, reader.labels, reader.blank_lines) == (1, {}, 1)


def test_a_developer_is_the_system() -> None:
    found = conversation({"messages": said(("developer", "x"), ("user", "y"), ("assistant", "z"))})

    assert found.messages[0] == system("x")


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "Where "}, {"type": "text", "text": "is it?"}]

    found = conversation({"messages": said(("user", parts), ("assistant", "Here."))})

    assert found.messages[0] == user("Where is it?")


@pytest.mark.parametrize("zero", ["0", "0.0"])
def test_an_answer_of_weight_0_is_read_and_not_learnt(zero: str) -> None:
    turns = said(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    text = json.dumps({"messages": turns}).replace('"b"', f'"b", "weight": {zero}')
    text = text.replace('"d"', '"d", "weight": 1')

    (found,), _ = read(text)

    assert found.messages == (user("a"), assistant("b", learned=False), user("c"), assistant("d"))


def test_what_follows_the_last_learnt_answer_is_left_out() -> None:
    turns = said(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))

    found = conversation({"messages": [*turns[:3], turns[3] | {"weight": 0}]})

    assert found.messages == (user("a"), assistant("b"))


def test_what_exporters_leave_empty_is_passed_over() -> None:
    turns = said(("user", "a"), ("assistant", "b"))
    empty = {"tool_calls": None, "function_call": None, "weight": None, "name": "x"}

    found = conversation(
        {
            "messages": [turns[0] | {"weight": None}, turns[1] | empty],
            "tools": [],
            "functions": None,
        }
    )

    assert found.messages == (user("a"), assistant("b"))


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({}, (user("do"), assistant("done"))),
        ({"input": "it"}, (user("do\n\nit"), assistant("done"))),
        ({"input": " \n"}, (user("do"), assistant("done"))),
        ({"input": None, "system": None}, (user("do"), assistant("done"))),
        ({"input": "it", "system": "x"}, (system("x"), user("do\n\nit"), assistant("done"))),
        ({"system": "", "text": "…"}, (user("do"), assistant("done"))),
    ],
)
def test_an_instruction_is_asked_by_the_user_with_its_input(
    row: dict[str, Any], messages: tuple[Message, ...]
) -> None:
    assert conversation({"instruction": "do", "output": "done"} | row).messages == messages


def test_instructions_stand_in_csv_too() -> None:
    rows, reader = read("Instruction,Input,Output\ndo,,done\nsay,it,said\n")

    assert [row.messages for row in rows] == [
        (user("do"), assistant("done")),
        (user("say\n\nit"), assistant("said")),
    ]
    assert [row.line for row in rows] == [2, 3]
    assert (reader.kind, reader.text_column, reader.label_column) == (
        "instruction",
        "Instruction",
        "Output",
    )


@pytest.mark.parametrize(
    "data", ['{"prompt": "a -> ", "completion": " b\\n"}', 'prompt,completion\na -> ," b\n"\n']
)
def test_prompt_and_completion_stay_as_they_stand(data: str) -> None:
    (found,), reader = read(data)

    assert found.messages == (user("a -> "), assistant(" b\n"))
    assert found.raw
    assert reader.kind == "prompt_completion"


def test_prompt_and_completion_of_messages_are_a_chat_that_learns_the_completion() -> None:
    prompt = said(("user", "a"), ("assistant", "b"), ("user", "c"))

    found = conversation({"prompt": prompt, "completion": said(("assistant", "d"))})

    assert found.messages == (user("a"), assistant("b", learned=False), user("c"), assistant("d"))
    assert not found.raw


@pytest.mark.parametrize("format_", ["csv", "jsonl"])
def test_other_names_of_columns_are_told_with_the_kind(format_: str) -> None:
    data = "q,a\nhow?,so" if format_ == "csv" else '{"q": "how?", "a": "so"}'

    for kind in ("instruction", "prompt_completion"):
        (found,), reader = read(data, kind=kind, text_column="q", label_column="a")

        assert found.messages == (user("how?"), assistant("so"))
        assert (reader.text_column, reader.label_column) == ("q", "a")


def test_a_chat_may_stand_under_another_key() -> None:
    row = {"turns": said(("user", "a"), ("assistant", "b"))}

    assert conversation(row, kind="chat", text_column="turns").messages[1] == assistant("b")


def test_what_was_told_of_a_file_reads_it_again() -> None:
    for data in (
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}',
        "Prompt;Completion\na;b\n",
        '{"instruction": "a", "output": "b", "input": "c"}',
    ):
        first, told = read(data)

        again = list(
            read_conversations(
                [data.encode()],
                told.format,
                told.kind,
                told.delimiter,
                told.text_column,
                told.label_column,
            )
        )

        assert again == first


@pytest.mark.parametrize(
    "data",
    ["messages,label\na,x\nb,y\n", '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}'],
)
def test_everything_else_is_a_classification(data: str) -> None:
    rows, reader = read(data)

    assert reader.kind == "classification"
    assert [(row.text, row.label) for row in rows] == [("a", "x"), ("b", "y")]


def test_chosen_columns_without_a_kind_mean_a_classification() -> None:
    data = "prompt,completion\na,x\nb,y\n"

    rows, reader = read(data, text_column="prompt", label_column="completion")

    assert reader.kind == "classification"
    assert [(row.text, row.label) for row in rows] == [("a", "x"), ("b", "y")]


def test_reading_texts_and_labels_is_not_put_off_by_names_of_another_kind() -> None:
    rows = read_rows([b"prompt,completion\na,x\nb,y\n"], "csv", "prompt", "completion", ",")

    assert [(row.text, row.label) for row in rows] == [("a", "x"), ("b", "y")]


def test_conversations_that_cannot_be_read_end_with_what_is_wrong() -> None:
    good = json.dumps({"messages": said(("user", "a"), ("assistant", "b"))})
    found = []

    with pytest.raises(DatasetUnreadable, match="line 2: the conversation has no messages"):
        found.extend(read_conversations([good.encode(), b'\n{"messages": []}']))

    assert len(found) == 1


def only_problem(data: str, **options: Any) -> LineProblem:
    _, reader = read(data, **options)
    assert reader.problem_count == len(reader.problems) == 1, reader.problems
    return reader.problems[0]


GOOD = said(("user", "a"), ("assistant", "b"))
IMAGE = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "…"}}]


@pytest.mark.parametrize(
    ("messages", "code", "field", "expected"),
    [
        (None, "wrong_type", "messages", "an array of messages"),
        ("a", "wrong_type", "messages", "an array of messages"),
        ([], "no_messages", "messages", "the assistant's answer"),
        (["a"], "wrong_type", "messages[0]", '{"role": "user"'),
        ([{"content": "a"}], "missing_key", "messages[0].role", "role"),
        ([{"role": "user"}], "missing_key", "messages[0].content", "content"),
        (said(("human", "a")), "unknown_role", "messages[0].role", "assistant or tool"),
        ([{"role": 5, "content": "a"}], "wrong_type", "messages[0].role", "a string"),
        (said(("user", "")), "empty_text", "messages[0].content", "some text"),
        (said(("user", [])), "empty_text", "messages[0].content", "some text"),
        (said(("user", None)), "wrong_type", "messages[0].content", "a string"),
        (said(("user", 7)), "wrong_type", "messages[0].content", "a string"),
        (said(("user", "\ud800")), "invalid_character", "messages[0].content", "characters only"),
        (said(("user", "x" * 100_001)), "field_too_long", "messages[0].content", "100,000"),
        (said(("user", IMAGE)), "unsupported_content", "messages[0].content[1].type", "images"),
        (said(("user", ["a"])), "wrong_type", "messages[0].content[0]", "a text part"),
        (said(("user", [{"type": "text"}])), "missing_key", "messages[0].content[0].text", "text"),
        (said(("function", "a")), "unsupported_tools", "messages[0].role", "tool_calls"),
        (
            [GOOD[0], {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}],
            "bad_tool_call",
            "messages[1].tool_calls[0]",
            "function",
        ),
        ([*GOOD, *said(("user", "c"))], "no_answer_at_end", "messages[2].role", "at the end"),
        (said(("system", "a")), "no_answer_at_end", "messages[0].role", "at the end"),
        (said(("assistant", "a")), "role_order", "messages[0].role", "in turn"),
        (said(("user", "a"), ("user", "b")), "role_order", "messages[1].role", "in turn"),
        ([*GOOD, *said(("assistant", "b"))], "role_order", "messages[2].role", "in turn"),
        ([*GOOD, *said(("system", "c"))], "system_not_first", "messages[2].role", "first"),
        (said(("system", "a"), ("developer", "b")), "system_not_first", "messages[1].role", "one"),
        ([GOOD[0] | {"weight": 1}, GOOD[1]], "weight_not_of_assistant", "messages[0].weight", "only"),
        ([GOOD[0], GOOD[1] | {"weight": 0.5}], "bad_weight", "messages[1].weight", "1 for"),
        ([GOOD[0], GOOD[1] | {"weight": True}], "bad_weight", "messages[1].weight", "1 for"),
        ([GOOD[0], GOOD[1] | {"weight": "1"}], "bad_weight", "messages[1].weight", "1 for"),
        ([GOOD[0], GOOD[1] | {"weight": 0}], "nothing_supervised", "messages", "weight 1"),
        (GOOD * 501, "too_many_messages", "messages", "1,000 messages"),
    ],
)  # fmt: skip
def test_a_bad_message_is_named_with_what_would_be_right(
    messages: Any, code: str, field: str, expected: str
) -> None:
    good = json.dumps({"messages": GOOD})

    problem = only_problem(f"{good}\n{json.dumps({'messages': messages})}\n{good}\n")

    assert (problem.line, problem.code, problem.field) == (2, code, field)
    assert problem.message
    assert expected in problem.expected


def test_every_bad_message_of_a_row_is_named() -> None:
    row = {"messages": said(("user", ""), ("assistant", "b"), ("human", "c"))}

    _, reader = read(json.dumps(row))

    assert [problem.field for problem in reader.problems] == [
        "messages[0].content",
        "messages[2].role",
    ]


def test_a_row_with_functions_is_told_to_have_tools() -> None:
    problem = only_problem(json.dumps({"messages": GOOD, "functions": [{"name": "f"}]}))

    assert (problem.code, problem.field) == ("unsupported_tools", "functions")
    assert "tools" in problem.expected


@pytest.mark.parametrize(
    ("row", "code", "field"),
    [
        ({"instruction": "", "output": "b"}, "empty_text", "instruction"),
        ({"instruction": "a", "output": " "}, "empty_text", "output"),
        ({"instruction": "a", "input": "b"}, "missing_key", "output"),
        ({"instruction": "a", "output": "b", "input": 5}, "wrong_type", "input"),
        ({"instruction": "a", "output": "b", "system": []}, "wrong_type", "system"),
        ({"instruction": "a", "output": "b", "input": "x" * 100_001}, "field_too_long", "input"),
    ],
)
def test_a_bad_instruction_is_named(row: dict[str, Any], code: str, field: str) -> None:
    good = json.dumps({"instruction": "a", "output": "b"})

    problem = only_problem(f"{good}\n{json.dumps(row)}")

    assert (problem.line, problem.code, problem.field) == (2, code, field)


@pytest.mark.parametrize(
    ("row", "code", "field"),
    [
        ({"prompt": "", "completion": "b"}, "empty_text", "prompt"),
        ({"prompt": "a", "completion": None}, "wrong_type", "completion"),
        ({"prompt": "a", "completion": GOOD}, "wrong_type", "completion"),
        ({"prompt": GOOD[:1], "completion": "b"}, "wrong_type", "completion"),
        ({"prompt": GOOD, "completion": GOOD[1:]}, "role_order", "completion[0].role"),
        ({"prompt": GOOD, "completion": []}, "nothing_supervised", "completion"),
        ({"prompt": GOOD[:1], "completion": [{"role": "x"}]}, "unknown_role", "completion[0].role"),
    ],
)
def test_a_bad_completion_is_named(row: dict[str, Any], code: str, field: str) -> None:
    good = json.dumps({"prompt": "a", "completion": "b"})

    _, reader = read(f"{good}\n{json.dumps(row)}")

    first = reader.problems[0]
    assert (first.line, first.code, first.field) == (2, code, field)


def test_a_row_of_two_kinds_is_refused_with_its_keys() -> None:
    chat, both = {"messages": GOOD}, {"messages": GOOD, "prompt": "a", "completion": "b"}

    problem = only_problem(f"{json.dumps(chat)}\n{json.dumps(both)}")

    assert (problem.line, problem.code) == (2, "two_kinds")
    for word in ("chat", '"messages"', "prompt_completion", '"completion"', '"prompt"'):
        assert word in problem.message


def test_a_file_that_begins_with_a_row_of_two_kinds_is_not_read_on() -> None:
    problem = only_problem("instruction,output,prompt,completion\n" + "a,b,c,d\n" * 5)

    assert (problem.line, problem.code) == (1, "two_kinds")
    assert "--kind instruction" in problem.expected


def test_a_row_of_two_kinds_is_read_as_the_kind_that_was_said() -> None:
    row = {"messages": GOOD, "prompt": "a", "completion": "b"}

    assert conversation(row, kind="prompt_completion").raw
    assert not conversation(row, kind="chat").raw


@pytest.mark.parametrize(
    ("data", "options", "code"),
    [
        ("messages\na\n", {"kind": "chat"}, "chat_needs_jsonl"),
        ('{"messages": []}', {"kind": "chat", "label_column": "answer"}, "chat_has_no_label"),
        ('{"text": "a"}', {"kind": "chat"}, "missing_column"),
        ("text,label\na,b\n", {"kind": "prompt_completion"}, "missing_column"),
        ('{"instruction": "a"}', {"kind": "instruction"}, "missing_column"),
        ("prompt,completion\n", {}, "no_rows"),
        ("\n", {"kind": "chat"}, "empty_file"),
    ],
)
def test_a_file_that_is_not_of_its_kind_is_refused_as_a_whole(
    data: str, options: dict[str, Any], code: str
) -> None:
    rows, reader = read(data, **options)

    assert rows == []
    assert reader.stopped
    assert {problem.code for problem in reader.problems} == {code}


def test_one_row_is_enough_of_a_file_of_conversations() -> None:
    _, reader = read(json.dumps({"messages": GOOD}))

    assert (reader.row_count, reader.problem_count) == (1, 0)


def test_examples_of_the_reference_are_read_as_the_kind_they_stand_under() -> None:
    reference = (ROOT / "docs" / "reference" / "dataset-formats.md").read_text(encoding="utf-8")
    kinds = {"Chat": "chat", "Instruction": "instruction", "Prompt and completion": "prompt_completion"}  # fmt: skip
    for heading, kind in kinds.items():
        section = reference.partition(f"### {heading}\n")[2].partition("\n#")[0]
        example = re.search(r"```(?:json|csv)\n(.*?)```", section, re.DOTALL)
        assert example, heading

        rows, reader = read(example[1])

        assert (reader.kind, reader.problems) == (kind, [])
        assert rows


def test_a_long_file_is_read_without_holding_more_than_a_part_of_it() -> None:
    turns = said(("user", "a" * 3000), ("assistant", "b" * 3000))
    piece = (json.dumps({"messages": turns}) + "\n").encode() * 20
    reader = RowReader()

    tracemalloc.start()
    try:
        for _ in range(80):
            reader.feed(piece)
        reader.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert reader.row_count == 1600
    assert peak < 80 * len(piece) / 5


contents = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30
).filter(str.strip)


@st.composite
def chats(draw: st.DrawFn) -> tuple[Message, ...]:
    """Messages as they are read: in turn, and ending with one that is learned."""
    first = [system(draw(contents))] if draw(st.booleans()) else []
    answers = draw(st.lists(st.booleans(), max_size=3))
    turns = [
        message
        for learned in [*answers, True]
        for message in (user(draw(contents)), assistant(draw(contents), learned=learned))
    ]
    return (*first, *turns)


def written(message: Message) -> dict[str, Any]:
    plain = {"role": message.role, "content": message.content}
    return plain if message.supervised or message.role != "assistant" else plain | {"weight": 0}


@given(
    given_chats=st.lists(chats(), min_size=1, max_size=5),
    ascii_only=st.booleans(),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    block_bytes=st.integers(4, 200),
)
@steady
def test_chats_written_by_others_are_read_as_they_were(
    given_chats: list[tuple[Message, ...]],
    ascii_only: bool,
    line_end: str,
    mark: bytes,
    block_bytes: int,
) -> None:
    lines = [
        json.dumps({"messages": list(map(written, chat))}, ensure_ascii=ascii_only)
        for chat in given_chats
    ]

    rows, reader = read(mark + line_end.join(lines).encode(), block_bytes=block_bytes)

    assert reader.problems == []
    assert [row.messages for row in rows] == given_chats


@given(
    pairs=st.lists(st.tuples(contents, contents), min_size=1, max_size=5),
    names=st.sampled_from([("prompt", "completion"), ("instruction", "output")]),
    delimiter=st.sampled_from([",", ";", "\t"]),
    block_bytes=st.integers(4, 200),
)
@steady
def test_pairs_written_as_csv_are_read_as_they_were(
    pairs: list[tuple[str, str]], names: tuple[str, str], delimiter: str, block_bytes: int
) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([names, *pairs])

    rows, reader = read(out.getvalue().encode(), block_bytes=block_bytes)

    assert reader.problems == []
    assert [(row.messages[0].content, row.answer) for row in rows] == pairs


odd_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", " ", "text", "user", "assistant", "system", "tool", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["role", "content", "weight", "type", "text", "tool_calls"]),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
odd_rows = st.dictionaries(
    st.sampled_from(
        [
            "messages",
            "prompt",
            "completion",
            "instruction",
            "input",
            "output",
            "system",
            "tools",
            "conversations",
            "chosen",
            "rejected",
            "label",
            "text",
            "preferred_output",
            "non_preferred_output",
        ]
    ),
    odd_values,
    max_size=5,
).map(lambda row: json.dumps(row).encode())
odd_lines = st.one_of(
    odd_rows,
    st.binary(max_size=30),
    st.sampled_from([b'{"messages":', b"", b"prompt,completion", b"a,b", b'"a', json.dumps({"messages": GOOD}).encode()]),
)  # fmt: skip


def seen(
    data: bytes, cuts: list[int], kind: str | None, block_bytes: int, filename: str | None
) -> tuple[object, ...]:
    """All that can be known of a file, fed in the chunks that ``cuts`` make."""
    reader = RowReader(kind=kind, block_bytes=block_bytes, filename=filename)  # type: ignore[arg-type]
    rows: list[object] = []
    position = 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        rows += reader.feed(data[position:cut])
        position = cut
    rows += reader.finish()
    problems = [problem.model_dump_json() for problem in reader.problems]
    return rows, problems, reader.problem_count, reader.kind, reader.row_count, reader.text_column


@given(
    lines=st.lists(odd_lines, max_size=6),
    cuts=st.lists(st.integers(0, 500), max_size=6),
    kind=st.sampled_from([None, *get_args(RowKind)]),
    container=st.sampled_from(["lines", "array", "gzip", "text"]),
    block_bytes=st.integers(4, 60),
)
@steady
def test_any_rows_in_any_chunks_read_the_same_and_never_raise(
    lines: list[bytes], cuts: list[int], kind: str | None, container: str, block_bytes: int
) -> None:
    data, name = b"\n".join(lines), None
    if container == "array":
        data = b"[" + b",\r\n".join(lines) + b"]"
    if container == "gzip":
        data = gzip.compress(data, mtime=0)
    if container == "text":
        data, name = b"plain " + data, "a.txt"

    whole = seen(data, [], kind, 64 * 1024, name)

    assert seen(data, cuts, kind, 64 * 1024, name) == whole
    assert seen(data, cuts, kind, block_bytes, name) == whole
    assert all(
        row.messages[-1].supervised and row.messages[-1].role == "assistant"
        for row in whole[0]  # type: ignore[attr-defined]
        if isinstance(row, Conversation)
    )
