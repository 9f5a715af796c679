"""`finetrail feed`: events for other systems."""

import asyncio
import contextlib
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetrail.cli.options import Json

if TYPE_CHECKING:
    from finetrail.settings import Settings

app = typer.Typer(help="Events for other systems, over NATS.", no_args_is_help=True)


@app.command()
def credentials(json: Json = False) -> None:
    """Print what another system needs to subscribe: URL, user, password."""
    from finetrail import feed
    from finetrail.cli import session, views

    found = feed.credentials(session.running_settings())
    views.write(found.model_dump(), json, views.one_record)


@app.command()
def tail(
    type: Annotated[  # noqa: A002 - the option's name
        str | None, typer.Option("--type", help="Only of this type, such as `job_succeeded`.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="SEQ|TIME",
            help="From this sequence of the feed on, or this time, such as 2026-11-21T08:00; "
            "from now on if left out.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="End after so many; never if left out.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the feed as a subscriber sees it, until Ctrl-C. With --json, one object a line."""
    from finetrail.cli import session

    subject = f"feed.*.*.{_token(type)}.*"
    start = None if since is None else _start(since)
    asyncio.run(_tail(session.running_settings(), subject, start, limit, as_json=json))


@app.command()
def rebuild(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, json: Json = False
) -> None:
    """Write the feed anew from the whole log; subscribers' durable consumers are lost."""
    from finetrail import feed
    from finetrail.cli import session
    from finetrail.render import write_json

    settings = session.running_settings()
    if not yes:
        typer.confirm("Remove the feed with every consumer on it, and write it anew?", abort=True)
    asyncio.run(feed.rebuild(settings))
    if json:
        write_json({"status": "rebuilding"})
    else:
        typer.echo("The feed is being written anew.")


@app.command()
def schema(
    output: Annotated[
        Path | None, typer.Option(help="A file; standard output if left out.")
    ] = None,
) -> None:
    """Print the AsyncAPI document, which a running gateway serves at /asyncapi."""
    from json import dumps

    from gateway.asyncapi import document

    text = dumps(document(), indent=2, ensure_ascii=False) + "\n"
    if output:
        output.write_text(text)
    else:
        sys.stdout.write(text)


async def _tail(
    settings: "Settings",
    subject: str,
    since: int | datetime | None,
    limit: int | None,
    *,
    as_json: bool,
) -> None:
    from finetrail.feed import tail as messages
    from finetrail.render import clean, write_json

    shown = 0
    async with contextlib.aclosing(messages(settings, subject, since)) as entries:
        async for entry in entries:
            if as_json:
                write_json(entry)
            else:
                who = f"{entry.subject.rpartition('.')[2]}  {entry.actor}"
                typer.echo(clean(f"{entry.sequence:>7}  {entry.time}  {entry.type:<22}  {who}"))
            shown += 1
            if shown == limit:
                return


def _token(event_type: str | None) -> str:
    """The token of a type that this build knows; a typing error would wait in silence."""
    from difflib import get_close_matches

    from domain.catalog import EVENTS
    from domain.subjects import event_token
    from finetrail.cli.exits import UsageProblem

    if event_type is None:
        return "*"
    tokens = [event_token(name) for name in EVENTS]
    wanted = event_token(event_type)
    if wanted in tokens:
        return wanted
    near = ", ".join(get_close_matches(wanted, tokens) or sorted(tokens))
    raise UsageProblem(f"there is no event of type {event_type!r}; perhaps one of {near}")


def _start(text: str) -> int | datetime:
    from finetrail.cli.exits import UsageProblem

    if text.isdecimal():
        return int(text)
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise UsageProblem(
            f"{text!r} is neither a sequence such as 120 nor a time such as 2026-11-21T08:00"
        ) from None
