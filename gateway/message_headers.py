"""The headers of what is published: CloudEvents in binary mode, and where a message stands."""

from typing import Any, Final

from domain.feed import SEQUENCE_HEADER

Json = dict[str, Any]

_UUID: Final = {"type": "string", "format": "uuid"}
_NUMBER: Final = {"type": "string", "pattern": "^[0-9]+$"}


def _headers(description: str, required: Json, optional: Json) -> Json:
    cloud_event: Json = {
        "ce-specversion": {"const": "1.0"},
        "ce-id": _UUID | {"description": "Of the message; a repeat has the same."},
        "ce-source": {
            "type": "string",
            "pattern": "^/finetrail/[^/]+/[^/]+$",
            "description": "`/finetrail/<workspace>/<who sent what led to it>`.",
        },
        "ce-type": {"type": "string", "description": "Names the schema of the payload."},
        "ce-time": {"type": "string", "format": "date-time", "description": "RFC 3339, in UTC."},
        "content-type": {"const": "application/json"},
        "Nats-Msg-Id": _UUID | {"description": "Equals ce-id."},
    }
    return {
        "type": "object",
        "description": f"{description} There may be more headers than these.",
        "required": [*cloud_event, *required],
        "properties": cloud_event | required | optional,
        "additionalProperties": {"type": "string"},
    }


_SUBJECT: Final = {
    "type": "string",
    "pattern": "^[a-z_]+/[0-9a-f-]{36}$",
    "description": "What it is about: `<aggregate>/<id>`.",
}
_CAUSED: Final[Json] = {
    "ce-subject": _SUBJECT,
    "ce-actor": {
        "type": "string",
        "description": "Who wanted it, such as `key:3f9a2c1b` or `agent:018f…`; percent-encoded.",
    },
    "ce-correlationid": _UUID | {"description": "All that one request led to has the same."},
    "ce-schemaversion": _NUMBER | {"description": "Version of the payload's schema."},
}
_COMMAND: Final[Json] = {
    "ce-commandtype": {"type": "string", "description": "Type of the command that this came of."},
    "ce-commandcause": _UUID | {"description": "The event that led to that command, if one did."},
}
_TRACE: Final[Json] = {
    "traceparent": {"type": "string", "description": "W3C Trace Context, where it was traced."}
}
HEADERS: Final[dict[str, Json]] = {
    "EventHeaders": _headers(
        "Headers of an event in the feed.",
        {
            **_CAUSED,
            "ce-causationid": _UUID | {"description": "The command that this came of."},
            SEQUENCE_HEADER: _NUMBER | {"description": "Position in Finetrail's event log."},
        },
        {**_COMMAND, **_TRACE},
    ),
    "TelemetryHeaders": _headers("Headers of telemetry.", {}, {"ce-subject": _SUBJECT, **_TRACE}),
    "CommandHeaders": _headers(
        "Headers of a command.", _CAUSED, {"ce-causationid": _UUID, **_TRACE}
    ),
}
