"""What other systems are fed: every event of the log on a subject that names its type."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from domain.subjects import feed_subject

STREAM: Final = "FEED"
DOMAIN: Final = "finetrail"  # the JetStream domain under which subscribers reach it
# Position in the event log. NATS keeps headers that begin with `Nats-` to itself.
SEQUENCE_HEADER: Final = "ft-sequence"
# Whoever may read events may be less than whoever manages keys.
HIDDEN: Final = {"secret_hmac", "token_hmac"}
# From where somebody asked is nobody else's business.
PRIVATE_HEADERS: Final = {"ce-clientaddress"}


@dataclass(frozen=True, slots=True)
class FedEvent:
    """An event as it is written into the feed."""

    subject: str
    headers: Mapping[str, str]
    data: bytes


@dataclass(frozen=True, slots=True)
class FeedTail:
    """Where the feed ends."""

    last: int  # sequence of the stream's last message, also when that has expired
    position: int  # in the event log, of the last event that was fed
    event_id: str = ""  # of that event; empty when it is no longer there to be asked


def fed_event(subject: str, sequence: int, headers: Mapping[str, str], data: bytes) -> FedEvent:
    """An event of the log as subscribers get it: as it was written, whoever wrote it.

    It need not be one that this build knows. What NATS added to it in the log stays behind.
    """
    _, workspace, aggregate, id_ = subject.split(".")
    kept = {
        name: value
        for name, value in headers.items()
        if not name.lower().startswith("nats-") and name.lower() not in PRIVATE_HEADERS
    }
    kept |= {
        SEQUENCE_HEADER: str(sequence),
        "Nats-Msg-Id": headers.get("ce-id") or f"events-{sequence}",
    }
    return FedEvent(
        subject=feed_subject(workspace, aggregate, headers.get("ce-type", ""), id_),
        headers=kept,
        data=_without_hidden(data),
    )


def _without_hidden(data: bytes) -> bytes:
    """The same bytes for all events but those that hold what nobody is shown."""
    if not any(name.encode() in data for name in HIDDEN):
        return data
    payload = json.loads(data)
    if not isinstance(payload, dict):
        return data
    shown = {name: value for name, value in payload.items() if name not in HIDDEN}
    return json.dumps(shown, separators=(",", ":"), ensure_ascii=False).encode()
