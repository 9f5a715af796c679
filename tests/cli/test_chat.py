"""`finetrail chat` and the client's calls behind it."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from finetrail.cli.exits import Exit
from finetrail.client import ApiError, Client, NotFound, ServerUnreachable, Unavailable
from tests.cli.conftest import Cli
from tests.cli.fake_server import Asked, Drop, FakeServer, Reply

CHAT = "/v1/chat/completions"
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


def event(data: object) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return event({"model": "support:3", "choices": [choice], "usage": None})


def answer(*texts: str, reason: str = "stop", done: bool = True) -> Reply:
    chunks = [b": ping\n\n", chunk({"role": "assistant", "content": ""})]
    chunks += [chunk({"content": text}) for text in texts]
    chunks.append(chunk({}, reason))
    chunks.append(event({"model": "support:3", "choices": [], "usage": USAGE}))
    return streamed(*chunks, *([b"data: [DONE]\n\n"] if done else []))


def streamed(*chunks: bytes) -> Reply:
    return Reply(headers={"Content-Type": "text/event-stream"}, chunks=chunks)


def refusal(status: int, code: str | None, message: str = "It cannot be.") -> Reply:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return Reply(status, {"error": error}, {"Content-Type": "application/json"})


def asked(server: FakeServer) -> list[Any]:
    return [each.json for each in server.requests("POST", CHAT)]


def test_one_message_is_answered_on_standard_output(server: FakeServer, cli: Cli) -> None:
    server.on("POST", CHAT, answer("It is ", "on its way."))

    shown = cli(
        "chat", "support", "--message", "Where is it?", "--system", "Be brief.",
        "--temperature", "0", "--max-tokens", "9", "--seed", "4",
    )  # fmt: skip

    assert (shown.exit_code, shown.stdout) == (Exit.OK, "It is on its way.\n")
    assert asked(server) == [
        {
            "model": "support",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Where is it?"},
            ],
            "temperature": 0,
            "max_completion_tokens": 9,
            "seed": 4,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


def test_a_message_may_come_from_standard_input(server: FakeServer, cli: Cli) -> None:
    server.on("POST", CHAT, answer("yes"))

    shown = cli("chat", "support", "-m", "-", text="one line\nand another\n")

    assert shown.stdout == "yes\n"
    assert asked(server)[0]["messages"] == [{"role": "user", "content": "one line\nand another"}]


def test_no_message_at_all_is_a_mistake(server: FakeServer, cli: Cli) -> None:
    shown = cli("chat", "support", "-m", "-", text=" \n")

    assert shown.exit_code == Exit.USAGE
    assert server.asked == []


def test_an_answer_in_json_names_the_version_and_its_cost(server: FakeServer, cli: Cli) -> None:
    server.on("POST", CHAT, answer("It\x1b[31m is", reason="length"))

    shown = cli("chat", "support", "-m", "Where?", "--json")

    (line,) = shown.stdout.splitlines()
    assert json.loads(line) == {
        "model": "support:3",
        "message": {"role": "assistant", "content": "It\x1b[31m is"},
        "finish_reason": "length",
        "usage": USAGE,
    }


def test_what_a_model_says_does_not_steer_the_terminal(server: FakeServer, cli: Cli) -> None:
    server.on("POST", CHAT, answer("a\x1b]0;title\x07", "b\tc\nd"))

    assert cli("chat", "support", "-m", "x").stdout == "a\\x1b]0;title\\x07b\tc\nd\n"


def test_lines_are_a_conversation_that_is_remembered(server: FakeServer, cli: Cli) -> None:
    server.on("POST", CHAT, answer("one"), answer("two"), answer("three"), answer("four"))

    shown = cli("chat", "support", text="a\n\nb\n/system Be kind.\nc\n/reset\nd\n/quit\ne\n")

    told = [[message["content"] for message in each["messages"]] for each in asked(server)]
    assert told == [
        ["a"],
        ["a", "one", "b"],
        ["Be kind.", "a", "one", "b", "two", "c"],
        ["Be kind.", "d"],
    ]
    assert shown.stdout == "one\ntwo\nthree\nfour\n"
    assert shown.exit_code == Exit.OK


def test_a_word_that_steers_nothing_is_not_sent(server: FakeServer, cli: Cli) -> None:
    shown = cli("chat", "support", text="/rest\n")

    assert "/rest is none of /system TEXT, /reset, /quit" in shown.stderr
    assert server.asked == []


@pytest.mark.parametrize(
    ("reply", "code", "said"),
    [
        (refusal(404, "model_not_found", "The model 'x' does not exist."), Exit.NOT_FOUND, "exist."),
        (refusal(401, "invalid_api_key"), Exit.REFUSED, "(invalid_api_key)"),
        (refusal(400, "context_length_exceeded"), Exit.REFUSED, "(context_length_exceeded)"),
        (refusal(400, None), Exit.REFUSED, "(invalid_request_error)"),
        (refusal(500, "generation_failed"), Exit.FAILED, "(generation_failed)"),
        (streamed(event({"error": {"message": "It broke.", "code": "lost"}})), Exit.FAILED, "(lost)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", [["-m", "x"], []])
def test_an_error_is_said_as_in_every_other_command(
    server: FakeServer, cli: Cli, reply: Reply, code: Exit, said: str, how: list[str]
) -> None:
    server.on("POST", CHAT, reply)

    shown = cli("chat", "x", *how, text="x\n")

    assert shown.exit_code == code
    assert shown.stderr.startswith("error: ")
    assert said in shown.stderr


def test_a_busy_model_is_asked_again(server: FakeServer, client: Client) -> None:
    server.on("POST", CHAT, refusal(429, "rate_limit_exceeded"), Drop, answer("at last"))

    pieces = list(client.chat("support", [{"role": "user", "content": "x"}]))

    assert "".join(piece.text for piece in pieces) == "at last"
    assert len(asked(server)) == 3


def test_a_model_that_stays_busy_is_unavailable(server: FakeServer, client: Client) -> None:
    server.on("POST", CHAT, refusal(429, "rate_limit_exceeded"))

    with pytest.raises(Unavailable):
        list(client.chat("support", [{"role": "user", "content": "x"}]))


def test_an_answer_that_has_begun_is_not_asked_for_again(
    server: FakeServer, client: Client
) -> None:
    server.on("POST", CHAT, answer("half of", done=False))

    with pytest.raises(ServerUnreachable, match="broke off"):
        list(client.chat("support", [{"role": "user", "content": "x"}]))

    assert len(asked(server)) == 1


def test_a_failure_in_mid_answer_has_its_code(server: FakeServer, client: Client) -> None:
    error = {"error": {"message": "It broke.", "type": "server_error", "code": "lost"}}
    server.on("POST", CHAT, streamed(chunk({"content": "half"}), event(error)))
    pieces = client.chat("support", [{"role": "user", "content": "x"}])

    assert next(pieces).text == "half"
    with pytest.raises(ApiError, match="It broke") as broken:
        next(pieces)
    assert broken.value.code == "lost"


def test_the_version_behind_a_name_can_be_asked_for(server: FakeServer, client: Client) -> None:
    server.on("GET", "/v1/models/support", Reply(json={"id": "support", "root": "support:3"}))
    server.on("GET", "/v1/models/nobody", refusal(404, "model_not_found"))

    assert client.language_model("support")["root"] == "support:3"
    with pytest.raises(NotFound):
        client.language_model("nobody")


# A suite that runs in the background hands it down that Ctrl-C is not to be heard.
HEARING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import finetrail.cli; finetrail.cli.main()"


class Terminal:
    """A chat with a terminal as its input and output, read by whoever waits for words in it."""

    def __init__(self, process: subprocess.Popen[bytes], end: int) -> None:
        self.process = process
        self.shown = ""
        self._end = end

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def until(self, words: str) -> None:
        deadline = time.monotonic() + 20
        while words not in self.shown:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self._end], [], [], left)[0], self.shown
            self.shown += os.read(self._end, 4096).decode(errors="replace")


@contextmanager
def terminal(server: FakeServer, folder: Path) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", HEARING, "chat", "support"],
        cwd=Path(__file__).parents[2],
        env={
            **os.environ,
            "FINETRAIL_URL": server.url,
            "FINETRAIL_API_KEY": "fpk_key",
            "HOME": str(folder),
            "TERM": "dumb",
        },
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_ctrl_c_stops_the_answer_and_not_the_program(server: FakeServer, tmp_path: Path) -> None:
    never = threading.Event()
    gone = threading.Event()

    def endless(_: Asked) -> Reply:
        def chunks() -> Iterator[bytes]:
            yield chunk({"content": "It is "})
            try:
                while not never.wait(0.02):
                    yield b": ping\n\n"
            finally:
                gone.set()

        return Reply(headers={"Content-Type": "text/event-stream"}, chunks=chunks())

    server.on("GET", "/v1/models/support", Reply(json={"id": "support", "root": "support:3"}))
    server.on("POST", CHAT, endless, refusal(400, "context_length_exceeded"), answer("Yes."))

    with terminal(server, tmp_path) as screen:
        screen.until("support:3 listens")
        screen.type("Where?\n")
        screen.until("It is ")
        screen.process.send_signal(signal.SIGINT)
        screen.until("(stopped)")
        assert gone.wait(5)
        screen.until("> ")
        screen.type("Too long\n")
        screen.until("(context_length_exceeded)")
        screen.type("Really?\n")
        screen.until("Yes.")
        screen.type("/quit\n")
        assert screen.process.wait(10) == Exit.OK

    told = [message["content"] for message in asked(server)[-1]["messages"]]
    assert told == ["Where?", "It is ", "Really?"]
