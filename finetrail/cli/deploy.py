"""`finetrail deploy`: what servers of your own are given, so that they are as the embedded ones."""

from typing import Annotated

import typer

app = typer.Typer(help="Prepare servers of your own: NATS, streams, secrets.", no_args_is_help=True)


@app.command()
def env() -> None:
    """Print a `.env` for docker-compose.yml, with secrets made for it."""
    from finetrail.deployment import environment

    typer.echo(environment(), nl=False)


@app.command("nats-config")
def nats_config(
    agent_id: Annotated[
        str | None, typer.Option("--agent-id", help="The agent that has a password of its own.")
    ] = None,
    joined: Annotated[
        bool, typer.Option("--joined", help="With the agents that have joined, read from the log.")
    ] = False,
) -> None:
    """Print the configuration of a NATS server: users, permissions, durability.

    Passwords are not in it: the server takes them from its environment.
    """
    import asyncio

    from finetrail import deployment
    from finetrail.cli import session

    agents = asyncio.run(deployment.joined(session.load_settings())) if joined else {}
    chosen = agent_id or deployment.COMPOSE_AGENT
    typer.echo(deployment.nats_config(chosen, agents), nl=False)


@app.command()
def streams() -> None:
    """Create or update the streams and consumers of the NATS server that is named in the settings."""
    import asyncio

    from finetrail import deployment
    from finetrail.cli import session

    settings = session.load_settings()
    asyncio.run(deployment.make_streams(settings))
    typer.echo(f"streams and consumers at {settings.nats.url} are as they should be")
