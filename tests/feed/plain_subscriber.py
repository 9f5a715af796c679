"""Another system's program: it knows an AsyncAPI document and how to log in, and nothing of ours.

Nothing of the product is imported here, and nothing in it is known beforehand but the event's name.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
import nats
from jsonschema import Draft202012Validator
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy
from referencing import Registry
from referencing.jsonschema import DRAFT202012

DOCUMENT = "urn:document"


class Document:
    """What an AsyncAPI document says."""

    def __init__(self, content: dict[str, Any]) -> None:
        assert content["asyncapi"].startswith("3.")
        self.content = content
        self._schemas: Registry[Any] = Registry().with_resource(
            DOCUMENT, DRAFT202012.create_resource(content)
        )

    @classmethod
    async def at(cls, url: str) -> "Document":
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(url)
        assert answer.headers["content-type"].startswith("application/vnd.aai.asyncapi+json")
        return cls(answer.json())

    def resolved(self, part: Any) -> Any:
        while "$ref" in part:
            found: Any = self.content
            for step in part["$ref"].removeprefix("#/").split("/"):
                found = found[step.replace("~1", "/").replace("~0", "~")]
            part = found
        return part

    def channel_of(self, event_type: str) -> dict[str, Any]:
        """The channel that the application sends messages of this name to."""
        for operation in self.content["operations"].values():
            messages = [self.resolved(message) for message in operation["messages"]]
            if operation["action"] == "send" and event_type in {one["name"] for one in messages}:
                channel: dict[str, Any] = self.resolved(operation["channel"])
                return channel
        raise LookupError(event_type)

    def wrong_with(self, headers: Mapping[str, str], payload: object) -> list[str]:
        """What is wrong with a message, by the schemas of its type and version."""
        for name, message in self.content["components"]["messages"].items():
            fits = self._validator(f"messages/{name}/headers").is_valid(dict(headers))
            if message["name"] == headers.get("ce-type") and fits:
                errors = self._validator(f"messages/{name}/payload").iter_errors(payload)
                return [f"{error.json_path}: {error.message}" for error in errors]
        return [f"no message in the document has such headers: {dict(headers)}"]

    def _validator(self, place: str) -> Draft202012Validator:
        return Draft202012Validator(
            {"$ref": f"{DOCUMENT}#/components/{place}"},
            registry=self._schemas,
            format_checker=Draft202012Validator.FORMAT_CHECKER,
        )


@dataclass(frozen=True)
class Subscription:
    """Messages of one type."""

    document: Document
    nc: Client
    domain: str
    stream: str
    subject: str

    @classmethod
    def to(cls, document: Document, nc: Client, event_type: str) -> "Subscription":
        channel = document.channel_of(event_type)
        subject = re.sub(r"\{\w+\}", "*", channel["address"])
        source = channel["x-jetstream"]
        assert subject == source["filter"]
        return cls(document, nc, source["domain"], source["stream"], subject)

    async def since(self, start: int | datetime | None) -> AsyncIterator[Msg]:
        """From a sequence or a time on, or only what comes from now on."""
        config = ConsumerConfig(filter_subject=self.subject, deliver_policy=DeliverPolicy.NEW)
        if isinstance(start, datetime):
            config.deliver_policy = DeliverPolicy.BY_START_TIME
            config.opt_start_time = start.isoformat()
        elif start is not None:
            config.deliver_policy = DeliverPolicy.BY_START_SEQUENCE
            config.opt_start_seq = start
        subscription = await self.nc.jetstream(domain=self.domain).subscribe(
            self.subject, stream=self.stream, ordered_consumer=True, config=config
        )
        try:
            async for message in subscription.messages:
                yield message
        finally:
            await subscription.unsubscribe()


@asynccontextmanager
async def logged_in(url: str, user: str, password: str) -> AsyncIterator[Client]:
    nc = await nats.connect(url, user=user, password=password)
    try:
        yield nc
    finally:
        await nc.close()
