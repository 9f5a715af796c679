"""What is published over NATS, described over HTTP: the AsyncAPI document and the events' schemas."""

import json
from functools import cache
from typing import Final

import msgspec
from litestar import Controller, Response, get
from litestar.params import FromPath

from domain.subjects import Aggregate, event_token
from gateway.asyncapi import document
from gateway.message_schemas import event_schema, event_versions
from gateway.problems import Problem

ASYNCAPI: Final = "application/vnd.aai.asyncapi+json;version=3.0.0"
JSON_SCHEMA: Final = "application/schema+json"
_EXTENSION: Final = ".json"


class EventSchema(msgspec.Struct):
    """A version of an event; `filter` is where it is found in the feed, `schema` where it is described."""

    type: str
    version: int
    aggregate: Aggregate
    filter: str
    schema: str


class EventSchemas(msgspec.Struct):
    items: list[EventSchema]


class PublishedController(Controller):
    tags = ("system",)

    @get("/asyncapi", sync_to_thread=True)
    def asyncapi(self) -> Response[bytes]:
        """The AsyncAPI 3.0 document: how to subscribe to events, and what they look like."""
        return Response(_asyncapi(), media_type=ASYNCAPI)

    @get("/schema/events", sync_to_thread=False)
    def index(self) -> EventSchemas:
        """Every event type in every version, with the address of its JSON Schema."""
        return EventSchemas(
            items=[
                EventSchema(
                    type=each.event_type,
                    version=each.version,
                    aggregate=each.aggregate,
                    filter=f"feed.*.{each.aggregate}.{event_token(each.event_type)}.*",
                    schema=f"/schema/events/{each.event_type}/{each.version}{_EXTENSION}",
                )
                for each in event_versions()
            ]
        )

    @get("/schema/events/{type:str}/{file:str}", sync_to_thread=True)
    def schema(
        self,
        type: FromPath[str],  # noqa: A002 - the API's word
        file: FromPath[str],
    ) -> Response[bytes]:
        """The JSON Schema (2020-12) of an event's payload; the file is `<version>.json`."""
        found = _schemas().get((type, file))
        if found is None:
            raise Problem(
                "not_found", f"There is no schema {type}/{file}; GET /schema/events lists them."
            )
        return Response(found, media_type=JSON_SCHEMA)


@cache
def _asyncapi() -> bytes:
    return json.dumps(document(), ensure_ascii=False).encode()


@cache
def _schemas() -> dict[tuple[str, str], bytes]:
    return {
        (each.event_type, f"{each.version}{_EXTENSION}"): json.dumps(
            event_schema(each), ensure_ascii=False
        ).encode()
        for each in event_versions()
    }
