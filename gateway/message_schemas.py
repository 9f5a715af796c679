"""JSON Schemas of what is published: of each event in each version, of telemetry, of commands."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from domain.catalog import COMMANDS, EVENTS, UPCASTS
from domain.feed import HIDDEN
from domain.subjects import Aggregate
from domain.telemetry import LogEmitted, MetricsLogged

Json = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
COMPONENTS: Final = "#/components/schemas/"
TELEMETRY: Final[dict[str, type[BaseModel]]] = {"log": LogEmitted, "metrics": MetricsLogged}


@dataclass(frozen=True, slots=True)
class EventVersion:
    """An event type as it is written today, or as it was."""

    aggregate: Aggregate
    event_type: str
    version: int
    class_: type[BaseModel]
    current: bool

    @property
    def name(self) -> str:
        return self.event_type if self.current else f"{self.event_type}.v{self.version}"


def event_versions() -> Iterator[EventVersion]:
    """Every event in every version that the log may hold, newest first."""
    for name, (aggregate, class_) in EVENTS.items():
        yield EventVersion(aggregate, name, class_.schema_version, class_, current=True)
        older = sorted((version for type_, version in UPCASTS if type_ == name), reverse=True)
        for version in older:
            yield EventVersion(aggregate, name, version, class_, current=False)


def components() -> dict[str, Json]:
    """All schemas by name; they refer to one another as components of one document."""
    older = {each.name: _older(each) for each in event_versions() if not each.current}
    shown = _schemas([class_ for _, class_ in EVENTS.values()], COMPONENTS, hidden=HIDDEN)
    others = [*TELEMETRY.values(), *(class_ for _, class_ in COMMANDS.values())]
    return dict(sorted({**_schemas(others, COMPONENTS), **shown, **older}.items()))


def event_schema(version: EventVersion) -> Json:
    """One event's schema that needs no other document."""
    head: Json = {
        "$schema": DIALECT,
        "$id": f"urn:finetrail:event:{version.event_type}:{version.version}",
    }
    if not version.current:
        return head | _older(version)
    parts = _schemas([version.class_], "#/$defs/", hidden=HIDDEN)
    whole = parts.pop(version.event_type)
    return head | whole | ({"$defs": parts} if parts else {})


def _schemas(
    classes: Sequence[type[BaseModel]], refer: str, hidden: Collection[str] = ()
) -> dict[str, Json]:
    # What is read, not what is written: an event of an older build may lack fields that came later.
    _, found = models_json_schema(
        [(class_, "validation") for class_ in classes], ref_template=refer + "{model}"
    )
    return {name: _without(hidden, _portable(schema)) for name, schema in found["$defs"].items()}


def _older(version: EventVersion) -> Json:
    return {
        "type": "object",
        "title": version.name,
        "description": (
            f"{version.event_type} as older releases of Finetrail wrote it. The log keeps it so, and this "
            "release reads it as the current version."
        ),
    }


def _without(hidden: Collection[str], schema: Json) -> Json:
    if "properties" not in schema:
        return schema
    properties = {name: part for name, part in schema["properties"].items() if name not in hidden}
    required = [name for name in schema.get("required", ()) if name not in hidden]
    return schema | {"properties": properties, "required": required}


def _portable(part: Any) -> Any:
    """A tuple of like items, which each dialect of JSON Schema says in its own way, is an array."""
    if isinstance(part, list):
        return [_portable(item) for item in part]
    if not isinstance(part, dict):
        return part
    made = {name: _portable(value) for name, value in part.items() if name != "prefixItems"}
    if items := part.get("prefixItems"):
        if len({json.dumps(item, sort_keys=True) for item in items}) != 1:
            raise ValueError(f"a tuple of unlike items has no portable schema: {items}")
        made["items"] = _portable(items[0])
    return made
