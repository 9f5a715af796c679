"""`finetrail keys`: who may speak to the server."""

from typing import Annotated, Literal
from uuid import UUID

import typer

from finetrail.cli.options import AsOf, Json, Key, Url

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="Its eight-character id.")]

app = typer.Typer(help="Issue, list and revoke API keys.", no_args_is_help=True)


@app.command()
def issue(
    name: Annotated[str, typer.Option(help="Whose it is or what it is for.")],
    role: Annotated[
        Literal["viewer", "editor", "admin"],
        typer.Option(help="viewer reads and predicts, editor also trains, admin may do all."),
    ] = "editor",
    person: Annotated[
        UUID | None, typer.Option(help="Id of the person who holds it, if that is known.")
    ] = None,
    json: Json = False,
) -> None:
    """Make an API key as the owner of the data directory, and show it this once."""
    import asyncio

    from finetrail.cli import session, views
    from finetrail.owner import issue_key

    settings = session.running_settings()
    text = asyncio.run(issue_key(settings, name=name, role=role, person_id=person))
    made = {"name": name, "role": role, "key": text}
    views.write(made, json, views.one_record)
    if not json:
        typer.echo("Keep it now: it cannot be shown again.", err=True)


@app.command("list")
def list_(as_of: AsOf = None, url: Url = None, key: Key = None, json: Json = False) -> None:
    """List the keys, without their secrets; needs the role admin."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        found = client.keys(as_of=as_of)
    views.write(found, json, lambda some: views.records(some, "There are no keys."))


@app.command()
def show(
    key_id: KeyId, as_of: AsOf = None, url: Url = None, key: Key = None, json: Json = False
) -> None:
    """Show one key that is in force, without its secret; needs the role admin."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        found = client.key(key_id, as_of=as_of)
    views.write(found, json, views.one_record)


@app.command()
def revoke(
    key_id: KeyId,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Refuse a key from now on; needs the role admin."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        client.revoke_key(key_id)
    views.write({"key_id": key_id, "status": "revoked"}, json, views.one_record)
