"""Options and arguments that several commands take."""

from typing import Annotated, Final, Literal

import typer

JSON: Final = "finetrail.json"  # in the context's meta, so that an error is said in the same way


def _remember(context: typer.Context, value: bool) -> bool:
    context.meta[JSON] = value
    return value


Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="FINETRAIL_URL",
        help="The server; the stack of the data directory if left out.",
        rich_help_panel="Server",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="FINETRAIL_API_KEY",
        help="The API key; the owner of the data directory needs none.",
        rich_help_panel="Server",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="One JSON value on standard output.", callback=_remember, is_eager=True
    ),
]
RowKind = Annotated[
    Literal[
        "classification",
        "chat",
        "instruction",
        "prompt_completion",
        "text",
        "preference",
        "kto",
        "tabular",
    ]
    | None,
    typer.Option("--kind", help="What a row holds; told by the first one if left out."),
]
TextColumn = Annotated[
    str | None,
    typer.Option("--text", help="Column or key of the text or prompt; found if left out."),
]
LabelColumn = Annotated[
    str | None,
    typer.Option("--label", help="Column or key of the label or answer; found if left out."),
]
TABLE: Final = "Tables"
TableName = Annotated[
    Literal["diabetes"] | None,
    typer.Option("--schema", help="A schema that is known by name.", rich_help_panel=TABLE),
]
Target = Annotated[
    str | None,
    typer.Option(help="The column to tell; found if left out.", rich_help_panel=TABLE),
]
Numeric = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="Columns of numbers.", rich_help_panel=TABLE),
]
Categorical = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="Columns of categories.", rich_help_panel=TABLE),
]
Group = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        help="Columns whose equal values keep rows together, such as a patient's number.",
        rich_help_panel=TABLE,
    ),
]
Ignored = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="Columns that are not used.", rich_help_panel=TABLE),
]
Minutes = Annotated[
    int | None,
    typer.Option(
        min=1, max=1440, help="How long the link works; the server's default if left out."
    ),
]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="POINT",
        help="As it was then: a sequence of the log, or a time as 2026-11-20T14:00:00Z.",
    ),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, or `last`.")]
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")]
VersionNumber = Annotated[int, typer.Argument(metavar="VERSION", help="Its number.", min=1)]
