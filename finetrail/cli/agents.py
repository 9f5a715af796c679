"""`finetrail agents`: tokens for machines that are to join, who is there, and their end."""

from typing import Annotated

import typer

from finetrail.cli.options import AsOf, Json, Key, Url

app = typer.Typer(
    help="List the agents; let other machines' in, drain and revoke them.",
    invoke_without_command=True,
)
AgentId = Annotated[str, typer.Argument(metavar="AGENT", help="Its id, as `agents list` shows it.")]


@app.callback()
def all_(context: typer.Context, url: Url = None, key: Key = None, json: Json = False) -> None:
    """List the agents; let other machines' in, drain and revoke them."""
    if context.invoked_subcommand is None:
        list_(None, url, key, json)


@app.command()
def token(
    name: Annotated[str, typer.Option(help="What the machine is called.")] = "",
    minutes: Annotated[int, typer.Option(min=1, max=1440, help="How long it is good.")] = 10,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Make a token with which one machine joins, once; needs the role admin."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        made = client.join_token(name, minutes=minutes)
        where = client.url
    views.write(made, json, views.one_record)
    if not json:
        typer.echo(f"On the other machine: finetrail agent join {where} {made['token']}", err=True)


@app.command("list")
def list_(as_of: AsOf = None, url: Url = None, key: Key = None, json: Json = False) -> None:
    """List the agents: what they can do, what they hold, when they were last heard."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        found = client.agents(as_of=as_of)
    views.write(found, json, lambda some: views.records(some, "There are no agents."))


@app.command()
def show(
    agent: AgentId, as_of: AsOf = None, url: Url = None, key: Key = None, json: Json = False
) -> None:
    """Show one agent: what it can do, what it holds, when it was last heard."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        found = client.agent(agent, as_of=as_of)
    views.write(found, json, views.one_record)


@app.command()
def drain(agent: AgentId, url: Url = None, key: Key = None, json: Json = False) -> None:
    """Give it nothing more; it finishes what it holds. Needs the role admin."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        drained = client.drain_agent(agent)
    views.write(drained, json, views.one_record)


@app.command()
def revoke(agent: AgentId, url: Url = None, key: Key = None, json: Json = False) -> None:
    """Let it in no more, for good, and give what it holds to others. Needs the role admin."""
    from finetrail.cli import session, views

    with session.connected(url, key) as client:
        revoked = client.revoke_agent(agent)
    views.write(revoked, json, views.one_record)
