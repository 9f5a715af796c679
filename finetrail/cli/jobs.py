"""`finetrail train`, `jobs`, `cancel`, `logs`, `metrics`: work from its order to its end."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import typer

from finetrail.cli.options import AsOf, JobId, Json, Key, LabelColumn, RowKind, TextColumn, Url

if TYPE_CHECKING:  # loaded by the command that needs it, so that `--help` is quick
    from finetrail.client import Client

PANEL = "Train"
TUNING = "Training"
QUEUE = "Queue"


def register(app: typer.Typer) -> None:
    for command in (train, jobs, cancel, logs, metrics):
        app.command(rich_help_panel=PANEL)(command)


def train(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A file, or a dataset's id.")],
    model: Annotated[str, typer.Option(help="The model that gets a new version.")],
    test: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Held-out rows; a share of DATA if left out."),
    ] = None,
    kind: RowKind = None,
    text: TextColumn = None,
    label: LabelColumn = None,
    method: Annotated[
        Literal["sequence_classification", "sft", "dpo", "orpo", "kto", "simpo", "grpo", "tabular"]
        | None,
        typer.Option(help="What suits the rows if left out.", rich_help_panel=TUNING),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(
            help="`finetrail/minilm`, `finetrail/tiny`, a hub id or a folder; of a table "
            "`finetrail/gradient-boosting`, `finetrail/mlp` or `finetrail/logistic-regression`.",
            rich_help_panel=TUNING,
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, rich_help_panel=TUNING)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, rich_help_panel=TUNING)] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0, rich_help_panel=TUNING)] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=8, help="In tokens; the rest is cut off.", rich_help_panel=TUNING),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, help="Of LoRA.", rich_help_panel=TUNING)
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(min=0, help="Of LoRA: its weight.", rich_help_panel=TUNING)
    ] = None,
    dropout: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of LoRA's inputs.", rich_help_panel=TUNING),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of split and training.", rich_help_panel=TUNING)
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option(
            min=0, max=100, help="50 if left out; a higher one starts first.", rich_help_panel=QUEUE
        ),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(help="Only agents of this pool may run it.", rich_help_panel=QUEUE),
    ] = None,
    accelerator: Annotated[
        str | None,
        typer.Option(help="`cpu`, `gpu` or a part of its name.", rich_help_panel=QUEUE),
    ] = None,
    memory_gb: Annotated[
        float | None,
        typer.Option(min=0.001, help="The least that the accelerator has.", rich_help_panel=QUEUE),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Watch it to its end, evaluation and all.")
    ] = False,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Fine-tune a model on a file or on a dataset that was uploaded before."""
    from finetrail.cli import following, job_views, session, views
    from finetrail.client.calls import without_none
    from finetrail.render import write_json, write_table

    lora = without_none({"rank": rank, "alpha": alpha, "dropout": dropout})
    tuned = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "max_length": max_length,
        "lora": lora or None,
    }
    memory_bytes = None if memory_gb is None else int(memory_gb * 1e9)
    with session.connected(url, key) as client:
        job = client.submit_job(
            model,
            _dataset(client, data, kind, text, label),
            test_dataset_id=_dataset(client, test, kind, text, label) if test else None,
            base_model=base_model,
            method=method,
            hyperparameters=without_none(tuned),
            split=None if seed is None else {"seed": seed},
            seed=seed,
            priority=priority,
            pool=pool,
            needs=without_none({"accelerator": accelerator, "memory_bytes": memory_bytes}),
        )
        if not follow:
            job_views.write_job(job, json)
            if not json:
                typer.echo(f"watch it:  finetrail logs -f {job.id}", err=True)
            return
        typer.echo(f"job {job.id}", err=True)
        try:
            job = following.follow_job(client, job.id)
        except KeyboardInterrupt:
            typer.echo(f"job {job.id} goes on; end it: finetrail cancel {job.id}", err=True)
            raise
        _, evaluation = following.result_of(client, job)
        job = client.job(job.id)  # which knows its version by now
    if json:
        write_json({**job.model_dump(mode="json"), "evaluation": evaluation})
        return
    job_views.write_job(job, as_json=False)
    if evaluation:
        write_table(views.evaluation(evaluation))


def jobs(
    job_id: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="Show this one; `last` is the newest.")
    ] = None,
    status: Annotated[str | None, typer.Option(help="Only those in this status.")] = None,
    model: Annotated[str | None, typer.Option(help="Only those for this model.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_of: AsOf = None,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """List jobs, newest first, or show one; the list shows the present only."""
    from finetrail.cli import job_views, session, views
    from finetrail.cli.exits import UsageProblem

    if as_of is not None and job_id is None:
        raise UsageProblem("--as-of needs a job: the list of jobs shows the present only")

    with session.connected(url, key) as client:
        if job_id is None:
            found = client.jobs(status=status, model=model, limit=limit)
            views.write(found, json, job_views.jobs)
        else:
            found_id = session.job_id(client, job_id)
            job_views.write_job(client.job(found_id, as_of=as_of), json)


def cancel(job_id: JobId, url: Url = None, key: Key = None, json: Json = False) -> None:
    """Stop a job at its next step; asking twice changes nothing."""
    from finetrail.cli import job_views, session

    with session.connected(url, key) as client:
        job = client.cancel(session.job_id(client, job_id))
    job_views.write_job(job, json)


def logs(
    job_id: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")
    ] = False,
    level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None,
        typer.Option(help="Only lines of this level or above."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most, without --follow.")] = 1000,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Show a job's log. With --follow and --json, one object a line."""
    from finetrail.cli import session
    from finetrail.render import clean, write_json

    with session.connected(url, key) as client:
        chosen = session.job_id(client, job_id)
        if follow:
            for line in client.follow_logs(chosen, level=level):
                if json:
                    write_json(line)
                else:
                    typer.echo(clean(line.text or line.message))
            return
        lines = client.logs(chosen, limit=limit, level=level)
    if json:
        write_json(lines)
    else:
        for line in lines:
            typer.echo(clean(line.text or line.message))


def metrics(
    job_id: JobId,
    points: Annotated[int, typer.Option(min=2, help="How many steps at most.")] = 50,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Show loss, learning rate, gradient norm and speed over a job's steps."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        found = client.metrics(session.job_id(client, job_id), points=points)
    views.write(found, json, views.metrics)


def _dataset(
    client: "Client", data: str, kind: str | None, text: str | None, label: str | None
) -> str:
    """The id of a dataset: as given, or of a file that is uploaded now."""
    file = Path(data)
    if not file.exists() and _is_id(data):
        return data
    return client.upload_dataset(file, kind=kind, text_column=text, label_column=label).id


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
