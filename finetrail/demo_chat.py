"""The part of the demo that talks: prompts to a language model in service, answered as they are made."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from httpx_sse import connect_sse

from finetrail.cli.exits import Failed
from finetrail.client import Client
from finetrail.render import Table, clean, percent, seconds

ASKED: Final = 3  # prompts that are streamed
ASKED_WORDINGS: Final = 60  # of those that are worded as nothing in training was
AT_ONCE: Final = 8  # an agent answers twice as many
LOOKED_AT: Final = 100  # rows, for prompts with different answers
MAX_TOKENS: Final = 64
ANSWER_S: Final = 60.0  # the first answer may load the base model
PATIENCE_S: Final = 30.0  # with an agent that is busy or starts anew
PAUSE_S: Final = 0.5
LATER: Final = frozenset({429, 503})  # statuses after which asking again helps

Row = dict[str, Any]  # "messages", and "raw" of a prompt without a chat around it
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Said:
    prompt: str
    answer: str
    first_s: float  # until the first piece of it
    total_s: float


@dataclass(frozen=True, slots=True)
class Talk:
    said: list[Said]
    wordings: int  # prompts in unseen wordings; 0 for data that is not the shipped example
    wordings_right: int


def talk(
    client: Client, key: str, model: str, dataset_id: str, wordings: Path | None, tell: Tell
) -> Talk:
    """Ask some prompts of a dataset aloud, and some of a file in silence."""
    rows = different(client.dataset_rows(dataset_id, limit=LOOKED_AT))
    with httpx.Client(
        base_url=client.url,
        headers={"Authorization": f"Bearer {key}"},
        timeout=ANSWER_S,
        trust_env=False,  # a proxy is not meant for this machine
    ) as http:
        talker = Talker(http, model)
        said = [_aloud(talker, row, tell) for row in rows]
        others = sample(_rows_of(wordings), ASKED_WORDINGS) if wordings else []
        with ThreadPoolExecutor(AT_ONCE) as pool:
            right = sum(pool.map(talker.right, others))
    return Talk(said, len(others), right)


class Talker:
    """Asks one model by OpenAI's API, always for its likeliest answer, which is the same every time."""

    def __init__(self, http: httpx.Client, model: str) -> None:
        self._http = http
        self._model = model

    def ask(self, row: Row, tell: Tell) -> Said:
        """Give a row's prompt, and take the answer piece by piece.

        Raises:
            Failed: No answer came, or not all of it.
        """
        path, body = self._question(row)
        patience = time.monotonic() + PATIENCE_S
        while True:
            began = time.monotonic()
            first_s, answer = 0.0, ""
            try:
                for piece in self._pieces(path, body):
                    first_s = first_s or time.monotonic() - began
                    answer += piece
                    tell(piece)
                return Said(_asked(row), answer, first_s, time.monotonic() - began)
            except httpx.HTTPStatusError as error:  # before the first piece
                if error.response.status_code not in LATER or time.monotonic() > patience:
                    raise Failed(f"{self._model} does not answer: {_why(error)}") from error
            except httpx.TransportError as error:
                raise Failed(f"the answer of {self._model} broke off: {error}") from error
            time.sleep(PAUSE_S)

    def right(self, row: Row) -> bool:
        """Whether the answer is the one expected, word for word."""
        expected = str(row["messages"][-1]["content"])
        return self.ask(row, lambda _: None).answer.strip() == expected.strip()

    def _question(self, row: Row) -> tuple[str, dict[str, Any]]:
        body = {"model": self._model, "temperature": 0, "max_tokens": MAX_TOKENS, "stream": True}
        if row.get("raw"):
            return "/v1/completions", body | {"prompt": _asked(row)}
        messages = [
            {"role": each["role"], "content": each["content"]} for each in row["messages"][:-1]
        ]
        return "/v1/chat/completions", body | {"messages": messages}

    def _pieces(self, path: str, body: dict[str, Any]) -> Iterator[str]:
        with connect_sse(self._http, "POST", path, json=body) as source:
            if source.response.is_error:
                source.response.read()
                source.response.raise_for_status()
            for message in source.iter_sse():
                if message.data == "[DONE]":
                    return
                chunk = json.loads(message.data)
                if "error" in chunk:
                    raise Failed(f"the answer broke off: {chunk['error']['message']}")
                for choice in chunk["choices"]:
                    yield choice.get("text") or choice.get("delta", {}).get("content") or ""


def different(rows: Sequence[Row]) -> list[Row]:
    """Some rows, with different answers where there are some."""
    by_answer = {row["messages"][-1]["content"]: row for row in rows}
    chosen = list(by_answer.values()) + [row for row in rows if row not in by_answer.values()]
    return chosen[:ASKED]


def sample(rows: Sequence[Row], count: int) -> list[Row]:
    """As many rows, from all over the file."""
    return [rows[at * len(rows) // count] for at in range(count)] if len(rows) > count else [*rows]


def tables(said: Talk) -> list[Table]:
    answered = [
        (clean(each.answer), seconds(each.first_s), seconds(each.total_s), each.prompt)
        for each in said.said
    ]
    return [Table(("answer", "first piece", "whole", "prompt"), answered, title="Answers")]


def on_wordings(said: Talk) -> str:
    """What a share of right answers on seen wordings does not tell."""
    share = percent(said.wordings_right / said.wordings)
    return (
        f"of {said.wordings} prompts worded as nothing it was trained on, "
        f"{said.wordings_right} were answered right ({share})"
    )


def as_object(said: Talk) -> dict[str, Any]:
    found: dict[str, Any] = {
        "answers": [
            {
                "prompt": each.prompt,
                "answer": each.answer,
                "first_s": round(each.first_s, 3),
                "seconds": round(each.total_s, 3),
            }
            for each in said.said
        ]
    }
    if said.wordings:
        found["unseen_wordings"] = {"asked": said.wordings, "right": said.wordings_right}
    return found


def _aloud(talker: Talker, row: Row, tell: Tell) -> Said:
    tell(f"          > {clean(_asked(row))}\n            ")
    said = talker.ask(row, lambda piece: tell(clean(piece)))
    tell("\n")
    return said


def _asked(row: Row) -> str:
    return str(row["messages"][-2]["content"])


def _rows_of(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]


def _why(error: httpx.HTTPStatusError) -> str:
    try:
        return str(error.response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.response.status_code}"
