"""What a receiver is sent, by the Standard Webhooks specification 1.0: names, ids, body, signatures.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit
from uuid import UUID, uuid5

from domain.feed import fed_event
from domain.subjects import event_token

MAX_BODY: Final = 20_000  # bytes; the specification asks for less than 20 kB
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - a prefix
SECRET_BYTES: Final = 32  # the specification asks for 24 to 64
HIDDEN: Final = "***"
TEST_TYPE: Final = "webhook.test"


@lru_cache(512)
def type_name(aggregate: str, event_type: str) -> str:
    """`JobSucceeded` of a job is `job.succeeded`: words that the aggregate says already are left out."""
    told = set(aggregate.split("_"))
    words = event_token(event_type).split("_")
    left = next((n for n, word in enumerate(words) if word not in told), len(words) - 1)
    return f"{aggregate}.{'_'.join(words[left:])}"


def wants(event_types: Sequence[str] | None, name: str) -> bool:
    """Whether the type is one of those chosen: by its name, or all of its aggregate as `job.*`."""
    if event_types is None:
        return True
    return name in event_types or f"{name.partition('.')[0]}.*" in event_types


def message_id(webhook_id: UUID, event_id: UUID) -> str:
    """The same at every attempt and every replay, and another one for each webhook."""
    return f"msg_{uuid5(webhook_id, str(event_id)).hex}"


def body_of(
    subject: str, sequence: int, headers: Mapping[str, str], data: bytes, api_url: str
) -> bytes:
    """An event of the log as a receiver gets it; one that would be too long is named and not held.

    Raises:
        ValueError: The event cannot be read.
    """
    _, workspace, aggregate, id_ = subject.split(".")
    shown = fed_event(subject, sequence, headers, data).data
    facts: dict[str, Any] = {
        "id": headers.get("ce-id", ""),
        "sequence": sequence,
        "workspace": workspace,
        "aggregate": aggregate,
        "aggregate_id": id_,
        "actor": unquote(headers.get("ce-actor", "")),
        "correlation_id": headers.get("ce-correlationid", ""),
        "causation_id": headers.get("ce-causationid", ""),
        "event_type": headers.get("ce-type", ""),
        "link": f"{api_url}/api/v1/events?after={sequence - 1}&limit=1",
        "event": json.loads(shown),
    }
    name, time = type_name(aggregate, headers.get("ce-type", "")), headers.get("ce-time", "")
    whole = encode(name, time, facts)
    return whole if len(whole) < MAX_BODY else encode(name, time, {**facts, "event": None})


def encode(name: str, time: str, data: Mapping[str, Any]) -> bytes:
    body = {"type": name, "timestamp": time, "data": data}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def signed_headers(id_: str, now: datetime, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """The three headers; one signature for each secret, so that a receiver may change its own later."""
    timestamp = str(int(now.timestamp()))
    signed = b".".join((id_.encode(), timestamp.encode(), body))
    signatures = [
        base64.b64encode(hmac.new(secret_bytes(secret), signed, hashlib.sha256).digest()).decode()
        for secret in secrets
    ]
    return {
        "webhook-id": id_,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def secret_text(key: bytes) -> str:
    return SECRET_PREFIX + base64.b64encode(key).decode()


def secret_bytes(text: str) -> bytes:
    """The key of a secret as it is written.

    Raises:
        ValueError: It is none.
    """
    try:
        return base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("a secret is whsec_ and base64 behind it") from error


def shown_url(url: str) -> str:
    """The address without what may be a secret: user and password, the query's values, a fragment."""
    parts = urlsplit(url)
    where = parts.netloc.rpartition("@")[2]
    netloc = f"{HIDDEN}@{where}" if "@" in parts.netloc else where
    return urlunsplit((parts.scheme, netloc, parts.path, HIDDEN if parts.query else "", ""))
