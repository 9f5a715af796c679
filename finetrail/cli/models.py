"""`finetrail models`, `activate`, `predict`, `download`, `link`, `evaluate`: what training has made."""

import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from finetrail.cli.options import AsOf, Json, Key, Minutes, ModelName, Url, VersionNumber

if TYPE_CHECKING:  # loaded by the command that needs it, so that `--help` is quick
    from finetrail.client import Prediction

PANEL: Final = "Models"
VersionFile = Annotated[
    str | None, typer.Option("--file", help="One file, by its name in the ZIP; else the ZIP.")
]


def register(app: typer.Typer) -> None:
    for command in (models, activate, predict, download, link, evaluate, evaluations):
        app.command(rich_help_panel=PANEL)(command)


def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show this one.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Only those made from this one.")] = None,
    status: Annotated[
        Literal["active", "uploading", "ready", "error"] | None,
        typer.Option(help="active: in service; otherwise a version has this status."),
    ] = None,
    date_from: Annotated[
        str | None, typer.Option("--from", help="Created then or later: 2026-11-20.")
    ] = None,
    date_to: Annotated[
        str | None, typer.Option("--to", help="Created then or before: 2026-11-20.")
    ] = None,
    as_of: AsOf = None,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """List the models, or show one and its versions."""
    from finetrail.cli import session, views
    from finetrail.render import write_json, write_table

    with session.connected(url, key) as client:
        if name is None:
            found = client.models(
                base_model=base_model,
                status=status,
                date_from=date_from,
                date_to=date_to,
                as_of=as_of,
            )
            views.write(found, json, views.models)
            return
        model = client.model(name, as_of=as_of)
        versions = client.versions(name, as_of=as_of)
    if json:
        write_json({**model.model_dump(mode="json"), "all_versions": versions})
    else:
        write_table(views.versions(versions, model))


def activate(
    name: ModelName,
    version: VersionNumber,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Put a version into service, a newer or an older one; needs the role admin."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        model = client.activate(name, version)
    views.write(model, json, views.model)


def predict(
    name: ModelName,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="Texts; `-` reads them from lines."),
    ] = None,
    row: Annotated[
        list[str] | None,
        typer.Option(metavar="A=1,B=x", help="A row of a table, once or more often."),
    ] = None,
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows of a table: CSV with a header.")
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="The one in service if left out.")
    ] = None,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Ask a model for the label of each text, or of each row of a table."""
    from finetrail.cli import predicting, session, views
    from finetrail.cli.exits import UsageProblem
    from finetrail.render import write_json

    tabular = bool(row) or rows is not None
    if texts and tabular:
        raise UsageProblem("texts or rows, not both")
    answered: list[tuple[str, Prediction]] = []
    with session.connected(url, key) as client:
        if tabular:
            given = predicting.rows_of(row or [], rows)
            batches = predicting.ask_rows(client, name, version, given)
        else:
            batches = predicting.ask_texts(client, name, version, _texts(texts or []))
        for found in batches:
            answered += found
            if not json:
                views.write(found, as_json=False, view=views.predictions)
    if not answered:
        raise UsageProblem("there is nothing to predict: give a text, --row or --rows")
    if json:
        what = "row" if tabular else "text"
        said = [{what: text, **each.model_dump()} for text, each in answered]
        write_json({"model": name, "predictions": said})


def download(
    name: ModelName,
    version: VersionNumber,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="NAME-VERSION.zip or the file's name, if left out."),
    ] = None,
    file: VersionFile = None,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Save a version as a ZIP file: adapter, model card, metrics; or one file of it.

    A download that broke off goes on where it was when the command is given again.
    """
    from finetrail.cli import session, views

    target = output or Path(PurePosixPath(file).name if file else f"{name}-{version}.zip")
    with session.connected(url, key) as client:
        if file is None:
            client.download(name, version, target)
        else:
            client.download_file(name, version, file, target)
    saved = {"file": str(target), "bytes": target.stat().st_size}
    views.write(saved, json, views.one_record)


def link(
    name: ModelName,
    version: Annotated[
        int | None,
        typer.Argument(metavar="[VERSION]", min=1, help="The one in service if left out."),
    ] = None,
    file: VersionFile = None,
    minutes: Minutes = None,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Make a link to a version's ZIP, or to one file of it, that works without a key for a while."""
    from finetrail.cli import session, views
    from finetrail.cli.exits import UsageProblem

    with session.connected(url, key) as client:
        if version is None:
            active = client.model(name).active
            if active is None:
                raise UsageProblem(f"no version of {name} is in service; name one")
            version = active.number
        made = client.link(name, version, path=file, minutes=minutes)
    views.write(made, json, views.link)


def evaluate(
    name: ModelName,
    version: VersionNumber,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for the result.")] = False,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Compare a version with its base once more; the first time comes by itself after training."""
    from finetrail.cli import session, views
    from finetrail.cli.exits import Failed

    with session.connected(url, key) as client:
        found = client.evaluate(name, version)
        if follow:
            found = client.wait_for_evaluation(found.id)
    views.write(found, json, views.evaluation)
    if found.status in {"failed", "cancelled"}:
        raise Failed(f"evaluation {found.id} {found.status}")


def evaluations(
    evaluation_id: Annotated[
        str | None, typer.Argument(metavar="[EVALUATION]", help="Show this one.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only those of this model.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Only those of this version.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_of: AsOf = None,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """List evaluations, newest first, or show one."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        if evaluation_id is None:
            found = client.evaluations(model=model, version=version, limit=limit, as_of=as_of)
            views.write(found, json, views.evaluations)
        else:
            views.write(client.evaluation(evaluation_id, as_of=as_of), json, views.evaluation)


def _texts(given: list[str]) -> Iterator[str]:
    for text in given:
        if text == "-":
            yield from (line.strip() for line in sys.stdin if line.strip())
        else:
            yield text
