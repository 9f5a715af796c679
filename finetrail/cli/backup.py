"""`finetrail backup`: a copy of everything that cannot be made again, and back from it."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from finetrail.cli.options import Json

app = typer.Typer(help="Back up a running stack, and restore one.", no_args_is_help=True)

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        exists=True,
        dir_okay=False,
        help="Its first line locks the secrets; without it they are left out.",
    ),
]
Backup = Annotated[
    Path, typer.Argument(metavar="BACKUP", exists=True, help="A folder, or a file ending in .tar.")
]


@app.command()
def create(
    target: Annotated[
        Path, typer.Argument(metavar="BACKUP", help="A new folder, or a new file ending in .tar.")
    ],
    passphrase_file: PassphraseFile = None,
    name_blobs: Annotated[
        bool,
        typer.Option("--name-blobs", help="Only name the blobs; their store is kept otherwise."),
    ] = False,
    link_blobs: Annotated[
        bool, typer.Option("--link-blobs", help="Hard links instead of copies, where they can be.")
    ] = False,
    json: Json = False,
) -> None:
    """Back up log, database, blobs and secrets of the running stack."""
    from finetrail import backup
    from finetrail.backup_secrets import passphrase_from
    from finetrail.cli import session, views
    from finetrail.cli.exits import Failed

    wanted = backup.Wanted(
        copy_blobs=not name_blobs,
        link_blobs=link_blobs,
        passphrase=passphrase_from(passphrase_file),
    )
    settings = session.running_settings()
    made = asyncio.run(backup.create(settings, target.absolute(), wanted, _reporter(json)))
    manifest = made.manifest
    facts: dict[str, Any] = {
        "path": str(made.path),
        "log_sequence": manifest.log_sequence,
        "files": len(manifest.files),
        "bytes": manifest.size,
        "seconds": round(made.seconds, 3),
        "secrets": manifest.secrets,
        "missing_blobs": list(manifest.missing_blobs),
    }
    views.write(facts, json, views.one_record)
    if manifest.secrets == "left out":
        typer.echo(
            "The secrets are not in it: keep secrets.json of the data directory elsewhere, or "
            "name a --passphrase-file. Without them API keys do not work after a restore.",
            err=True,
        )
    if manifest.missing_blobs:
        raise Failed(
            f"the backup is made, but {len(manifest.missing_blobs)} blobs that events refer to "
            "were missing or damaged already: see `finetrail doctor --blobs`"
        )


@app.command()
def verify(backup: Backup, json: Json = False) -> None:
    """Read a whole backup and compare every file with its manifest; nothing is started."""
    from finetrail.backup_files import BackupReader
    from finetrail.cli import views
    from finetrail.stack.data_format import refuse_newer

    with BackupReader(backup.absolute()) as opened:
        asyncio.run(opened.check(_reporter(json)))
        manifest = opened.manifest
    refuse_newer(manifest.written, f"The stack of the backup {backup}")
    facts = {
        "path": str(backup),
        "created_at": manifest.created_at.isoformat(),
        "finetrail": manifest.written.version,
        "log_sequence": manifest.log_sequence,
        "files": len(manifest.files),
        "bytes": manifest.size,
        "blobs": manifest.blobs,
        "secrets": manifest.secrets,
        "missing_blobs": list(manifest.missing_blobs),
    }
    views.write(facts, json, views.one_record)


@app.command()
def restore(
    backup: Backup,
    passphrase_file: PassphraseFile = None,
    new_keys: Annotated[
        bool,
        typer.Option("--new-keys", help="Go on without the former secrets: API keys are void."),
    ] = False,
    json: Json = False,
) -> None:
    """Restore into the empty stack that the settings name; `finetrail up` then goes on with it."""
    from dataclasses import asdict

    from finetrail import backup_restore
    from finetrail.backup_files import BackupReader
    from finetrail.backup_secrets import passphrase_from
    from finetrail.cli import session, views

    with BackupReader(backup.absolute()) as opened:
        done = asyncio.run(
            backup_restore.restore(
                session.load_settings(),
                opened,
                _reporter(json),
                passphrase=passphrase_from(passphrase_file),
                new_keys=new_keys,
            )
        )
    views.write(asdict(done), json, views.one_record)


def _reporter(json: bool) -> Any:
    """Progress goes to standard error: what is on standard output may be read by a program."""

    def say(line: str) -> None:
        if not json:
            typer.echo(line, err=True)

    return say
