"""The command `finetrail`."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from finetrail.cli import (
    agents,
    audit,
    backup,
    blobs,
    chat,
    data,
    dead_letters,
    deploy,
    feed,
    jobs,
    keys,
    log,
    log_chunks,
    models,
    notifications,
    past,
    people,
    queueing,
    rebuild,
    requests,
    roles,
    webhooks,
)
from finetrail.cli.options import JSON


class Commands(TyperGroup):
    """Says in words what went wrong, and ends with a code that means it."""

    @override
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            from finetrail.cli.exits import Exit

            raise typer.Exit(Exit.INTERRUPTED) from None
        except Exception as error:  # the top of the process
            from finetrail.cli.exits import KNOWN, exit_code, report

            if not isinstance(error, KNOWN) or isinstance(error, BrokenPipeError):
                raise
            report(error, as_json=ctx.meta.get(JSON, False))
            raise typer.Exit(exit_code(error)) from None


app = typer.Typer(
    cls=Commands,
    help="Fine-tuning with a memory: upload, train, compare, serve, and replay what happened.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="datasets")
app.add_typer(keys.app, name="keys")
app.add_typer(agents.app, name="agents")
app.add_typer(backup.app, name="backup")
app.add_typer(audit.app, name="audit")
app.add_typer(blobs.app, name="blobs")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(deploy.app, name="deploy")
app.add_typer(feed.app, name="feed")
app.add_typer(queueing.app, name="queue", rich_help_panel="Look")
app.add_typer(people.app, name="people")
app.add_typer(log_chunks.app, name="log-chunks")
app.add_typer(webhooks.app, name="webhooks")
for module in (roles, jobs, models, chat, log, past, people, rebuild, requests, notifications):
    module.register(app)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    app()
