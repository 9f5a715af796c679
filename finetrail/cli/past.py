"""`finetrail history`, `diff`, `why`: what happened to a thing, what became different, and what led to it."""

from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from finetrail.cli.options import Json, Key, Url

if TYPE_CHECKING:  # loaded by the command that needs it, so that `--help` is quick
    from finetrail.client import Client

PANEL: Final = "Look"
Kind = Literal["dataset", "job", "model", "version", "evaluation", "agent"]
POINT: Final = "a sequence of the log, or a time as 2026-11-20T14:00:00Z"


def register(app: typer.Typer) -> None:
    for command in (history, diff, why):
        app.command(rich_help_panel=PANEL)(command)


def history(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="What it is, such as `model`.")],
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|ID", help="A model's name, a version as NAME/NUMBER, or an id."
        ),
    ],
    limit: Annotated[int, typer.Option(min=1, help="How many events, from the first on.")] = 100,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Show every event of one thing; of a model also what was in service when."""
    from finetrail.cli import past_views, session, views
    from finetrail.render import write_json, write_table

    with session.connected(url, key) as client:
        aggregate = "model_version" if kind == "version" else kind
        id_ = _id(client, kind, name)
        events = client.events(aggregate=aggregate, id=id_, after=0, limit=limit)
        spans = client.activations(name) if kind == "model" else []
    if json:
        write_json({"id": id_, "events": events, "activations": spans})
        return
    views.write(events, as_json=False, view=past_views.told)
    if spans:
        typer.echo("")
        write_table(past_views.activations(spans))


def diff(
    since: Annotated[str, typer.Argument(metavar="FROM", help=f"The earlier point: {POINT}.")],
    until: Annotated[
        str | None, typer.Argument(metavar="[TO]", help="The later point; now if left out.")
    ] = None,
    aggregate: Annotated[
        str | None, typer.Option(help="Only things of this kind, such as `model`.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many things at most.")] = 100,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Show what was created, changed and deleted between two points of the log."""
    from finetrail.cli import past_views, session, views

    with session.connected(url, key) as client:
        found = client.diff(since, until, aggregate=aggregate, limit=limit)
    views.write(found, json, past_views.differences)


def why(
    event: Annotated[
        str, typer.Argument(metavar="EVENT", help="Its sequence, as `events` shows it, or its id.")
    ],
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Show what led to an event, back to the request that began it."""
    from finetrail.cli import past_views, session
    from finetrail.render import write_json, write_table

    with session.connected(url, key) as client:
        found = client.why(event)
    if json:
        write_json(found)
        return
    write_table(past_views.chain(found))
    typer.echo("")
    write_table(past_views.beginning(found))


def _id(client: "Client", kind: Kind, name: str) -> str:
    from finetrail.cli import session
    from finetrail.cli.exits import UsageProblem

    if kind == "model":
        return client.model(name).id
    if kind == "job":
        return session.job_id(client, name)
    if kind == "version" and "/" in name:
        model, _, number = name.rpartition("/")
        if not number.isdecimal():
            raise UsageProblem(
                f"{number!r} is no number of a version; {model}/1 would be the first"
            )
        return client.version(model, int(number)).id
    return name
