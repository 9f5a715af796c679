"""`finetrail up` and the processes it consists of, `demo`, `doctor`, `version`."""

import asyncio
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from finetrail.cli.options import Json, LabelColumn, TextColumn

if TYPE_CHECKING:  # loaded by the command that needs it, so that `--help` is quick
    from finetrail.cli.running import Role

agent_app = typer.Typer(invoke_without_command=True)
DataDir = Annotated[
    Path | None, typer.Option(help="Where this agent keeps its files; FINETRAIL_DATA_DIR if not.")
]
START: Final = "Start"
ROLES: Final = "One process each"


def register(app: typer.Typer) -> None:
    for command in (up, demo, doctor, version):
        app.command(rich_help_panel=START)(command)
    for command in (core, gateway, handlers, projections, delivery):
        app.command(rich_help_panel=ROLES)(command)
    app.add_typer(agent_app, name="agent", rich_help_panel=ROLES)


def up() -> None:
    """Start everything on this machine and keep it running until Ctrl-C."""
    from finetrail.cli import session
    from finetrail.cli.running import show_first_key
    from finetrail.stack.supervisor import run_stack

    settings = session.load_settings()
    if settings.blobs.s3 is not None:
        from finetrail.blobs import check_store

        asyncio.run(check_store(settings))
    status = run_stack(settings, report=typer.echo, on_first_start=show_first_key)
    raise typer.Exit(status)


def demo(
    data: Annotated[
        Path | None, typer.Option(help="Your rows; a shipped example if left out.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Held-out rows; a share of DATA if left out.")
    ] = None,
    text: TextColumn = None,
    label: LabelColumn = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="The default if left out.")] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="A language model, which is talked to at the end.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the data directory behind.")] = False,
    json: Json = False,
) -> None:
    """Run the whole path once on a private stack: upload, train, compare, serve, download."""
    from finetrail.demo import Plan, run_demo

    plan = Plan(data=data, test=test, text=text, label=label, epochs=epochs, chat=chat, keep=keep)
    raise typer.Exit(run_demo(plan, as_json=json))


def doctor(
    blobs: Annotated[
        bool, typer.Option("--blobs", help="Also read every blob that the log refers to.")
    ] = False,
    json: Json = False,
) -> None:
    """Check everything a stack depends on, and say what is wrong."""
    from finetrail.cli import session, views
    from finetrail.cli.exits import Exit
    from finetrail.doctor import diagnose

    found = [asdict(each) for each in asyncio.run(diagnose(session.load_settings(), blobs=blobs))]
    views.write(found, json, views.checks)
    if not all(each["ok"] for each in found):
        raise typer.Exit(Exit.FAILED)


def version(json: Json = False) -> None:
    """Say which version this is."""
    from importlib.metadata import version as installed

    from finetrail.render import write_json

    found = installed("finetrail")
    if json:
        write_json({"version": found})
    else:
        typer.echo(f"finetrail {found}")


def core() -> None:
    """Run gateway, handlers, projections and delivery in one process."""
    from finetrail.core import run_core

    _run(run_core, "core")


def gateway() -> None:
    """Run the HTTP API."""
    from finetrail.gateway import run_gateway

    _run(run_gateway, "gateway")


def handlers() -> None:
    """Run what decides commands, reacts to events and hands out work."""
    from finetrail.handlers import run_handlers

    _run(run_handlers, "handlers")


def projections() -> None:
    """Run what turns events into rows."""
    from finetrail.projections import run_projections

    _run(run_projections, "projections")


def delivery() -> None:
    """Run what tells webhooks."""
    from finetrail.delivery import run_delivery

    _run(run_delivery, "delivery")


@agent_app.callback()
def agent(context: typer.Context, data_dir: DataDir = None) -> None:
    """Run an agent: it trains, evaluates and serves on this machine."""
    if context.invoked_subcommand is None:
        from finetrail.agent import run_agent

        _use(data_dir)
        _run(run_agent, "agent")


@agent_app.command()
def join(
    url: Annotated[str, typer.Argument(help="The gateway's address, as this machine reaches it.")],
    token: Annotated[str, typer.Argument(help="What `finetrail agents token` has shown.")],
    name: Annotated[str | None, typer.Option(help="This machine's name if left out.")] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make this machine an agent of a stack on another one. Its private key stays here."""
    from finetrail.cli import session, views
    from finetrail.joining import join as join_stack
    from finetrail.joining import why_not_let_in

    _use(data_dir)
    settings = session.load_settings()
    joined = join_stack(settings, url, token, name or settings.agent_name)
    views.write({**joined.model_dump(), "data_dir": str(settings.folder)}, json, views.one_record)
    if why := asyncio.run(why_not_let_in(settings, joined)):
        typer.echo(
            f"NATS at {joined.nats_url} cannot be reached from here yet: {why}. On the stack's machine "
            "set FINETRAIL_NATS__LISTEN and FINETRAIL_NATS__PORT, and open the port.",
            err=True,
        )


def _use(data_dir: Path | None) -> None:
    if data_dir is not None:
        os.environ["FINETRAIL_DATA_DIR"] = str(data_dir)


def _run(role: "Role", name: str) -> None:
    from finetrail.cli import session
    from finetrail.cli.running import run_role

    run_role(role, name, session.resolved_settings())
