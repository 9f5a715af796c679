"""`finetrail requests`: how often each route was asked, how it answered and how fast."""

from datetime import datetime
from typing import Annotated, Any

import typer

from finetrail.cli.log import PANEL
from finetrail.cli.options import Json, Key, Url

TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL)(requests)


def requests(
    since: Annotated[
        datetime | None,
        typer.Option("--from", formats=TIMES, help="An hour before --to if left out."),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", formats=TIMES, help="Now if left out.")
    ] = None,
    route: Annotated[
        str | None, typer.Option(help="Only this route, such as `/api/v1/jobs/{job_id}`.")
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(min=60, help="Seconds that a row stands for; the whole time if left out."),
    ] = None,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Show requests, status and latency by route; needs the role admin. Times are local ones."""
    from finetrail.cli import session, views
    from finetrail.render import moment

    with session.connected(url, key) as client:
        found = client.requests(
            since=since and since.astimezone(),
            until=until and until.astimezone(),
            route=route,
            step_s=step,
        )
    if not json:
        found = [_row(each, moment(datetime.fromisoformat(each["time"]))) for each in found]
    views.write(found, json, lambda some: views.records(some, "There were no requests."))


def _row(each: dict[str, Any], time: str) -> dict[str, Any]:
    figures = {name: f"{each[name]:.1f}" for name in ("mean_ms", "p50_ms", "p95_ms", "max_ms")}
    return each | {"time": time} | figures
