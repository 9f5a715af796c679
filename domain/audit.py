"""The chain over the log and what is signed of it, as bytes that any language can compute again.

`docs/reference/audit-format.md` describes them byte by byte.
"""

import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

EVENT: Final = b"finetrail event 1\n"
HEAD: Final = "finetrail head 1"
KEY: Final = "finetrail key 1"
START: Final = bytes(32)  # the hash before the first event
SERVERS_OWN: Final = b"Nats-"  # what the server adds and takes away again; no part of an event
KEY_ID_DIGITS: Final = 16

Header = tuple[bytes, bytes]  # name, value

_u32: Final = struct.Struct(">I").pack
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


class NotARecord(ValueError):
    """What should be a head or a key does not look like one."""


@dataclass(frozen=True, slots=True)
class Head:
    """What was signed: up to ``sequence`` the log ``log`` has the hash ``hash``."""

    log: str  # the hash of its first event: no two logs share it
    sequence: int
    hash: str
    time: str
    key: str
    signature: str = ""

    def statement(self) -> bytes:
        """The bytes that are signed."""
        return _lines(
            HEAD,
            f"log {self.log}",
            f"sequence {self.sequence}",
            f"hash {self.hash}",
            f"time {self.time}",
            f"key {self.key}",
        )

    def record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, and which key has vouched for it; the first one has for itself."""

    key: str
    public_key: str
    time: str
    by: str
    signature: str = ""

    def statement(self) -> bytes:
        """The bytes that the key ``by`` signs."""
        return _lines(
            KEY,
            f"key {self.key}",
            f"public {self.public_key}",
            f"time {self.time}",
            f"by {self.by}",
        )

    def record(self) -> dict[str, Any]:
        return asdict(self)


def read_head(record: object) -> Head:
    """Read a head as it stands in a file.

    Raises:
        NotARecord: It is none; the message says what does not fit.
    """
    match record:
        case {
            "log": str(log),
            "sequence": int(sequence),
            "hash": str(hash_),
            "time": str(time),
            "key": str(key),
            "signature": str(signature),
            **rest,
        } if not rest:
            fits = (
                _HASH.fullmatch(log)
                and sequence > 0
                and _HASH.fullmatch(hash_)
                and _TIME.fullmatch(time)
                and re.fullmatch(r"[0-9a-f]{16}", key)
                and _SIGNATURE.fullmatch(signature)
            )
            if fits:
                return Head(log, sequence, hash_, time, key, signature)
    raise NotARecord(f"{str(record)[:200]} is no head: log, sequence, hash, time, key, signature")


def read_key(record: object) -> Key:
    """Read a key as it stands in a file.

    Raises:
        NotARecord: It is none, or its id is not that of its bytes.
    """
    match record:
        case {
            "key": str(key),
            "public_key": str(public),
            "time": str(time),
            "by": str(by),
            "signature": str(signature),
            **rest,
        } if not rest:
            fits = (
                _HASH.fullmatch(public)
                and key == key_id(bytes.fromhex(public))
                and _TIME.fullmatch(time)
                and re.fullmatch(r"[0-9a-f]{16}", by)
                and _SIGNATURE.fullmatch(signature)
            )
            if fits:
                return Key(key, public, time, by, signature)
    raise NotARecord(f"{str(record)[:200]} is no key: key, public_key, time, by, signature")


def key_id(public_key: bytes) -> str:
    return hashlib.sha256(public_key).hexdigest()[:KEY_ID_DIGITS]


def moment(time: datetime) -> str:
    """A time as heads and keys have it."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def chained_headers(block: bytes) -> Sequence[Header]:
    """What is chained of a message's header block as it stands on the wire.

    Everything but the server's own, by name; headers of one name stay in their order.
    """
    lines = block.split(b"\r\n")[1:]
    named = [line.partition(b":") for line in lines if line and not line.startswith(SERVERS_OWN)]
    return sorted(((name, value.removeprefix(b" ")) for name, _, value in named), key=_name)


def header_lines(headers: Sequence[Header]) -> bytes:
    """Headers in one piece, a line each, as the archive keeps them."""
    return b"".join(b"%b: %b\r\n" % header for header in headers)


def headers_in(lines: bytes) -> Sequence[Header]:
    """Headers that `header_lines` has put into one piece."""
    return chained_headers(b"\r\n" + lines)


def event_hash(
    previous: bytes,
    sequence: int,
    subject: bytes,
    headers: Sequence[Header],
    data_sha256: bytes,
) -> bytes:
    """The hash of an event behind the one that has the hash ``previous``."""
    parts = [
        EVENT,
        previous,
        sequence.to_bytes(8, "big"),
        _u32(len(subject)),
        subject,
        _u32(len(headers)),
    ]
    for name, value in headers:
        parts += (_u32(len(name)), name, _u32(len(value)), value)
    parts.append(data_sha256)
    return hashlib.sha256(b"".join(parts)).digest()


def _name(header: Header) -> bytes:
    return header[0]


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
