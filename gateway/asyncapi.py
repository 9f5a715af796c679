"""The description of what is published over NATS: AsyncAPI 3.0, from the types that are published."""

import inspect
from importlib.metadata import version as installed
from typing import Any, Final

from pydantic import BaseModel

from domain.catalog import COMMANDS
from domain.feed import DOMAIN, SEQUENCE_HEADER, STREAM
from domain.subjects import AGGREGATES, event_token
from gateway.message_headers import HEADERS
from gateway.message_schemas import TELEMETRY, EventVersion, components, event_versions

Json = dict[str, Any]

TELEMETRY_STREAM: Final = "TELEMETRY"

_DESCRIPTION: Final = f"""\
What Finetrail publishes: every event of its log, and what running work says. Subscribe with any NATS
client; nothing of Finetrail need be installed.

**Connect** to the server as the user `subscriber`; whoever runs Finetrail gets address and password
by `finetrail feed credentials`. The default inbox prefix `_INBOX` is allowed.

**Subscribe** through JetStream, in the JetStream domain `{DOMAIN}` (the API prefix `$JS.{DOMAIN}.API`):
create a consumer on the stream that a channel names in `x-jetstream`, with `filter` from there as
its filter subject. `*` stands for one token, so that
`feed.*.job.job_succeeded.*` is the success of any job in any workspace, `feed.*.job.>` all that happens to
jobs, and `feed.>` everything. An ordered (ephemeral) consumer is enough to watch. A durable
consumer with explicit acknowledgement remembers how far you have come. Start from the beginning
(`all`), from now on (`new`), from a sequence of the stream (`by_start_sequence`), or from a time
(`by_start_time`). A plain subscription without JetStream to these subjects is refused.

**What comes**: one event a message, in the order of the log, the data as JSON in the payload and
all else in headers, after the CloudEvents binding for NATS in binary mode. `ce-id` is
the event's identity: a consumer that crashed before it acknowledged gets a message again, with
the same id. `{SEQUENCE_HEADER}` is the position in Finetrail's log, which is the `sequence` of its HTTP API.
`ce-type` and `ce-schemaversion` name the schema, which is also served at
`/schema/events/{{type}}/{{version}}.json`. Types and fields are added over time: pass over those you do
not know. The stream `{STREAM}` keeps 30 days, `{TELEMETRY_STREAM}` 14 days at most.

Subjects and payloads are UTF-8; header values are percent-encoded where they are not plain ASCII.
"""
_COMMANDS: Final = (
    "For reference: Finetrail's own processes alone may send commands over NATS. Other systems send "
    "them over HTTP, as /schema/openapi.json describes."
)
_PARAMETERS: Final[Json] = {
    "workspace": {"description": "Letters, digits, _ and -.", "examples": ["default"]},
    "id": {"description": "The UUID of the thing that the message is about."},
    "attempt": {"description": "Of the job, from 1; 0 is what people or other systems said."},
    "source": {"description": "Who sends: `gateway`, `reaction`, `operator`, or an agent's id."},
}
_SERVER: Final[Json] = {
    "host": "{host}:{port}",
    "protocol": "nats",
    "description": "The NATS server of a Finetrail installation, with JetStream.",
    "variables": {
        "host": {"default": "127.0.0.1", "description": "As `finetrail feed credentials` says."},
        "port": {"default": "4222", "description": "The embedded server picks a free one."},
    },
    "security": [
        {"$ref": "#/components/securitySchemes/subscriber"},
        {"$ref": "#/components/securitySchemes/nkey"},
    ],
}
_SECURITY: Final[Json] = {
    "subscriber": {
        "type": "userPassword",
        "description": "The user `subscriber`, as `finetrail feed credentials` prints it.",
    },
    "nkey": {
        "type": "asymmetricEncryption",
        "description": "An NKey, where whoever runs the NATS server has given you one instead.",
    },
}


