"""`finetrail dead-letters`: what could not be handled, and what shall become of it."""

from typing import Annotated, Any

import typer

from finetrail.cli.options import Json, Key, Url

app = typer.Typer(
    help="Look at what could not be handled, retry it or give it up; needs the role admin.",
    no_args_is_help=True,
)

Sequence = Annotated[int, typer.Argument(min=1, help="The letter's sequence, as `list` shows it.")]
COLUMNS = ("sequence", "kind", "type", "subject", "put_aside_at", "retry_of", "reason")


@app.command("list")
def list_(
    limit: Annotated[int | None, typer.Option(min=1, help="How many at most.")] = None,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """List the open dead letters, oldest first."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        found = client.dead_letters(limit)
    views.write(found, json, lambda some: views.records(_rows(some), "There are no dead letters."))


@app.command()
def show(sequence: Sequence, url: Url = None, key: Key = None, json: Json = False) -> None:
    """Show one with its whole original; secrets are hidden."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        found = client.dead_letter(sequence)
    views.write(found, json, views.one_record)


@app.command()
def retry(
    sequence: Sequence,
    reason: Annotated[str, typer.Option(help="Why; it stands in the event log.")] = "",
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Have the original handled once more. Should it fail again, it comes back as another letter."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        done = client.retry_dead_letter(sequence, reason)
    views.write(done, json, views.one_record)


@app.command()
def discard(
    sequence: Sequence,
    reason: Annotated[str, typer.Option(help="Why; it stands in the event log.")],
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Give the original up for good."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        done = client.discard_dead_letter(sequence, reason)
    views.write(done, json, views.one_record)


def _rows(letters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: each[name] for name in COLUMNS} for each in letters]
