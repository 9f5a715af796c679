"""How a job is shown: where it stands, what it stands on, and what a language model learns from."""

import sys

from finetrail.cli import queue_views
from finetrail.client import Job
from finetrail.client.models import Supervision
from finetrail.live import position
from finetrail.render import (
    Table,
    facts,
    moment,
    number,
    percent,
    write_json,
    write_marked,
    write_table,
)


def jobs(found: list[Job]) -> Table:
    rows = [
        (each.id, each.model, each.status, _done(each), number(each.loss), _made(each))
        for each in found
    ]
    return Table(
        ("id", "model", "status", "done", "loss", "version"), rows, empty="There are no jobs."
    )


def write_job(one: Job, as_json: bool) -> None:
    """With what is learned from, once that is known."""
    if as_json:
        write_json(one)
        return
    write_table(job(one))
    if one.supervision:
        write_supervision(one.supervision)


def job(one: Job) -> Table:
    return facts(
        [
            ("job", one.id),
            ("model", one.model),
            ("base", f"{one.base_model} ({one.method})" if one.base_model and one.method else ""),
            *_base_model(one),
            ("status", one.status),
            ("error", f"{one.error.message} ({one.error.code})" if one.error else ""),
            *_waiting(one),
            ("progress", position(one)),
            ("attempt", str(one.attempt or "")),
            ("dataset", one.dataset_id),
            ("version", _made(one)),
            ("evaluation", one.evaluation_id or ""),
            ("created", moment(one.created_at)),
            ("started", moment(one.started_at)),
            ("ended", moment(one.ended_at)),
        ]
    )


def supervision(one: Supervision) -> Table:
    share = one.supervised_tokens / one.tokens if one.tokens else 0.0
    dropped = f", {one.dropped_rows} of them have nothing left to learn from"
    cut = f"{one.truncated_rows}{dropped if one.dropped_rows else ''}"
    return facts(
        [
            ("rows", f"{one.rows:,}"),
            ("tokens", f"{one.tokens:,}"),
            ("learned from", f"{one.supervised_tokens:,} tokens, {percent(share)}"),
            ("longest row", f"{one.longest_row:,} tokens"),
            ("rows cut off", cut),
            ("padding saved", percent(one.padding_share)),
        ],
        title="What is learned from",
    )


def write_supervision(one: Supervision) -> None:
    write_table(supervision(one))
    if one.example:
        where = "in green" if sys.stdout.isatty() else "in ⟦ ⟧"
        sys.stdout.write(f"\nOne row as the model reads it; what it learns to say is {where}:\n")
        write_marked([(each.text, each.supervised) for each in one.example])


def _waiting(one: Job) -> list[tuple[str, str]]:
    return queue_views.waiting(one.waiting) if one.waiting else []


def _base_model(one: Job) -> list[tuple[str, str]]:
    record = one.base_model_record
    if record is None:
        return []
    size = "" if record.parameters is None else f"{record.parameters:,} parameters"
    hashes = [f"{name} {digest[:12]}" for name, digest in sorted(record.sha256.items())]
    weights = [each for each in hashes if ".safetensors " in each]
    return [
        ("revision", record.revision or ""),
        ("licence", record.license or ""),
        ("size", size),
        ("weights", ", ".join(weights)),
    ]


def _done(one: Job) -> str:
    return "" if one.progress.percent is None else f"{one.progress.percent:.0f} %"


def _made(one: Job) -> str:
    return f"{one.version.model} {one.version.number}" if one.version else ""
