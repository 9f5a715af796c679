"""`finetrail audit`: proves what happened, and makes evidence that others can check."""

import asyncio
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from finetrail.cli.options import Json

if TYPE_CHECKING:
    from finetrail.audit.export import Exported
    from finetrail.audit.status import Status
    from finetrail.audit.verify import Verified
    from finetrail.render import Table

EVERY_S: Final = 0.5  # between two lines of progress on a terminal
SELDOM_S: Final = 10.0  # and where a program may be reading

app = typer.Typer(
    help="Prove what happened: for whoever owns the data directory, without a key.",
    no_args_is_help=True,
)
Trusted = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="KEY",
        help="The public key, or its id, that heads must go back to; repeatable.",
    ),
]


@app.command("status")
def status_(json: Json = False) -> None:
    """Show what was signed last, how old that is, and what is not signed yet."""
    from finetrail.audit.status import status
    from finetrail.cli import session, views
    from finetrail.render import write_json

    found = asyncio.run(status(session.running_settings()))
    if json:
        write_json(asdict(found))
    else:
        views.write(found, json, _status_table)


@app.command()
def verify(
    offline: Annotated[
        Path | None,
        typer.Option(metavar="BUNDLE", help="Check this evidence bundle instead; asks no server."),
    ] = None,
    key: Trusted = None,
    json: Json = False,
) -> None:
    """Read the whole log and name the first event that is not as it was signed or archived."""
    from finetrail.cli import session, views
    from finetrail.cli.exits import Exit
    from finetrail.render import write_json

    if offline is not None:
        holds = _verify_bundle(offline, key or [], json)
    else:
        from finetrail.audit.verify import verify_log

        settings = session.running_settings()
        progress = _Progress(silent=json)
        found = asyncio.run(verify_log(settings, key or [], progress.told))
        progress.end()
        if json:
            write_json({**asdict(found), "holds": found.holds})
        else:
            views.write(found, json, _verified)
        holds = found.holds
    if not holds:
        raise typer.Exit(Exit.FAILED)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="The ZIP file to make.")],
    first: Annotated[
        str | None, typer.Option("--from", help="The first event: its sequence, or a time.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", help="The last event: its sequence, or a time.")
    ] = None,
    blobs: Annotated[
        bool, typer.Option("--blobs", help="With the files that the events name.")
    ] = False,
    without_data: Annotated[
        bool,
        typer.Option(
            "--without-data", help="Hashes in place of the events' data, to show to others."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Make an evidence bundle: events, signatures, a summary, and the program that checks them."""
    from finetrail.audit import offline
    from finetrail.audit.export import Wanted
    from finetrail.audit.export import export as export_bundle
    from finetrail.cli import session, views
    from finetrail.cli.exits import Exit
    from finetrail.render import write_json

    wanted = Wanted(
        _place(first, "--from"), _place(last, "--to"), data=not without_data, blobs=blobs
    )
    done = asyncio.run(export_bundle(session.running_settings(), wanted, file))
    if json:
        enclosed = {"file": str(done.path), "blobs_enclosed": done.blobs}
        write_json({**enclosed, **offline.facts(done.report)})
    else:
        views.write(done, json, _exported)
    if not done.report.holds:
        raise typer.Exit(Exit.FAILED)


@app.command("key")
def key_(json: Json = False) -> None:
    """Show the public key, to be told to those who shall check evidence."""
    from finetrail.audit.key_file import open_key
    from finetrail.cli import session, views
    from finetrail.cli.exits import Failed

    found = open_key(session.load_settings()).public_key()
    if found is None:
        raise Failed("no key has signed here yet: it is made with the first head")
    views.write(found.record(), json, views.one_record)


@app.command("rotate-key")
def rotate_key(json: Json = False) -> None:
    """Replace the key by a new one, which the former one vouches for and is gone then."""
    from finetrail.audit.key_file import open_key
    from finetrail.cli import session, views
    from finetrail.cli.exits import Failed
    from projections.archive import CannotSign

    try:
        made = open_key(session.load_settings()).rotate()
    except CannotSign as error:
        raise Failed(str(error)) from error
    views.write(made.record(), json, views.one_record)


class _Progress:
    """How far it is, on standard error."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._terminal = sys.stderr.isatty()
        self._began = self._said = time.monotonic()

    def told(self, events: int, of: int) -> None:
        now = time.monotonic()
        if self._silent or now - self._said < (EVERY_S if self._terminal else SELDOM_S):
            return
        self._said = now
        rate = events / max(now - self._began, 0.001)
        left = (of - events) / max(rate, 1)
        line = f"{events:,} of {of:,} events, {rate:,.0f} a second, {left:.0f} s left"
        sys.stderr.write(f"\r{line}\x1b[K" if self._terminal else f"{line}\n")
        sys.stderr.flush()

    def end(self) -> None:
        if self._terminal and not self._silent:
            sys.stderr.write("\r\x1b[K")


def _verify_bundle(bundle: Path, trusted: list[str], json: bool) -> bool:
    from finetrail.audit import offline
    from finetrail.cli.exits import UsageProblem
    from finetrail.render import write_json

    try:
        report = offline.verify(bundle, trusted)
    except offline.NoBundle as error:
        raise UsageProblem(str(error)) from error
    if json:
        write_json(offline.facts(report))
    else:
        typer.echo(offline.told(report), nl=False)
    return report.holds


def _place(text: str | None, option: str) -> int | datetime | None:
    from finetrail.cli.exits import UsageProblem

    if text is None:
        return None
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    try:
        time_ = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageProblem(
            f"{option} {text} is neither a sequence nor a time such as 2026-11-20T09:00:00Z"
        ) from error
    return time_ if time_.tzinfo else time_.replace(tzinfo=UTC)


def _status_table(found: "Status") -> "Table":
    from finetrail.render import facts, seconds

    head = found.head
    return facts(
        [
            ("archived up to", f"event {found.archived}"),
            ("signed up to", f"event {head.sequence}" if head else "nothing yet"),
            ("signed", f"{seconds(found.age_s)} ago" if head else ""),
            ("not signed yet", f"{found.unsigned:,} events"),
            ("key", found.key or ""),
            ("log", head.log if head else ""),
            ("stopped", found.error or ""),
            *(
                ("heads kept in", f"{kept.where} up to event {kept.sequence} {kept.error or ''}")
                for kept in found.kept
            ),
        ]
    )


def _verified(found: "Verified") -> "Table":
    from finetrail.render import facts

    rate = found.events / max(found.seconds, 0.001)
    gaps = ", ".join(f"{a} to {b}" if a < b else str(a) for a, b in found.gaps[:10])
    pairs = [
        ("read", f"{found.events:,} events in {found.seconds:.1f} s, {rate:,.0f} a second"),
        ("log", found.log),
        ("heads that hold", f"{found.heads:,}"),
        ("proven", _proven(found)),
        ("not signed yet", f"{found.unsigned:,} events" if found.unsigned else ""),
        ("compared", "with the archive" if found.compared else f"not: {found.without_archive}"),
        *(("published", line) for line in found.published),
        ("sequences never given", gaps),
    ]
    pairs += [
        (
            "does not hold",
            f"event {each.sequence}, {each.way} ({_touched(each.side)})"
            + (f": {each.detail}" if each.detail else ""),
        )
        for each in found.findings
    ]
    return facts([*pairs, ("result", "it holds" if found.holds else "it does not hold")])


def _proven(found: "Verified") -> str:
    if not found.proven:
        return "nothing"
    return f"everything up to event {found.proven}, signed {found.proven_at} by {found.proven_by}"


def _touched(side: str) -> str:
    return "in the log and in the archive" if side == "both" else f"in the {side}"


def _exported(done: "Exported") -> "Table":
    from finetrail.audit import offline
    from finetrail.render import facts, size

    report: Any = done.report
    lines = [tuple(line.split(": ", 1)) for line in offline.told(report).splitlines()]
    pairs = [(line[0], line[1]) for line in lines if len(line) == 2]
    missing = f", {done.blobs_missing} are not in the store" if done.blobs_missing else ""
    return facts(
        [
            ("file", f"{done.path}, {size(done.path.stat().st_size)}"),
            *pairs,
            ("blobs enclosed", f"{done.blobs}{missing}" if done.blobs or missing else ""),
            ("result", "it holds" if report.holds else "it does not hold"),
        ]
    )
