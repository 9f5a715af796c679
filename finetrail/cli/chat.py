"""`finetrail chat`: talk to a language model in the terminal, or have it answer once."""

import sys
from typing import Annotated, Final

import typer

from finetrail.cli.options import Json, Key, Url

PANEL: Final = "Models"


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL)(chat)


def chat(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="NAME, NAME:VERSION, or a base model in service."),
    ],
    message: Annotated[
        str | None,
        typer.Option("--message", "-m", help="Have this answered, and end; `-` reads it all."),
    ] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told beforehand.")] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, max=2, help="0 gives the likeliest answer; 1 if left out."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Of an answer; as many as there is room for if left out."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same one gives the same answer.")] = None,
    url: Url = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Talk to a language model; Ctrl-C stops its answer, /quit or Ctrl-D ends the talk."""
    from finetrail.cli import session
    from finetrail.cli.conversation import Conversation, Sampling, converse
    from finetrail.cli.exits import UsageProblem

    text = sys.stdin.read().strip() if message == "-" else message
    if text == "":
        raise UsageProblem("there is no message to answer")
    with session.connected(url, key) as client:
        sampling = Sampling(temperature, max_tokens, seed)
        conversation = Conversation(client, model, sampling, system, as_json=json)
        if text is None:
            converse(conversation)
        else:
            conversation.say(text)
