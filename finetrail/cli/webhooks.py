"""`finetrail webhooks`: who is told what happens, and what became of it."""

from typing import Annotated, Any

import typer

from finetrail.cli.options import AsOf, Json, Key, Url

app = typer.Typer(
    help="Have other systems told what happens; to change them needs the role admin.",
    no_args_is_help=True,
)

WebhookId = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Its id, as `list` shows it.")]
Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="https://… of the receiver.")]
Types = Annotated[
    list[str] | None,
    typer.Option("--type", help="A type as job.succeeded or job.*; may be repeated. All if none."),
]
COLUMNS = ("id", "url", "event_types", "status", "cursor", "waiting", "description")


@app.command("list")
def list_(as_of: AsOf = None, url: Url = None, key: Key = None, json: Json = False) -> None:
    """List them with how far each has come in the log, and how many deliveries wait."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        found = client.webhooks(as_of=as_of)
    views.write(found, json, lambda some: views.records(_rows(some), "There are no webhooks."))


@app.command()
def types(url: Url = None, key: Key = None, json: Json = False) -> None:
    """List the types of events that may be chosen."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        found = client.webhook_event_types()
    rows = [{"type": name} for name in found]
    views.write(found, json, lambda _: views.records(rows, "There are no types."))


@app.command()
def add(
    address: Address,
    event_types: Types = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Tell an address of what happens from now on, and show its secret this once."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        made = client.add_webhook(address, event_types or None, description)
    views.write(made, json, views.one_record)
    if not json:
        typer.echo("Keep the secret now: it cannot be shown again.", err=True)


@app.command()
def show(
    webhook_id: WebhookId,
    as_of: AsOf = None,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Show one. What may be a secret in its address is left out."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        found = client.webhook(webhook_id, as_of=as_of)
    views.write(found, json, views.one_record)


@app.command()
def change(
    webhook_id: WebhookId,
    address: Annotated[str | None, typer.Option(help="Another address.")] = None,
    event_types: Types = None,
    all_types: Annotated[bool, typer.Option("--all-types", help="Tell it of all types.")] = False,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Change what is named; the rest stays as it is."""
    from finetrail.cli import session, views
    from finetrail.cli.exits import UsageProblem

    if event_types and all_types:
        raise UsageProblem("--type and --all-types exclude each other")
    changes: dict[str, Any] = {"url": address, "description": description}
    changes = {name: value for name, value in changes.items() if value is not None}
    if event_types or all_types:
        changes["event_types"] = event_types or None
    if not changes:
        raise UsageProblem("name what shall change: --address, --type, --all-types, --description")
    with session.connected(url, key) as client:
        found = client.change_webhook(webhook_id, **changes)
    views.write(found, json, views.one_record)


@app.command()
def disable(
    webhook_id: WebhookId,
    reason: Annotated[str, typer.Option(help="Why; it stands in the event log.")] = "",
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Send nothing more; what happens waits until it is enabled again."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        found = client.disable_webhook(webhook_id, reason)
    views.write(found, json, views.one_record)


@app.command()
def enable(webhook_id: WebhookId, url: Url = None, key: Key = None, json: Json = False) -> None:
    """Go on where it was disabled; what waits is tried at once."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        found = client.enable_webhook(webhook_id)
    views.write(found, json, views.one_record)


@app.command()
def remove(webhook_id: WebhookId, url: Url = None, key: Key = None, json: Json = False) -> None:
    """Tell it nothing more, and forget its secrets and what was tried."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        client.remove_webhook(webhook_id)
    views.write({"id": webhook_id, "status": "removed"}, json, views.one_record)


@app.command("rotate-secret")
def rotate_secret(
    webhook_id: WebhookId, url: Url = None, key: Key = None, json: Json = False
) -> None:
    """Sign with a new secret, and for 24 hours with the old one too."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        made = client.rotate_webhook_secret(webhook_id)
    views.write(made, json, views.one_record)


@app.command("test")
def try_out(webhook_id: WebhookId, url: Url = None, key: Key = None, json: Json = False) -> None:
    """Send a test now and show what the receiver answered; ends with 1 unless it took it."""
    from finetrail.cli import session, views
    from finetrail.cli.exits import Exit

    with session.connected(url, key) as client:
        said = client.test_webhook(webhook_id)
    views.write(said, json, views.one_record)
    if not 200 <= (said["status"] or 0) < 300:
        raise typer.Exit(Exit.FAILED)


@app.command()
def deliveries(
    webhook_id: WebhookId,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Show what was tried, newest first; needs the role editor."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        found = client.webhook_deliveries(webhook_id, limit)
    views.write(found, json, lambda some: views.records(some, "Nothing was tried yet."))


@app.command()
def replay(
    webhook_id: WebhookId,
    from_sequence: Annotated[
        int | None, typer.Option("--from-sequence", min=1, help="The first event of the log.")
    ] = None,
    from_time: Annotated[
        str | None,
        typer.Option("--from-time", help="Events from then on, as 2026-11-20T14:00:00Z."),
    ] = None,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Deliver everything from there on once more, under the same ids."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        done = client.replay_webhook(webhook_id, from_sequence=from_sequence, from_time=from_time)
    views.write(done, json, views.one_record)


def _rows(webhooks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: each[name] for name in COLUMNS} for each in webhooks]
