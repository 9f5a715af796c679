"""Datasets on the command line: what is uploaded as what, and what of it is learned."""

import json
from pathlib import Path
from typing import Any

from finetrail.cli.exits import Exit
from tests.cli import answers
from tests.cli.conftest import Cli
from tests.cli.fake_server import FakeServer, Reply

DATASETS = "/api/v1/datasets"
ID = answers.dataset()["id"]
SAID = [("system", "Be brief."), ("user", "Where\nis it?"), ("assistant", "On its way.")]


def chat(**changes: Any) -> dict[str, Any]:
    example = [
        {"text": f"{role}: {content}", "supervised": role == "assistant"} for role, content in SAID
    ]
    facts = {"kind": "chat", "text_column": "messages", "label_column": "", "labels": {}}
    counts = {"messages": 600, "supervised_messages": 200, "example": example}
    return answers.dataset(**facts, **counts, format="jsonl", **changes)


def test_the_kind_of_an_upload_is_what_the_user_says(
    server: FakeServer, cli: Cli, tmp_path: Path
) -> None:
    server.on("POST", DATASETS, Reply(201, answers.dataset()), Reply(201, answers.dataset()))
    (tmp_path / "rows.csv").write_text("q,a\nx,y\n")

    cli("datasets", "upload", "rows.csv", "--kind", "instruction", "--text", "q", "--label", "a")
    cli("datasets", "upload", "rows.csv")

    first, second = (request.query for request in server.asked)
    assert (first["kind"], first["text_column"], first["label_column"]) == ("instruction", "q", "a")
    assert "kind" not in second


def test_a_kind_that_there_is_not_is_a_usage_error(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("q,a\nx,y\n")

    assert cli("datasets", "upload", "rows.csv", "--kind", "dpo").exit_code == Exit.USAGE


def test_a_dataset_of_conversations_shows_one_with_what_is_learned(
    server: FakeServer, cli: Cli
) -> None:
    server.on("GET", f"{DATASETS}/{ID}", Reply(json=chat()))

    lines = [line.rstrip() for line in cli("datasets", "show", ID).stdout.splitlines()]

    shown = {line.split("  ")[0]: line for line in lines}
    assert shown["kind"].endswith("  chat")
    assert shown["messages"].endswith("  600, of which 200 are learned")
    assert shown["columns"].endswith("  messages (jsonl)")
    assert "labels" not in shown
    assert [line.split()[1] for line in lines[-3:]] == ["read", "read", "learned"]
    assert lines[-2].endswith("  user: Where\\nis it?")
    assert lines[-1].endswith("  assistant: On its way.")


def test_a_dataset_of_labels_shows_them(server: FakeServer, cli: Cli) -> None:
    server.on("GET", f"{DATASETS}/{ID}", Reply(json=answers.dataset()))

    lines = cli("datasets", "show", ID).stdout.splitlines()

    shown = {line.split("  ")[0]: line for line in lines}
    assert shown["labels"].endswith("  refund (90), track (110)")
    assert shown["columns"].endswith("  text, intent (csv)")
    assert "messages" not in shown


def test_datasets_of_every_kind_are_listed(server: FakeServer, cli: Cli) -> None:
    server.on("GET", DATASETS, Reply(json=answers.page(chat(), answers.dataset())))

    heading, first, second = cli("datasets", "list").stdout.splitlines()

    assert heading.split() == ["id", "name", "status", "kind", "rows", "holds", "size"]
    assert first.split()[3:7] == ["chat", "200", "600", "messages"]
    assert second.split()[3:7] == ["classification", "200", "2", "labels"]


def test_rows_of_conversations_are_shown_message_by_message(server: FakeServer, cli: Cli) -> None:
    messages = [
        {"role": role, "content": content, "supervised": role == "assistant"}
        for role, content in SAID
    ]
    joined = [
        {"role": "user", "content": "a ->", "supervised": False},
        {"role": "assistant", "content": " b", "supervised": True},
    ]
    rows = [
        {"line": 1, "messages": messages, "raw": False},
        {"line": 7, "messages": joined, "raw": True},
    ]
    server.on("GET", f"{DATASETS}/{ID}/rows", Reply(json=answers.page(*rows)))

    shown = cli("datasets", "rows", ID, "--limit", "2").stdout.splitlines()

    assert server.asked[-1].query == {"limit": "2"}
    assert [line.split() for line in shown] == [
        ["line", "role", "message"],
        ["1", "system", "read", "Be", "brief."],
        ["user", "read", "Where\\nis", "it?"],
        ["assistant", "learned", "On", "its", "way."],
        ["7", "prompt", "read", "a", "->"],
        ["completion", "learned", "b"],
    ]


def test_rows_of_labels_are_shown_with_their_texts(server: FakeServer, cli: Cli) -> None:
    row = {"line": 2, "text": "money back", "label": "refund"}
    server.on("GET", f"{DATASETS}/{ID}/rows", Reply(json=answers.page(row)))

    heading, line = cli("datasets", "rows", ID).stdout.splitlines()

    assert heading.split() == ["line", "label", "text"]
    assert line.split() == ["2", "refund", "money", "back"]
    server.on("GET", f"{DATASETS}/{ID}/rows", Reply(json=answers.page(row)))
    assert json.loads(cli("datasets", "rows", ID, "--json").stdout) == [row]
