"""`finetrail dead-letters`: what it asks for, and what it shows."""

import json

from finetrail.cli.exits import Exit
from tests.cli.conftest import Cli
from tests.cli.fake_server import FakeServer, Reply, problem

API = "/api/v1/dead-letters"
LETTER = {
    "sequence": 7,
    "status": "open",
    "kind": "reactions",
    "subject": "events.default.job.019369c2-7c5e-7b3a-9f10-5d2a8c4e6b71",
    "type": "JobSubmitted",
    "message_id": "5f0c0f0e-7f0f-5d8e-9a43-6b5b8f0c3a11",
    "reason": "RuntimeError: broken",
    "put_aside_at": "2026-11-20T17:43:05Z",
    "size": 142,
    "retry_of": None,
}
CLOSED = {"sequence": 7, "status": "retried", "reason": "", "log_sequence": 61}


def test_letters_are_listed_and_shown(server: FakeServer, cli: Cli) -> None:
    server.on("GET", API, Reply(json={"items": [LETTER], "next": None}))
    server.on("GET", f"{API}/7", Reply(json=LETTER | {"body": {"job_id": "x"}}))

    listed, shown = cli("dead-letters", "list"), cli("dead-letters", "show", "7", "--json")

    assert "JobSubmitted" in listed.stdout
    assert json.loads(shown.stdout)["body"] == {"job_id": "x"}


def test_a_retry_and_a_discard_say_why(server: FakeServer, cli: Cli) -> None:
    server.on("POST", f"{API}/7/retry", Reply(202, json=CLOSED))
    server.on("POST", f"{API}/7/discard", Reply(json=CLOSED | {"status": "discarded"}))

    assert cli("dead-letters", "retry", "7").exit_code == Exit.OK
    assert cli("dead-letters", "discard", "7", "--reason", "old").exit_code == Exit.OK
    assert cli("dead-letters", "discard", "7").exit_code == Exit.USAGE

    (retry,) = server.requests("POST", f"{API}/7/retry")
    (discard,) = server.requests("POST", f"{API}/7/discard")
    assert (retry.json, discard.json) == ({"reason": ""}, {"reason": "old"})


def test_a_letter_that_is_closed_is_refused(server: FakeServer, cli: Cli) -> None:
    closed = problem(409, "dead_letter_closed", "Dead letter 7 was retried before.")
    server.on("POST", f"{API}/7/retry", closed)

    assert cli("dead-letters", "retry", "7").exit_code == Exit.REFUSED
