"""The past from the command line and from Python."""

import json
from datetime import UTC, datetime

import pytest

from finetrail.cli.exits import Exit
from finetrail.client import Client
from tests.cli import answers
from tests.cli.answers import JOB_ID
from tests.cli.conftest import Cli
from tests.cli.fake_server import FakeServer, Reply

AT = "2026-11-20T14:00:00Z"
KEY = "3f9a2c1b"
BEGAN = {
    "actor": f"key:{KEY}",
    "key_id": KEY,
    "key_name": "alice",
    "source": "gateway",
    "request_id": "019369c3-5a5b-7222-8333-444455556666",
    "address": "203.0.113.9",
}


def command(**changes: object) -> dict[str, object]:
    facts = {name: BEGAN[name] for name in ("actor", "key_id", "key_name", "source")}
    return {"id": JOB_ID, "type": "SubmitJob", "because_of": None, **facts, **changes}


def test_what_is_shown_is_asked_for_as_it_was(server: FakeServer, cli: Cli) -> None:
    things = {
        ("models",): "/api/v1/models",
        ("evaluations",): "/api/v1/evaluations",
        ("datasets", "list"): "/api/v1/datasets",
        ("agents", "list"): "/api/v1/agents",
        ("keys", "list"): "/api/v1/keys",
    }
    for arguments, path in things.items():
        server.on("GET", path, Reply(json=answers.page()))
        assert cli(*arguments, "--as-of", AT).exit_code == Exit.OK
        assert server.requests("GET", path)[-1].query["as_of"] == AT


def test_one_thing_is_asked_for_as_it_was(server: FakeServer, cli: Cli) -> None:
    server.on("GET", f"/api/v1/jobs/{JOB_ID}", Reply(json=answers.job()))
    server.on("GET", "/api/v1/models/intents", Reply(json=answers.model()))
    server.on("GET", "/api/v1/models/intents/versions", Reply(json=answers.page(answers.version())))

    assert cli("jobs", JOB_ID, "--as-of", "17").exit_code == Exit.OK
    assert cli("models", "intents", "--as-of", "17").exit_code == Exit.OK

    assert [one.query["as_of"] for one in server.asked] == ["17"] * 3


def test_the_list_of_jobs_says_that_it_has_no_past(cli: Cli) -> None:
    shown = cli("jobs", "--as-of", "17")

    assert shown.exit_code == Exit.USAGE
    assert "shows the present only" in shown.output


def test_a_history_names_the_thing_as_people_do(server: FakeServer, cli: Cli) -> None:
    model, version = answers.model(), answers.version()
    span = {
        "number": 1,
        "version_id": version["id"],
        "activated_at": AT,
        "activated_by": f"key:{KEY}",
        "until": None,
        "sequence": 9,
        "until_sequence": None,
    }
    server.on("GET", "/api/v1/models/intents", Reply(json=model))
    server.on("GET", "/api/v1/models/intents/versions/2", Reply(json=version))
    server.on("GET", "/api/v1/models/intents/activations", Reply(json=answers.page(span)))
    server.on("GET", "/api/v1/events", Reply(json=answers.page(answers.event(7))))

    of_model = cli("history", "model", "intents")
    of_version = cli("history", "version", "intents/2", "--json")
    wrong = cli("history", "version", "intents/two")

    assert of_model.exit_code == Exit.OK
    assert "JobSubmitted" in of_model.stdout
    assert "in service from" in of_model.stdout
    asked = [one.query for one in server.requests("GET", "/api/v1/events")]
    assert [(one["aggregate"], one["id"]) for one in asked] == [
        ("model", model["id"]),
        ("model_version", version["id"]),
    ]
    assert json.loads(of_version.stdout)["events"][0]["sequence"] == 7
    assert wrong.exit_code == Exit.USAGE


def test_a_difference_is_a_line_a_field(server: FakeServer, cli: Cli) -> None:
    fields = [
        {"field": "active_number", "before": 1, "after": 2},
        {"field": "activated_by", "before": None, "after": f"key:{KEY}"},
    ]
    changed = {"aggregate": "model", "id": JOB_ID, "name": "intents", "change": "changed"}
    changed |= {"before_sequence": 4, "sequence": 9, "fields": fields}
    created = {**changed, "aggregate": "dataset", "name": "tickets", "change": "created"}
    page = {"from_sequence": 4, "to_sequence": 9, "next": "2.9.4-9"}
    server.on(
        "GET",
        "/api/v1/events/diff",
        Reply(json={**page, "items": [changed]}),
        Reply(json={**page, "items": [created], "next": None}),
    )

    shown = cli("diff", "4", AT, "--aggregate", "model")

    assert [line.split() for line in shown.stdout.splitlines()[1:]] == [
        ["model", "intents", "changed", "active_number", "1", "2"],
        ["model", "intents", "changed", "activated_by", f"key:{KEY}"],
        ["dataset", "tickets", "created", "active_number", "1", "2"],
    ]
    first, second = server.requests("GET", "/api/v1/events/diff")
    assert (first.query["from"], first.query["to"], first.query["aggregate"]) == ("4", AT, "model")
    assert second.query["cursor"] == "2.9.4-9"


def test_a_chain_ends_with_what_began_it(server: FakeServer, cli: Cli) -> None:
    claimed = {"event": answers.event(9, "JobClaimed"), "command": command(type=None)}
    submitted = {"event": answers.event(7), "command": command()}
    why = {"chain": [claimed, submitted], "began": BEGAN, "complete": False, "note": "Not known."}
    server.on("GET", "/api/v1/events/9/why", Reply(json=why))

    shown = cli("why", "9")
    as_json = cli("why", "9", "--json")

    lines = shown.stdout.splitlines()
    assert "JobClaimed" in lines[1]
    assert "SubmitJob" in lines[2]
    assert f"key {KEY} (alice)" in lines[2]
    assert "Not known." in lines
    assert "203.0.113.9" in shown.stdout
    assert json.loads(as_json.stdout)["began"]["request_id"] == BEGAN["request_id"]


def test_a_point_may_be_a_datetime_that_knows_its_zone(server: FakeServer) -> None:
    server.on("GET", "/api/v1/models", Reply(json=answers.page()))
    with Client(server.url, "fpk_x") as client:
        client.models(as_of=datetime(2026, 11, 20, 14, tzinfo=UTC))
        with pytest.raises(ValueError, match="no time zone"):
            client.models(as_of=datetime(2026, 11, 20, 14))  # noqa: DTZ001 - that is the point

    (asked,) = server.requests("GET", "/api/v1/models")
    assert asked.query["as_of"] == "2026-11-20T14:00:00+00:00"
