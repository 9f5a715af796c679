"""`finetrail notifications`: what you want to know."""

from typing import Annotated

import typer

from finetrail.cli.options import Json, Key, Url

COLUMNS = ("id", "time", "kind", "text", "read")


def register(app: typer.Typer) -> None:
    app.command()(notifications)


def notifications(
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    unread: Annotated[bool, typer.Option("--unread", help="Only what was not read.")] = False,
    mark: Annotated[bool, typer.Option("--mark", help="Mark what is shown as read.")] = False,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Show what has ended, failed, got lost or asks for a decision, newest first."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        found = client.notifications(limit, unread=unread)
        if mark and found:
            client.mark_notifications_read([str(one["id"]) for one in found])
    rows = [{name: each[name] for name in COLUMNS} for each in found]
    views.write(found, json, lambda _: views.records(rows, "There is nothing new."))
