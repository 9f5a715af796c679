"""`finetrail requests`: what is asked of the server, and what is shown of its answer."""

import json
from datetime import UTC, datetime
from typing import Any

from finetrail.cli.exits import Exit
from tests.cli.conftest import Cli
from tests.cli.fake_server import FakeServer, Reply

PATH = "/api/v1/admin/requests"
ROW: dict[str, Any] = {
    "time": "2026-11-20T17:41:00Z",
    "method": "GET",
    "route": "/api/v1/jobs",
    "status": "2xx",
    "count": 214,
    "mean_ms": 3.14,
    "p50_ms": 2.6,
    "p95_ms": 8.44,
    "max_ms": 41.9,
}


def test_without_a_step_each_route_has_one_row(server: FakeServer, cli: Cli) -> None:
    server.on("GET", PATH, Reply(json={"items": [ROW]}))

    shown = cli("requests")

    assert shown.exit_code == Exit.OK
    heading, row = shown.stdout.splitlines()
    assert heading.split()[1:] == list(ROW)[1:]
    assert row.split()[2:] == ["GET", "/api/v1/jobs", "2xx", "214", "3.1", "2.6", "8.4", "41.9"]
    assert int(server.asked[-1].query["step"]) == 30 * 86400


def test_a_span_is_asked_for_with_its_time_zone(server: FakeServer, cli: Cli) -> None:
    server.on("GET", PATH, Reply(json={"items": [ROW]}))

    shown = cli(
        *("requests", "--from", "2026-11-20T12:00:00+0200", "--step", "60", "--json"),
        *("--route", "/api/v1/jobs"),
    )

    asked = server.asked[-1].query
    assert datetime.fromisoformat(asked["from"]) == datetime(2026, 11, 20, 10, tzinfo=UTC)
    assert (asked["step"], asked["route"]) == ("60", "/api/v1/jobs")
    assert json.loads(shown.stdout) == [ROW]
