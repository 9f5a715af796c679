"""`finetrail queue`: what waits and why, the policy, priorities, and decisions taken again."""

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from domain.queues.commands import Assign
from domain.queues.events import QueueEvent
from domain.queues.queue import decider
from finetrail.cli.exits import Exit
from tests.cli import answers
from tests.cli.conftest import Cli
from tests.cli.fake_server import FakeServer, Reply
from tests.domain.test_queue import offered, queued, withdrawn
from tests.samples import NOW

WAITING = {
    "position": 1,
    "code": "agents_busy",
    "reason": "the only agent that can run it is busy: box with job 7",
    "ahead": 0,
    "estimated_start": None,
    "estimate": "nothing is known of how long what goes before it takes",
}
ITEM = {
    "work_id": answers.JOB_ID,
    "kind": "train",
    "method": "sft",
    "attempt": 1,
    "status": "waiting",
    "user": "key:ann",
    "priority": 70,
    "pool": "lab",
    "needs": {"accelerator": "gpu", "memory_bytes": 24_000_000_000},
    "position": 1,
    "waiting": WAITING,
    "agent_id": None,
    "reason": None,
    "queued_at": "2026-11-20T18:00:00Z",
    "assigned_at": None,
}
POLICY = {
    "number": 2,
    "patience": 7,
    "memory": 50,
    "evaluations_first": True,
    "everyone": {"weight": 1, "running": 2, "queued": None},
    "users": {"key:ann": {"weight": 2, "running": None, "queued": 5}},
    "set_at": "2026-11-20T18:00:00Z",
    "set_by": "key:root",
    "sequence": 9,
}


def logged(*history: QueueEvent) -> list[dict[str, Any]]:
    """Events as the server tells them."""
    return [
        {
            "sequence": number,
            "id": answers.JOB_ID,
            "type": type(event).__name__,
            "aggregate": "queue",
            "aggregate_id": answers.JOB_ID,
            "actor": "reaction",
            "source": "reaction",
            "correlation_id": answers.JOB_ID,
            "causation_id": answers.JOB_ID,
            "time": (NOW + timedelta(seconds=number)).isoformat(),
            "data": event.model_dump(mode="json"),
        }
        for number, event in enumerate(history, 1)
    ]


def played() -> list[QueueEvent]:
    """Two users; the second one came last and is served second."""
    so_far: list[QueueEvent] = [offered()]
    so_far += [queued(1, user="ann"), queued(2, user="ann"), queued(3, user="bob")]
    for number in (1, 3, 2):
        so_far += decider.decide(Assign(), decider.fold(so_far))
        so_far.append(withdrawn(number))
    return so_far


def serve_events(server: FakeServer, history: Sequence[QueueEvent]) -> None:
    server.on("GET", "/api/v1/events", Reply(200, {"items": logged(*history)}))


def test_the_queue_is_shown_with_the_reason_of_each(server: FakeServer, cli: Cli) -> None:
    given = {
        **ITEM,
        "status": "assigned",
        "position": None,
        "waiting": None,
        "reason": "first of 1",
    }
    server.on("GET", "/api/v1/queue", Reply(200, {"items": [given, ITEM]}))

    for command in (("queue",), ("queue", "show")):
        lines = cli(*command).stdout.splitlines()
        assert lines[1].endswith("started  first of 1")
        assert lines[2].split()[:5] == ["1", answers.JOB_ID, "train", "key:ann", "70"]
        assert "lab, gpu, 24.0 GB" in lines[2]
        assert lines[2].endswith(WAITING["reason"])
    assert json.loads(cli("queue", "show", "--json").stdout)[1]["waiting"] == WAITING


def test_a_job_that_waits_says_why(server: FakeServer, cli: Cli) -> None:
    job = answers.job(status="queued", waiting=WAITING)
    server.on("GET", f"/api/v1/jobs/{answers.JOB_ID}", Reply(200, job))

    shown = cli("jobs", answers.JOB_ID).stdout

    assert WAITING["reason"] in shown
    assert f"not known: {WAITING['estimate']}" in shown


