"""`finetrail people` and `finetrail forget`: who the log speaks of, and who of them it forgets."""

import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from finetrail.cli.options import AsOf, Json, Key, Url

if TYPE_CHECKING:
    from finetrail.client import Client

WAIT_S: Final = 60.0  # the handlers are done within a second; they may be starting anew
LOOK_S: Final = 0.25

app = typer.Typer(
    help="Add and list people whom keys and datasets are of; needs the role admin.",
    no_args_is_help=True,
)

PersonId = Annotated[str, typer.Argument(metavar="PERSON", help="The id, as `people list` has it.")]
COLUMNS: Final = ("id", "name", "forgotten", "created_at")


def register(root: typer.Typer) -> None:
    root.command()(forget)


@app.command("list")
def list_(as_of: AsOf = None, url: Url = None, key: Key = None, json: Json = False) -> None:
    """List them, newest first, those who only hold a key without a name."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        found = client.people(as_of=as_of)
    rows = [{name: each[name] for name in COLUMNS} for each in found]
    views.write(found, json, lambda _: views.records(rows, "There is nobody yet."))


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="It enters the log sealed.")],
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Add a person, so that keys and datasets may be of them."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        made = client.add_person(name)
    views.write(made, json, views.one_record)


def forget(
    person_id: PersonId,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be touched.")
    ] = False,
    reason: Annotated[
        str, typer.Option(help="Why; it stands in the log for ever, so name nobody in it.")
    ] = "",
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Make all that is sealed of a person unreadable, for good, and wait until that is done.

    Their keys are revoked and their datasets deleted. Models that learned from their rows stay.
    """
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        if dry_run:
            found = client.person(person_id)
        else:
            client.forget_person(person_id, reason)
            found = _done(client, person_id)
    views.write(found, json, lambda one: views.one_record(_shown(one)))


def _done(client: "Client", person_id: str) -> dict[str, Any]:
    from finetrail.cli.exits import Failed

    deadline = time.monotonic() + WAIT_S
    while True:
        found = client.person(person_id)
        if _is_done(found):
            return found
        if time.monotonic() > deadline:
            raise Failed(
                f"person {person_id} is forgotten in the log, but not all of it is done after "
                f"{WAIT_S:.0f} s; are the handlers running? It goes on by itself"
            )
        time.sleep(LOOK_S)


def _is_done(person: dict[str, Any]) -> bool:
    held = person["held"]
    return (
        person["forgotten"]
        and held["sealed"] == "destroyed"
        and all(one["status"] == "revoked" for one in held["keys"])
        and all(one["status"] == "deleted" for one in held["datasets"])
    )


def _shown(person: dict[str, Any]) -> dict[str, Any]:
    held = person["held"]
    return {
        "person": person["id"],
        "name": person["name"],
        "forgotten": person["forgotten"],
        "sealed texts": held["sealed"],
        "keys": _listed(held["keys"], "key_id"),
        "datasets": _listed(held["datasets"], "id"),
        "evaluations on them": _listed(held["evaluations"], "id"),
        "blobs for `finetrail blobs collect`": ", ".join(one["sha256"] for one in held["blobs"]),
        "models that stay": ", ".join(
            f"{one['model']} {one['version']}" for one in held["jobs"] if one["version"]
        ),
    }


def _listed(found: list[dict[str, Any]], name: str) -> str:
    return ", ".join(f"{one[name]} ({one['status']})" for one in found)
