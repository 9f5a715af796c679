"""Bad uploads are told where they are wrong and leave nothing; good ones come in every form."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.gateway.world import World, csv_rows

CSV = {"Content-Type": "text/csv"}
JSONL = {"Content-Type": "application/x-ndjson"}


async def upload(world: World, content: Any, headers: Any = CSV, **query: Any) -> Any:
    async with world.client("editor") as client:
        return await client.post("/api/v1/datasets", params=query, content=content, headers=headers)


async def refused(world: World, content: Any, headers: Any = CSV, **query: Any) -> dict[str, Any]:
    """The problem of an upload, of which nothing may be left."""
    before = world.events

    answer = await upload(world, content, headers, **query)

    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert world.files() == []
    assert world.events == before
    assert world.bus.sent == []
    assert await world.queries.datasets("default") == []
    problem: dict[str, Any] = answer.json()
    return problem


def lines(*rows: str) -> bytes:
    return ("\n".join(rows) + "\n").encode()


GOOD = [f"text {n},{'a' if n % 2 else 'b'}" for n in range(10)]


@pytest.mark.parametrize(
    ("content", "headers", "code", "line", "field"),
    [
        (b"", CSV, "empty_file", 1, None),
        (b"text,label\n", CSV, "no_rows", 1, None),
        (lines("a,b", *GOOD), CSV, "missing_column", 1, "text"),
        (lines("text,label", *GOOD, ",a"), CSV, "empty_text", 12, "text"),
        (lines("text,label", *GOOD, "something,"), CSV, "empty_label", 12, "label"),
        (lines("text,label", "one,a", "two,a"), CSV, "one_label", 1, "label"),
        (lines("text,label", *GOOD, 'un"closed,a', '"open'), CSV, None, None, None),
        (lines("text,label", *GOOD, "one,two,three"), CSV, None, 12, None),
        (gzip.compress(csv_rows())[:-9], CSV, "bad_gzip", 1, None),
        (csv_rows().decode().encode("utf-16"), CSV, "wrong_encoding", 1, None),
        (csv_rows() + b"caf\xe9,a\n", CSV, None, 42, None),
        (b'{"text": "a", "label": "b"}\n{"text": ', JSONL, None, 2, None),
        (b'{"text": "a", "x": 1, "y": 2}\n', JSONL, None, 1, "label"),
        (b'{"text": 5, "label": "b"}\n', JSONL, None, 1, "text"),
        (b'{"messages": [{"role": "user"}]}', JSONL, "missing_key", 1, "messages[0].content"),
    ],
)
async def test_a_bad_file_is_told_by_line_and_field_and_leaves_nothing(
    world: World,
    content: bytes,
    headers: Any,
    code: str | None,
    line: int | None,
    field: str | None,
) -> None:
    problem = await refused(world, content, headers)

    assert (problem["status"], problem["code"]) == (422, "unreadable_dataset")
    assert problem["total"] >= 1
    first = problem["problems"][0]
    assert set(first) == {"line", "column", "field", "code", "message", "expected"}
    assert code in {None, first["code"]}
    assert line in {None, first["line"]}
    assert field in {None, first["field"]}
    assert first["message"]
    assert first["expected"]


async def test_a_hundred_problems_are_shown_and_all_are_counted(world: World) -> None:
    problem = await refused(world, lines("text,label", *["something,"] * 250))

    assert len(problem["problems"]) == 100
    assert problem["total"] == 250
    assert [one["line"] for one in problem["problems"]] == list(range(2, 102))


@pytest.mark.parametrize(
    "media_type",
    ["application/x-www-form-urlencoded", "image/png", "application/zip", "nonsense"],
)
async def test_another_media_type_is_refused_with_those_that_are_taken(
    world: World, media_type: str
) -> None:
    problem = await refused(world, csv_rows(), {"Content-Type": media_type})

    assert (problem["status"], problem["code"]) == (415, "unsupported_media_type")
    assert "text/csv" in problem["supported"]


async def test_a_file_that_is_announced_too_large_is_not_read(world: World) -> None:
    problem = await refused(world, b"x" * 1_000_001)

    assert (problem["status"], problem["limit"]) == (413, 1_000_000)


async def test_a_file_that_turns_out_too_large_is_refused_in_the_middle(world: World) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b"text,label\n"
        for _ in range(100):
            sent += 1
            yield b"some text,a\nother text,b\n" * 1000

    problem = await refused(world, body())

    assert (problem["status"], problem["code"]) == (413, "too_large")


def form(*parts: tuple[str, str | None, bytes], end: bytes = b"--B--\r\n") -> bytes:
    body = b""
    for name, filename, content in parts:
        said = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
        body += b"--B\r\nContent-Disposition: " + said.encode() + b"\r\n\r\n" + content + b"\r\n"
    return body + end


FORM = {"Content-Type": "multipart/form-data; boundary=B"}
FILE = ("file", "messages.csv", csv_rows())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (form(("name", None, b"x")), "no file"),
        (form(FILE, FILE), "two files"),
        (form(("speed", None, b"x"), FILE), "no field 'speed'"),
        (form(FILE, ("text_column", None, b"text")), "before the file"),
        (form(("name", "a.txt", b"x"), FILE), "not a file"),
        (form(("name", None, b"x" * 2000), FILE), "too long"),
        (form(("text_column", None, b"\xff"), FILE), "UTF-8"),
        (form(FILE, end=b""), "cannot be taken"),
        (b"nothing of the kind", "cannot be taken"),
        (form(*[("name", None, b"x")] * 20, FILE), "cannot be taken"),
        (b"", "cannot be taken"),
    ],
)
async def test_a_bad_form_is_refused_and_leaves_nothing(
    world: World, content: bytes, said: str
) -> None:
    problem = await refused(world, content, FORM)

    assert (problem["status"], problem["code"]) == (400, "invalid_upload")
    assert said in problem["detail"]


@pytest.mark.parametrize(
    "content", [form(("name", None, b"../"), FILE), form(FILE, ("name", None, b"x" * 201))]
)
async def test_a_bad_name_in_a_form_leaves_nothing_before_or_behind_the_file(
    world: World, content: bytes
) -> None:
    problem = await refused(world, content, FORM)

    assert problem["code"] == "invalid_request"
    assert [error["field"] for error in problem["errors"]] == ["name"]


@pytest.mark.parametrize("boundary", ["", "B" * 2000, "X"])
async def test_a_form_with_another_boundary_is_refused(world: World, boundary: str) -> None:
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}

    problem = await refused(world, form(FILE), headers)

    assert problem["status"] == 400


@pytest.mark.parametrize(
    "query",
    [
        {"name": ""},
        {"name": "x" * 201},
        {"name": "\u202e"},
        {"name": "../"},
        {"format": "xlsx"},
        {"delimiter": "x"},
        {"delimiter": ",,"},
    ],
)
async def test_a_bad_parameter_is_named(world: World, query: dict[str, str]) -> None:
    problem = await refused(world, csv_rows(), **query)

    assert (problem["status"], problem["code"]) == (400, "invalid_request")
    assert [error["field"] for error in problem["errors"]] == list(query)


async def test_a_client_that_goes_away_leaves_nothing(world: World) -> None:
    before = world.events
    said: list[Any] = []
    messages = iter(
        [
            {"type": "http.request", "body": csv_rows() * 20_000, "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        said.append(message)

    key = world.keys["editor"].text
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/datasets",
        "raw_path": b"/api/v1/datasets",
        "root_path": "",
        "query_string": b"",
        "scheme": "http",
        "http_version": "1.1",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "headers": [
            (b"host", b"127.0.0.1"),
            (b"content-type", b"text/csv"),
            (b"authorization", f"Bearer {key}".encode()),
        ],
    }
    application: Any = World(world.folder, max_upload_bytes=10**9)
    application.gateway.keyring._access = world.gateway.keyring._access
    application.gateway.keyring.loaded = True
    await application.gateway.app(scope, receive, send)

    assert said[0]["status"] == 400
    assert world.files() == []
    assert world.events == before


async def test_a_full_disk_leaves_nothing_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("adapters.local_blobs.BlobWriter._write", full)
    problem = await refused(world, csv_rows())

    assert (problem["status"], problem["code"]) == (507, "storage_full")


@pytest.mark.parametrize("how", ["raw", "chunks", "form", "form in pieces"])
async def test_the_same_file_is_the_same_dataset_however_it_comes(world: World, how: str) -> None:
    content, headers = csv_rows(), CSV
    query = {"name": "messages"}
    match how:
        case "raw":
            sent: Any = content
        case "chunks":
            sent = pieces(content, 7)
        case "form":
            sent, headers, query = form(("name", None, b"messages"), FILE), FORM, {}
        case _:
            sent, headers = pieces(form(FILE, ("name", None, b"messages")), 11), FORM

    answer = await upload(world, sent, headers, **query)

    assert answer.status_code == 201, answer.text
    assert answer.json()["name"] == "messages"
    assert answer.json()["rows"] == 40
    assert answer.json()["sha256"] == (await world.uploaded())["sha256"]
    assert answer.headers["location"] == f"/api/v1/datasets/{answer.json()['id']}"


async def pieces(content: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def test_json_lines_and_named_columns_are_read(world: World) -> None:
    rows = [{"body": f"text {n}", "kind": "a" if n % 2 else "b"} for n in range(10)]
    content = "\n".join(map(json.dumps, rows)).encode()

    answer = await upload(world, content, JSONL, text_column="body", label_column="kind")

    assert answer.status_code == 201, answer.text
    assert (answer.json()["format"], answer.json()["text_column"]) == ("jsonl", "body")


QUESTION, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
CHAT = json.dumps({"messages": [QUESTION, ANSWER]}).encode()


@pytest.mark.parametrize(
    ("content", "headers", "kind"),
    [
        (CHAT, JSONL, "chat"),
        (b'{"instruction": "a", "output": "b"}', JSONL, "instruction"),
        (b"prompt,completion\na,b\n", CSV, "prompt_completion"),
    ],
)
async def test_conversations_are_told_by_their_rows(
    world: World, content: bytes, headers: Any, kind: str
) -> None:
    answer = (await upload(world, content, headers)).json()

    assert (answer["status"], answer["kind"], answer["rows"]) == ("valid", kind, 1)
    assert (answer["labels"], answer["messages"], answer["supervised_messages"]) == ({}, 2, 1)


@pytest.mark.parametrize("as_form", [False, True])
async def test_the_kind_of_the_rows_is_what_the_sender_says(world: World, as_form: bool) -> None:
    content = b"question,answer\na,b\n"
    columns = {"text_column": "question", "label_column": "answer", "kind": "prompt_completion"}

    if as_form:
        fields = [(name, None, value.encode()) for name, value in columns.items()]
        answer = await upload(world, form(*fields, ("file", "rows.csv", content)), FORM)
    else:
        answer = await upload(world, content, **columns)

    assert answer.status_code == 201, answer.text
    assert {name: answer.json()[name] for name in columns} == columns


@pytest.mark.parametrize("as_form", [False, True])
async def test_a_kind_that_there_is_not_is_refused(world: World, as_form: bool) -> None:
    if as_form:
        problem = await refused(world, form(("kind", None, b"dpo"), FILE), FORM)
    else:
        problem = await refused(world, csv_rows(), kind="dpo")

    assert (problem["status"], problem["code"]) == (400, "invalid_request")
    assert [error["field"] for error in problem["errors"]] == ["kind"]


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("messages.csv", "messages"),
        ("../../etc/passwd", "passwd"),
        ("C:\\data\\my rows.csv", "my rows"),
        ("a\x00b\n.csv", "ab"),
        ("", "dataset"),
        ("日本.csv", "日本"),
        ("x" * 300 + ".csv", "x" * 200),
    ],
)
async def test_a_dataset_is_named_by_its_file_without_path_or_control_characters(
    world: World, filename: str, name: str
) -> None:
    answer = await upload(world, csv_rows(), filename=filename)

    assert answer.status_code == 201, answer.text
    assert answer.json()["name"] == name


async def test_a_repeated_upload_with_the_same_key_is_one_dataset(world: World) -> None:
    headers = CSV | {"Idempotency-Key": "once"}

    first = await upload(world, csv_rows(), headers)
    again = await upload(world, csv_rows(), headers)

    assert first.json() == again.json()
    assert len(await world.queries.datasets("default")) == 1


async def test_an_upload_is_answered_though_postgres_is_away(world: World) -> None:
    world.queries.away = True

    answer = await upload(world, csv_rows())

    assert answer.status_code == 202
    assert answer.json()["status"] == "pending"
    assert answer.json()["sequence"] > 0
    assert "read model" in answer.json()["note"]


async def test_a_large_body_that_is_refused_early_is_still_answered(world: World) -> None:
    taken = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(20):
            await asyncio.sleep(0)
            taken += 1
            yield gzip.compress(csv_rows())[:40] * 1000

    problem = await refused(world, body())

    assert problem["problems"][0]["code"] == "bad_gzip"
    assert taken == 20
