"""`finetrail events`: what happened."""

from itertools import chain
from typing import Annotated, Final

import typer

from finetrail.cli.options import Json, Key, Url

PANEL: Final = "Look"


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL)(events)


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they happen.")] = False,
    aggregate: Annotated[
        str | None, typer.Option(help="Only of this kind of thing, such as `job`.")
    ] = None,
    id: Annotated[  # noqa: A002 - the option's name
        str | None, typer.Option("--id", help="Only of the thing with this id.")
    ] = None,
    type: Annotated[  # noqa: A002 - the option's name
        str | None, typer.Option("--type", help="Only of this type, such as `JobSucceeded`.")
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Only by this actor.")] = None,
    after: Annotated[
        int | None, typer.Option(min=0, help="Those after this sequence; else the last ones.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most, before following.")] = 50,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Show the event log. With --follow and --json, one object a line."""
    from finetrail.cli import session, views
    from finetrail.render import write_json

    with session.connected(url, key) as client:
        found = client.events(
            aggregate=aggregate, id=id, type=type, actor=actor, after=after, limit=limit
        )
        if not follow:
            views.write(found, json, views.events)
            return
        last = found[-1].sequence if found else after or 0
        later = client.follow_events(aggregate=aggregate, id=id, type=type, actor=actor, after=last)
        for event in chain(found, later):
            if json:
                write_json(event)
            else:
                typer.echo(views.event_line(event))
