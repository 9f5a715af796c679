"""`finetrail log-chunks`: the files in which lines of jobs are kept, and those of other kernels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from finetrail.cli.options import JobId, Json, Key, Url

CHUNKS: Final = "log_*.jsonl.gz"
COLUMNS: Final = ("name", "source", "lines", "size", "time", "sha256")

app = typer.Typer(
    help="List the files in which log lines are kept, and bring those of another kernel.",
    no_args_is_help=True,
)


@app.command("list")
def list_(job: JobId, url: Url = None, key: Key = None, json: Json = False) -> None:
    """List the chunks of a job's log, oldest first."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        found = client.log_chunks(session.job_id(client, job))
    views.write(found, json, lambda some: views.records(_rows(some), "There are no chunks."))


@app.command()
def bring(
    folder: Annotated[
        Path,
        typer.Argument(
            exists=True,
            file_okay=False,
            help="With a folder for each job, as logs/<job>/log_<time>.jsonl.gz.",
        ),
    ],
    job: Annotated[
        str | None, typer.Option(help="The chunks lie in FOLDER itself and are of this job.")
    ] = None,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Have chunks taken into the logs of their jobs; what was taken in before is passed over."""
    from finetrail.cli import session, views
    from finetrail.cli.exits import Failed, UsageProblem
    from finetrail.client import Conflict, Invalid, NotFound

    done: list[dict[str, Any]] = []
    refused: list[str] = []
    with session.connected(url, key) as client:
        of_job = None if job is None else session.job_id(client, job)
        files = list(_chunks(folder, of_job))
        if not files:
            where = "" if of_job else " in folders that are named like jobs"
            raise UsageProblem(f"there is no {CHUNKS} in {folder}{where}")
        for id_, file in files:
            try:
                done.append({"job": id_, **client.bring_log_chunk(id_, file)})
            except (Invalid, Conflict, NotFound) as error:  # the next one may be good
                refused.append(f"{file}: {error}")
    views.write(done, json, lambda some: views.records(some, "Nothing was taken in."))
    if refused:
        raise Failed(f"{len(refused)} of {len(files)} were refused: " + "; ".join(refused))


def _chunks(folder: Path, job: str | None) -> Iterator[tuple[str, Path]]:
    """Job and file, of each job in the order of their names, which begin with the time."""
    folders = [(job, folder)] if job else [(p.name, p) for p in sorted(folder.iterdir())]
    for id_, place in folders:
        if place.is_dir():
            yield from ((id_, file) for file in sorted(place.glob(CHUNKS)))


def _rows(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: each[name] for name in COLUMNS} for each in chunks]
