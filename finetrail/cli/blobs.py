"""`finetrail blobs`: what lies in the store and belongs to nothing."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from finetrail.cli.options import Json

if TYPE_CHECKING:
    from finetrail.blob_care import Collection
    from finetrail.render import Table

UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}

app = typer.Typer(help="Look after stored blobs.", no_args_is_help=True)


@app.command()
def collect(
    older_than: Annotated[
        str, typer.Option(help="Only what was stored longer ago: 90m, 24h, 7d.")
    ] = "24h",
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete it; without this it is only listed.")
    ] = False,
    json: Json = False,
) -> None:
    """List the blobs that no event refers to, and delete them if asked to."""
    from finetrail import blob_care
    from finetrail.cli import session, views
    from finetrail.cli.exits import UsageProblem

    age = _span(older_than)
    if delete and age < blob_care.LEAST_AGE:
        raise UsageProblem("--older-than must be 2h or more with --delete: events follow blobs")
    settings = session.running_settings()
    found = asyncio.run(
        blob_care.collect(settings, now=datetime.now(UTC), older_than=age, delete=delete)
    )
    if json:
        views.write(_facts(found), json, views.one_record)
    else:
        views.write(found, json, _table)


@app.command()
def copy(
    folder: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="A folder store of blobs.")
    ],
    json: Json = False,
) -> None:
    """Copy the blobs of FOLDER into the store that the settings name, such as a bucket."""
    from dataclasses import asdict

    from finetrail import blob_care
    from finetrail.cli import session, views
    from finetrail.cli.exits import Failed

    copied = asyncio.run(blob_care.copy_folder(session.load_settings(), folder.absolute()))
    views.write(asdict(copied), json, views.one_record)
    if copied.damaged:
        raise Failed(f"{len(copied.damaged)} blobs do not hold what their names say")


def _span(text: str) -> timedelta:
    from finetrail.cli.exits import UsageProblem

    said = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if said is None:
        raise UsageProblem(f"--older-than {text} is no span of time; write 90m, 24h or 7d")
    return timedelta(**{UNITS[said[2]]: int(said[1])})


def _facts(found: "Collection") -> dict[str, Any]:
    return {
        "blobs": [
            {"sha256": each.sha256, "size": each.size, "modified_at": each.modified_at.isoformat()}
            for each in found.blobs
        ],
        "count": len(found.blobs),
        "bytes": found.size,
        "deleted": found.deleted,
    }


def _table(found: "Collection") -> "Table":
    from finetrail.render import Table, moment, size

    rows = [(each.sha256, size(each.size), moment(each.modified_at)) for each in found.blobs]
    amount = f"{len(rows)} blobs, {size(found.size)} ({found.size:,} bytes)"
    note = f"{amount} deleted." if found.deleted else f"{amount}; --delete deletes them."
    return Table(
        ("blob", "size", "stored"),
        rows,
        empty="There is nothing that no event refers to.",
        note=note if rows else "",
    )
