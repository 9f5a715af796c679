"""How the demo talks to a model: by OpenAI's API, patiently, and counting what was right."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from finetrail import demo_chat
from finetrail.cli.exits import Failed
from finetrail.client import Client
from finetrail.demo_chat import Talk, Talker, different, on_wordings, sample, talk
from tests.cli import answers
from tests.cli.fake_server import Asked, FakeServer, Reply

CHAT = "/v1/chat/completions"


def row(prompt: str, answer: str, **more: Any) -> dict[str, Any]:
    said = [
        {"role": "user", "content": prompt, "supervised": False},
        {"role": "assistant", "content": answer, "supervised": True},
    ]
    return {"line": 1, "messages": said, "raw": False, **more}


def stream(*pieces: str, error: str = "") -> Reply:
    chunks = [{"choices": [{"delta": {"role": "assistant", "content": ""}}]}]
    chunks += [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
    chunks += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": []}]
    if error:
        chunks = [*chunks[:2], {"error": {"message": error}}]  # type: ignore[dict-item]
    body = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks]
    headers = {"Content-Type": "text/event-stream"}
    return Reply(headers=headers, chunks=[*body, b"data: [DONE]\n\n"])


def refusal(status: int, message: str) -> Reply:
    return Reply(status, {"error": {"message": message}})


@pytest.fixture
def talker(server: FakeServer) -> Iterator[Talker]:
    with httpx.Client(base_url=server.url) as http:
        yield Talker(http, "support")


def test_an_answer_is_told_piece_by_piece(server: FakeServer, talker: Talker) -> None:
    server.on("POST", CHAT, stream("deli", "very"))
    told: list[str] = []

    said = talker.ask(row("where?", "delivery"), told.append)

    assert (said.prompt, said.answer) == ("where?", "delivery")
    assert [piece for piece in told if piece] == ["deli", "very"]
    assert 0 < said.first_s <= said.total_s
    assert server.asked[0].json == {
        "model": "support",
        "messages": [{"role": "user", "content": "where?"}],
        "temperature": 0,
        "max_tokens": demo_chat.MAX_TOKENS,
        "stream": True,
    }


def test_a_prompt_without_a_chat_around_it_is_completed(server: FakeServer, talker: Talker) -> None:
    chunk = {"choices": [{"text": " delivery"}]}
    body = [f"data: {json.dumps(chunk)}\n\n".encode(), b"data: [DONE]\n\n"]
    headers = {"Content-Type": "text/event-stream"}
    server.on("POST", "/v1/completions", Reply(headers=headers, chunks=body))

    assert talker.right(row("where?", "delivery", raw=True))
    assert server.asked[0].json["prompt"] == "where?"


def test_a_model_that_is_busy_is_asked_again(
    server: FakeServer, talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_chat, "PAUSE_S", 0.01)
    server.on("POST", CHAT, refusal(429, "busy"), refusal(503, "loading"), stream("delivery"))

    assert talker.right(row("where?", "delivery"))


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (refusal(404, "no such model"), "no such model"),
        (Reply(500, None), "HTTP 500"),
        (stream("de", error="the agent is gone"), "the agent is gone"),
    ],
)
def test_an_answer_that_does_not_come_is_a_failure_with_its_reason(
    server: FakeServer, talker: Talker, reply: Reply, reason: str
) -> None:
    server.on("POST", CHAT, reply)

    with pytest.raises(Failed, match=reason):
        talker.ask(row("where?", "delivery"), lambda _: None)


def test_prompts_with_different_answers_are_chosen_first() -> None:
    rows = [row(f"prompt {number}", "ab"[number > 2]) for number in range(6)]

    assert [each["messages"][-1]["content"] for each in different(rows)] == ["a", "b", "a"]
    assert len(different(rows[:2])) == 2


def test_a_sample_is_taken_from_all_over_a_file() -> None:
    rows = [row(str(number), "a") for number in range(10)]

    assert [each["messages"][0]["content"] for each in sample(rows, 3)] == ["0", "3", "6"]
    assert sample(rows, 20) == rows


def test_right_answers_on_other_wordings_are_counted(server: FakeServer, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Reply:
        return stream("refund" if "money" in asked.json["messages"][0]["content"] else "login")

    found = [row("where?", "delivery"), row("money?", "refund")]
    dataset = answers.dataset()["id"]
    server.on("GET", f"/api/v1/datasets/{dataset}/rows", Reply(json=answers.page(*found)))
    server.on("POST", CHAT, answer)
    wordings = tmp_path / "wordings.jsonl"
    others = [row("my money?", "refund"), row("no parcel", "delivery")]
    wordings.write_text("".join(json.dumps(each) + "\n" for each in others))
    told: list[str] = []

    with Client(server.url, "a key") as client:
        said = talk(client, "a key", "support", dataset, wordings, told.append)

    assert [each.answer for each in said.said] == ["login", "refund"]
    assert (said.wordings, said.wordings_right) == (2, 1)
    assert "> where?" in "".join(told)
    assert "1 were answered right (50.0 %)" in on_wordings(said)
    assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer a key"}


def test_without_a_file_of_other_wordings_nothing_is_said_of_them(
    server: FakeServer,
) -> None:
    dataset = answers.dataset()["id"]
    rows = Reply(json=answers.page(row("where?", "delivery")))
    server.on("GET", f"/api/v1/datasets/{dataset}/rows", rows)
    server.on("POST", CHAT, stream("delivery"))

    with Client(server.url, "a key") as client:
        said = talk(client, "a key", "support", dataset, None, lambda _: None)

    assert said == Talk(said.said, 0, 0)
    assert "unseen_wordings" not in demo_chat.as_object(said)