def test_priority_pool_and_needs_are_sent_with_a_job(server: FakeServer, cli: Cli) -> None:
    server.on("POST", "/api/v1/jobs", Reply(202, answers.job(status="queued")))
    asked = ("--priority", "80", "--pool", "lab", "--accelerator", "gpu", "--memory-gb", "1.5")

    cli("train", answers.dataset()["id"], "--model", "intents", *asked)

    sent = server.asked[-1].json
    assert (sent["priority"], sent["pool"]) == (80, "lab")
    assert sent["needs"] == {"accelerator": "gpu", "memory_bytes": 1_500_000_000}


def test_a_priority_is_changed(server: FakeServer, cli: Cli) -> None:
    path = f"/api/v1/jobs/{answers.JOB_ID}/priority"
    server.on("POST", path, Reply(202, answers.job(status="queued", priority=90)))

    assert cli("queue", "priority", answers.JOB_ID, "90").exit_code == 0
    assert server.asked[-1].json == {"priority": 90}
    assert cli("queue", "priority", answers.JOB_ID, "101").exit_code == Exit.USAGE


def test_the_policy_is_shown_and_set_as_it_was_printed(
    server: FakeServer, cli: Cli, tmp_path: Path
) -> None:
    server.on("GET", "/api/v1/queue/policy", Reply(200, POLICY))
    server.on("PUT", "/api/v1/queue/policy", Reply(200, POLICY))
    shown = cli("queue", "policy").stdout
    printed = cli("queue", "policy", "--json").stdout
    (tmp_path / "policy.json").write_text(printed)

    done = cli("queue", "policy", "--set", "policy.json")

    assert done.exit_code == 0, done.stderr
    assert "7 starts, then a work goes first" in shown
    assert "weight 2, at most 5 queued" in shown
    names = ("patience", "memory", "evaluations_first", "everyone", "users")
    assert server.asked[-1].json == {name: POLICY[name] for name in names}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1 is no JSON"),
        ("[]", "a policy is a JSON object"),
        ('{"patience": 0}', "patience"),
        ('{"pations": 1}', "pations"),
        ('{"users": {"key:a": {"running": -1}}}', "users.key:a.running"),
    ],
)
def test_a_file_that_is_no_policy_is_refused_before_anything_is_asked(
    server: FakeServer, cli: Cli, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "policy.json").write_text(text)

    for command in (("policy", "--set"), ("replay", "--policy")):
        done = cli("queue", *command, "policy.json")
        assert done.exit_code != 0
        assert said in done.stderr
    assert server.asked == []


def test_decisions_are_taken_again(server: FakeServer, cli: Cli) -> None:
    serve_events(server, played())

    done = cli("queue", "replay")

    assert (done.exit_code, done.stdout) == (0, "3 decisions: all as rules and inputs say.\n")


def test_a_decision_that_is_not_what_the_rules_say_is_shown(server: FakeServer, cli: Cli) -> None:
    history = played()
    history[4] = history[4].model_copy(update={"agent_id": "b"})
    serve_events(server, history)

    done = cli("queue", "replay", "--json")

    assert done.exit_code == Exit.FAILED
    assert [one["sequence"] for one in json.loads(done.stdout.splitlines()[0])["differences"]] == [
        5
    ]


def test_another_policy_gives_another_order(server: FakeServer, cli: Cli, tmp_path: Path) -> None:
    serve_events(server, played())
    (tmp_path / "policy.json").write_text('{"users": {"bob": {"running": 0}}}')

    shown = cli("queue", "replay", "--policy", "policy.json").stdout
    told = json.loads(cli("queue", "replay", "--policy", "policy.json", "--json").stdout)

    assert [(one["user"], one["would_start_at"] is not None) for one in told] == [
        ("ann", True),
        ("ann", True),
        ("bob", False),
    ]
    assert "bob: would wait – on average" in shown
