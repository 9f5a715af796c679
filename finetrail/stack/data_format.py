"""Which build wrote a data directory or a log last, and why this one may not go on with it.

Newer builds take over what older ones left. The other way round there may be events that an older
build cannot read, and a layout that it would take for an empty one: it must not touch them.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from domain.catalog import EVENTS
from finetrail.stack.errors import StackError
from finetrail.stack.state import StackPaths, write_private

# Raise it when an older build must keep away although it knows every event: when the layout of a
# data directory changes, or the meaning of a stream.
# 2: the read models lie in a schema for each build, where older ones take views for tables.
FORMAT: Final = 2
METADATA: Final = "finetrail-"  # before the names below, in the metadata of the log's own stream
SHOWN: Final = 3  # of the events that this build does not know


class Written(BaseModel):
    """What a build says of itself. The fields are frozen: every build must be able to read them."""

    model_config = ConfigDict(frozen=True)

    format: int
    version: str
    # What may stand in the log: "JobSubmitted 1", and of the words that fields may have
    # "JobSpec.method sft", which an older build that does not know the word could not read.
    events: tuple[str, ...] = ()


@cache
def this_build() -> Written:
    known = {
        f"{name} {number}"
        for name, (_, class_) in EVENTS.items()
        for number in range(1, class_.schema_version + 1)
    }
    words = {word for _, class_ in EVENTS.values() for word in _words(class_)}
    return Written(format=FORMAT, version=version("finetrail"), events=tuple(sorted(known | words)))


def _words(class_: type[BaseModel]) -> Iterator[str]:
    """Every word that a field of this class, or of what it is made of, may have."""
    for name, field in class_.model_fields.items():
        for part in _parts(field.annotation):
            if get_origin(part) is Literal:
                if name != "type":  # that of an event, which is listed with its version
                    yield from (f"{class_.__name__}.{name} {word}" for word in get_args(part))
            else:
                yield from _words(part)


def _parts(annotation: Any) -> Iterator[Any]:
    """The classes and the lists of words that a type is made of."""
    if get_origin(annotation) is Literal or (
        isinstance(annotation, type) and issubclass(annotation, BaseModel)
    ):
        yield annotation
    else:
        for argument in get_args(annotation):
            yield from _parts(argument)


def refuse_newer(found: Written, where: str) -> None:
    """See that this build may go on with what another has written.

    Raises:
        StackError: It is newer.
    """
    ours = this_build()
    unknown = sorted(set(found.events) - set(ours.events))
    if found.format > ours.format:
        reason = f"its format is {found.format}, and this build knows {ours.format} at most"
    elif unknown:
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        reason = (
            f"it may hold events that this build cannot read: {', '.join(unknown[:SHOWN])}{more}"
        )
    else:
        return
    raise StackError(
        f"{where} was last used by finetrail {found.version}, which is newer than this "
        f"{ours.version}: {reason}. Nothing was changed.",
        f"Install finetrail {found.version} or newer, "
        "or restore the backup that was made before the upgrade (docs/how-to/upgrade.md).",
    )


def check_directory(paths: StackPaths) -> None:
    """See that this build may use the data directory; nothing is written.

    Raises:
        StackError: A newer build has used it, or it cannot be told.
    """
    found = _read(paths)
    if found is not None:
        refuse_newer(found, f"The data directory {paths.root}")


def record_directory(paths: StackPaths) -> None:
    """Write down that this build uses the data directory; call `check_directory` before."""
    if _read(paths) != this_build():
        write_private(paths.format, this_build().model_dump_json(indent=2))


def stream_metadata() -> dict[str, str]:
    """What the log's own stream says, so that it holds for servers without a data directory too."""
    ours = this_build()
    return {
        f"{METADATA}format": str(ours.format),
        f"{METADATA}version": ours.version,
        f"{METADATA}events": ",".join(ours.events),
    }


def check_stream(metadata: Mapping[str, str], where: str) -> None:
    """See that this build may write a log, given the metadata of its stream.

    Raises:
        StackError: A newer build has used it.
    """
    if f"{METADATA}format" not in metadata:
        return
    events = metadata.get(f"{METADATA}events", "")
    found = Written(
        format=int(metadata[f"{METADATA}format"]),
        version=metadata.get(f"{METADATA}version", "unknown"),
        events=tuple(filter(None, events.split(","))),
    )
    refuse_newer(found, where)


def _read(paths: StackPaths) -> Written | None:
    try:
        return Written.model_validate_json(paths.format.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise StackError(
            f"{paths.format} cannot be read, so it cannot be told which build has used the data "
            "directory. Nothing was changed.",
            "Restore the file from a backup, or remove it if no newer finetrail has run there.",
        ) from error
