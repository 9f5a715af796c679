"""`finetrail queue`: what waits and why, the policy, and what another one would have done."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from finetrail.cli.options import JobId, Json, Key, Url

if TYPE_CHECKING:  # loaded by the command that needs it, so that `--help` is quick
    from domain.queues.policy import QueuePolicy
    from domain.queues.replay import Happened
    from finetrail.client import Event

app = typer.Typer(
    help="Show what waits and why; the policy of the queue, and what another one would have done.",
    invoke_without_command=True,
)
TOLD: Final = ("number", "set_at", "set_by", "sequence", "note")  # beside a policy, when it is read
PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy", metavar="FILE", help="A policy as JSON, as `queue policy --json` prints it."
    ),
]


@app.callback()
def all_(context: typer.Context, url: Url = None, key: Key = None, json: Json = False) -> None:
    """Show what waits and why; the policy of the queue, and what another one would have done."""
    if context.invoked_subcommand is None:
        show(url, key, json)


@app.command()
def show(url: Url = None, key: Key = None, json: Json = False) -> None:
    """Show what is assigned, and what waits in the order in which it would start, with the reason."""
    from finetrail.cli import queue_views, session, views

    with session.connected(url, key) as client:
        found = client.queue()
    views.write(found, json, queue_views.works)


@app.command()
def policy(
    file: Annotated[
        Path | None,
        typer.Option(
            "--set", metavar="FILE", help="Decide by this one from now on; needs the role admin."
        ),
    ] = None,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Show the policy in force, or set another."""
    from finetrail.cli import queue_views, session, views

    wanted = None if file is None else _read(file)
    with session.connected(url, key) as client:
        if wanted is None:
            found = client.queue_policy()
        else:
            found = client.set_queue_policy(wanted.model_dump(mode="json"))
    views.write(found, json, queue_views.policy)


@app.command()
def priority(
    job_id: JobId,
    to: Annotated[int, typer.Argument(metavar="PRIORITY", min=0, max=100, help="0 to 100.")],
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Let a job start earlier or later; what runs goes on."""
    from finetrail.cli import job_views, session

    with session.connected(url, key) as client:
        job = client.change_priority(session.job_id(client, job_id), to)
    job_views.write_job(job, json)


@app.command()
def replay(other: PolicyFile = None, url: Url = None, key: Key = None, json: Json = False) -> None:
    """Take every decision of the log again; with --policy, show the order that one would have given."""
    from domain.queues.replay import check
    from domain.queues.replay import replay as play
    from finetrail.cli import queue_views, session
    from finetrail.cli.exits import Failed
    from finetrail.render import Table, write_json, write_table

    wanted = None if other is None else _read(other)
    with session.connected(url, key) as client:
        log = _happened(client.queue_events())
    checked = check(log)
    if wanted is not None:
        stories = play(log, wanted)
        shown: tuple[object, Table] = (
            queue_views.stories_json(stories),
            queue_views.stories(stories),
        )
    else:
        shown = queue_views.checked_json(checked), queue_views.checked(checked)
    if json:
        write_json(shown[0])
    else:
        write_table(shown[1])
    if checked.differences:
        raise Failed(
            f"{len(checked.differences)} decisions are not what their rules and inputs say"
        )


def _read(file: Path) -> "QueuePolicy":
    from json import JSONDecodeError, loads

    from domain.queues.policy import QueuePolicy
    from finetrail.cli.exits import UsageProblem

    try:
        told = loads(file.read_text())
    except JSONDecodeError as error:
        raise UsageProblem(f"{file}: line {error.lineno} is no JSON: {error.msg}") from None
    if not isinstance(told, dict):
        raise UsageProblem(
            f"{file}: a policy is a JSON object, as `finetrail queue policy --json` prints"
        )
    return QueuePolicy.model_validate({name: told[name] for name in told if name not in TOLD})


def _happened(events: "Iterable[Event]") -> "list[Happened]":
    from typing import get_args

    from domain.queues.events import QueueEvent
    from domain.queues.replay import Happened
    from finetrail.cli.exits import Failed

    known = {each.__name__: each for each in get_args(QueueEvent)}
    found: list[Happened] = []
    for event in events:
        if event.type not in known:
            raise Failed(
                f"event {event.sequence} is a {event.type}, which this version does not know"
            )
        decoded = known[event.type].model_validate(event.data)
        found.append(Happened(event.sequence, event.time, decoded))
    return found
