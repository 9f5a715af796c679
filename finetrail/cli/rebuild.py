"""`finetrail rebuild`: fill views anew from the log while the others go on being read."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from finetrail.cli.options import Json

if TYPE_CHECKING:
    from finetrail.rebuilding import Progress
    from finetrail.settings import Settings

SAY_S = 2.0  # between lines where nobody sees a line change


def register(app: typer.Typer) -> None:
    app.command()(rebuild)


def rebuild(
    view: Annotated[
        str | None, typer.Argument(help="Such as `job`; all of them if left out.")
    ] = None,
    json: Json = False,
) -> None:
    """Fill read models anew from the log, while what is there goes on being read."""
    from finetrail.cli import session
    from finetrail.cli.exits import Failed, UsageProblem
    from finetrail.rebuilding import NoSuchView
    from finetrail.render import write_json

    settings = session.running_settings()
    try:
        done = asyncio.run(_follow(settings, view, quiet=json))
    except NoSuchView as error:
        raise UsageProblem(str(error)) from error
    problems = [problem for one in done for problem in _problems(one)]
    if json:
        write_json({"rebuilds": [one.model_dump() for one in done]})
        raise typer.Exit(1 if problems else 0)
    for one in done:
        typer.echo(_outcome(one))
    if problems:
        raise Failed("; ".join(problems))


async def _follow(settings: "Settings", view: str | None, *, quiet: bool) -> Sequence["Progress"]:
    from finetrail.rebuilding import rebuild as rebuilding

    done: Sequence[Progress] = ()
    said = -SAY_S
    async with contextlib.aclosing(rebuilding(settings, view)) as states:
        async for done in states:
            running = [one for one in done if not one.ended]
            if running and not quiet and running[0].seconds - said >= SAY_S:
                said = running[0].seconds
                typer.echo(_line(running[0]))
    return done


def _line(progress: "Progress") -> str:
    if progress.status == "asked":
        return "waiting for the projections process"
    if progress.status == "switching":
        return f"{progress.sequence:>11,} events  comparing and switching"
    left = f"  {progress.eta_s:.0f} s left" if progress.eta_s is not None else ""
    return (
        f"{progress.sequence:>11,} of {progress.goal:,} events  "
        f"{progress.events_per_s:,.0f}/s{left}"
    )


def _problems(progress: "Progress") -> list[str]:
    """What keeps views from being replaced."""
    if progress.status == "failed":
        return [f"{', '.join(progress.views)}: {progress.error}"]
    return [
        f"{view} stays as it was, for sequence {its.sequence} cannot be taken in: {its.error}"
        for view, its in progress.parked.items()
    ]


def _outcome(progress: "Progress") -> str:
    if progress.status == "failed":
        return f"{', '.join(progress.views)}: not replaced"
    named = ", ".join(progress.switched)
    lines = [f"{named}: {progress.sequence:,} events in {progress.seconds:.1f} s"]
    lines += [
        f"  {table} was wrong in {its.rows:,} rows, such as "
        + ", ".join(f"{name} {value}" for name, value in its.key.items())
        for table, its in progress.differences.items()
    ]
    if not progress.differences:
        lines.append("  every row was as the log says")
    return "\n".join(lines)