def document() -> Json:
    """The whole description."""
    channels: Json = {}
    messages: Json = {}
    for event in event_versions():
        name = f"feed.{event.aggregate}.{event_token(event.event_type)}"
        channel = channels.setdefault(name, _feed(event))
        channel["messages"][event.name] = _ref("messages", event.name)
        messages[event.name] = _event(event)
    for kind, class_ in TELEMETRY.items():
        channels[f"telemetry.{kind}"] = _telemetry(kind, class_)
        messages[class_.__name__] = _message(class_, "TelemetryHeaders")
    for aggregate in AGGREGATES:
        address = f"commands.{{source}}.{{workspace}}.{aggregate}.{{id}}"
        channels[f"commands.{aggregate}"] = _channel(address, _COMMANDS)
    for name, (aggregate, class_) in COMMANDS.items():
        channels[f"commands.{aggregate}"]["messages"][name] = _ref("messages", name)
        messages[name] = _message(class_, "CommandHeaders")
    return {
        "asyncapi": "3.0.0",
        "id": "urn:finetrail",
        "info": {
            "title": "Finetrail",
            "version": installed("finetrail"),
            "description": _DESCRIPTION,
            "license": {
                "name": "Apache-2.0",
                "url": "https://www.apache.org/licenses/LICENSE-2.0",
            },
        },
        "defaultContentType": "application/json",
        "servers": {"nats": _SERVER},
        "channels": channels,
        "operations": dict(_operation(name, channel) for name, channel in channels.items()),
        "components": {
            "messages": messages,
            "parameters": _PARAMETERS,
            "schemas": {**HEADERS, **components()},
            "securitySchemes": _SECURITY,
        },
    }


def _feed(event: EventVersion) -> Json:
    token = event_token(event.event_type)
    return _channel(
        f"feed.{{workspace}}.{event.aggregate}.{token}.{{id}}",
        f"Every {event.event_type}; the last token is the id of the aggregate `{event.aggregate}`.",
        stream=STREAM,
        filter_subject=f"feed.*.{event.aggregate}.{token}.*",
    )


def _telemetry(kind: str, class_: type[BaseModel]) -> Json:
    channel = _channel(
        f"telemetry.{{workspace}}.{kind}.{{id}}.{{attempt}}",
        inspect.cleandoc(class_.__doc__ or ""),
        stream=TELEMETRY_STREAM,
        filter_subject=f"telemetry.*.{kind}.*.*",
    )
    return channel | {"messages": {class_.__name__: _ref("messages", class_.__name__)}}


def _channel(
    address: str, description: str, *, stream: str | None = None, filter_subject: str = ""
) -> Json:
    named = [name for name in _PARAMETERS if f"{{{name}}}" in address]
    channel: Json = {
        "address": address,
        "description": description,
        "servers": [{"$ref": "#/servers/nats"}],
        "parameters": {name: _ref("parameters", name) for name in named},
        "messages": {},
    }
    if stream:
        channel["x-jetstream"] = {"domain": DOMAIN, "stream": stream, "filter": filter_subject}
    return channel


def _event(event: EventVersion) -> Json:
    told = {
        "properties": {
            "ce-type": {"const": event.event_type},
            "ce-schemaversion": {"const": str(event.version)},
        }
    }
    message = _message(event.class_, "EventHeaders")
    return message | {
        "name": event.event_type,
        "title": f"{event.event_type}, version {event.version}",
        "headers": {"type": "object", "allOf": [message["headers"], told]},
        "payload": _ref("schemas", event.name),
    }


def _message(class_: type[BaseModel], headers: str) -> Json:
    message: Json = {
        "name": class_.__name__,
        "title": class_.__name__,
        "contentType": "application/json",
        "headers": _ref("schemas", headers),
        "payload": _ref("schemas", class_.__name__),
    }
    own = vars(class_).get("__doc__")  # not that of the class it is derived from
    return message | ({"summary": inspect.cleandoc(own)} if own else {})


def _operation(name: str, channel: Json) -> tuple[str, Json]:
    action = "receive" if name.startswith("commands.") else "send"
    return f"{action}.{name}", {
        "action": action,
        "channel": {"$ref": f"#/channels/{name}"},
        "messages": [
            {"$ref": f"#/channels/{name}/messages/{message}"} for message in channel["messages"]
        ],
    }


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}
