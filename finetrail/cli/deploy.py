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
    listen: Annotated[str | None, typer.Option(help="HOST:PORT; 0.0.0.0:4222 if left out.")] = None,
    store: Annotated[
        str | None, typer.Option(help="Where the log lies; /data if left out.")
    ] = None,
    tls_cert: Annotated[
        str | None, typer.Option("--tls-cert", help="File of the server's certificate.")
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option("--tls-key", help="File of its private key.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Name of the cluster that the server is a node of.")
    ] = None,
    node: Annotated[str | None, typer.Option(help="Name of the node.")] = None,
    route: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:PORT", help="Of each node, for the others; once for each."),
    ] = None,
    route_listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where this node listens for the others.")
    ] = "0.0.0.0:6222",
    tls_ca: Annotated[
        str | None, typer.Option("--tls-ca", help="File of the CA by which nodes know each other.")
    ] = None,
) -> None:
    """Print the configuration of a NATS server: users, permissions, durability, TLS.

    Passwords are not in it: the server takes them from its environment.
    """
    import asyncio

    from finetrail import deployment
    from finetrail.cli import session
    from finetrail.cli.exits import UsageProblem

    if (tls_cert is None) != (tls_key is None):
        raise UsageProblem("--tls-cert and --tls-key go together: name both, or neither")
    if (cluster is None) != (node is None) or (cluster is not None and not route):
        raise UsageProblem("a node of a cluster needs --cluster, --node and --route for each node")
    if tls_ca is not None and (cluster is None or tls_cert is None):
        raise UsageProblem("--tls-ca is for the nodes of a cluster and needs --tls-cert")
    agents = asyncio.run(deployment.joined(session.load_settings())) if joined else {}
    chosen = agent_id or deployment.COMPOSE_AGENT
    text = deployment.nats_config(
        chosen,
        agents,
        listen=listen or deployment.LISTEN,
        store=store or deployment.STORE,
        certificate=(tls_cert, tls_key) if tls_cert and tls_key else None,
        node=deployment.ClusterNode(cluster, node, route_listen, route or (), tls_ca)
        if cluster and node
        else None,
    )
    typer.echo(text, nl=False)


@app.command()
def streams() -> None:
    """Create or update the streams and consumers of the NATS server that is named in the settings."""
    import asyncio

    from finetrail import deployment
    from finetrail.cli import session

    settings = session.load_settings()
    asyncio.run(deployment.make_streams(settings))
    typer.echo(f"streams and consumers at {settings.nats.url} are as they should be")
