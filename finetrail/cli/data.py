"""`finetrail datasets`: data that was uploaded."""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from finetrail.cli.options import (
    AsOf,
    Categorical,
    Group,
    Ignored,
    Json,
    Key,
    LabelColumn,
    Minutes,
    Numeric,
    RowKind,
    TableName,
    Target,
    TextColumn,
    Url,
)

if TYPE_CHECKING:  # loaded by the command that needs it, so that `--help` is quick
    from finetrail.client import Dataset

app = typer.Typer(
    help="Upload labelled texts, conversations or tables and look at them.", no_args_is_help=True
)

DatasetId = Annotated[str, typer.Argument(metavar="DATASET", help="A dataset's id.")]


@app.command()
def upload(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="CSV, JSON Lines, JSON, Parquet or text, also with gzip."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="The file's name if left out.")] = None,
    kind: RowKind = None,
    text: TextColumn = None,
    label: LabelColumn = None,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["csv", "jsonl", "json", "parquet", "text"] | None,
        typer.Option(help="Told from the file if left out."),
    ] = None,
    person: Annotated[
        str | None, typer.Option(help="Id of the person whom all the rows are of.")
    ] = None,
    schema: TableName = None,
    target: Target = None,
    numeric: Numeric = None,
    categorical: Categorical = None,
    group: Group = None,
    ignored: Ignored = None,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Upload a file. Every line that cannot be read is named, and then nothing is kept.

    To say what a column is for makes it a table of numbers and categories.
    """
    from finetrail.cli import dataset_views, session, views

    with session.connected(url, key) as client:
        made = client.upload_dataset(
            file,
            name=name,
            format=format,
            kind=kind,
            text_column=text,
            label_column=label,
            person_id=person,
            schema=schema,
            target=target,
            numeric=numeric,
            categorical=categorical,
            group=group,
            ignored=ignored,
        )
    views.write(made, json, dataset_views.dataset)


@app.command("list")
def list_(as_of: AsOf = None, url: Url = None, key: Key = None, json: Json = False) -> None:
    """List the datasets, newest first."""
    from finetrail.cli import dataset_views, session, views

    with session.connected(url, key) as client:
        found = client.datasets(as_of=as_of)
    views.write(found, json, dataset_views.datasets)


@app.command()
def show(
    dataset_id: DatasetId,
    as_of: AsOf = None,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Show what is known of one dataset."""
    from finetrail.cli import dataset_views, session, views

    with session.connected(url, key) as client:
        found = client.dataset(dataset_id, as_of=as_of)
    views.write(found, json, dataset_views.dataset)


@app.command()
def rows(
    dataset_id: DatasetId,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 10,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Show the first rows as training reads them, and what of them is learned."""
    from finetrail.cli import dataset_views, session, views

    with session.connected(url, key) as client:
        found = client.dataset_rows(dataset_id, limit=limit)
    views.write(found, json, dataset_views.rows)


@app.command()
def download(
    dataset_id: DatasetId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The dataset's name here, if left out.")
    ] = None,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Save the file as it was uploaded.

    A download that broke off goes on where it was when the command is given again.
    """
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        target = output or _file_name(client.dataset(dataset_id))
        client.download_dataset(dataset_id, target)
    saved = {"file": str(target), "bytes": target.stat().st_size}
    views.write(saved, json, views.one_record)


@app.command()
def link(
    dataset_id: DatasetId,
    minutes: Minutes = None,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Make a link to the file that works without a key for a while."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        made = client.link_dataset(dataset_id, minutes=minutes)
    views.write(made, json, views.link)


@app.command()
def delete(dataset_id: DatasetId, url: Url = None, key: Key = None, json: Json = False) -> None:
    """Take a dataset out of use. What was trained on it keeps its lineage."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        client.delete_dataset(dataset_id)
    views.write({"id": dataset_id, "status": "deleted"}, json, views.one_record)


def _file_name(dataset: "Dataset") -> Path:
    """The last part of its name, so that no name leads elsewhere, with the ending of its format."""
    ending = ".txt" if dataset.format == "text" else f".{dataset.format}"
    ending += ".gz" if dataset.compression else ""
    name = PurePosixPath(dataset.name or dataset.id).name or "dataset"
    return Path(name if name.lower().endswith(ending) else name + ending)
