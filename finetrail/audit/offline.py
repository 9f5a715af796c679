"""Checks an evidence bundle of Finetrail with nothing but this file and Python 3.10 or newer.

    python verify.py [BUNDLE] [--key KEY] [--json]

BUNDLE is the ZIP file, or the folder it was unpacked into; the folder of this file if left out. KEY is
the public key, or its id, that you were given by another way than this bundle: without it you see that
the bundle agrees with itself and which key has signed it, but not whose key that is.

It asks no server. A bundle's README.txt describes the bytes that are hashed and signed, so that you can
write this program yourself. PyNaCl or cryptography check the signatures if they are installed, and
otherwise the few lines of arithmetic at the end. It ends with 0 if all of it holds, with 1 if something
does not, and with 2 if it is no bundle.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

EVENTS, HEADS, KEYS, BLOBS, SUMMARY = (
    "events.jsonl",
    "heads.jsonl",
    "keys.jsonl",
    "blobs.jsonl",
    "summary.json",
)
EVENT = b"finetrail event 1\n"
START = bytes(32)
LOOKED_AHEAD = 1000  # events behind one that does not hold, to say in what way
FIELDS = {
    EVENTS: {"sequence", "hash", "subject", "headers", "data_sha256", "data"},
    HEADS: {"log", "sequence", "hash", "time", "key", "signature"},
    KEYS: {"key", "public_key", "time", "by", "signature"},
    BLOBS: {"sha256", "size", "sequence", "purpose"},
}


class NoBundle(Exception):
    """It lacks what every bundle has."""


class Unreadable(Exception):
    """A line is not what stands in such a file."""


@dataclass
class Finding:
    """One thing that does not hold; ``sequence`` is where."""

    sequence: int
    way: str
    detail: str


@dataclass
class Event:
    sequence: int
    hash: bytes
    subject: bytes
    headers: list[tuple[bytes, bytes]]
    data_sha256: bytes
    data: bytes | None  # None where the bundle withholds it

    def hashed(self, previous: bytes, sequence: int | None = None) -> bytes:
        """What its hash must be behind ``previous``, or would be at another place."""
        at = self.sequence if sequence is None else sequence
        parts = [EVENT, previous, at.to_bytes(8, "big"), *_sized(self.subject)]
        parts.append(len(self.headers).to_bytes(4, "big"))
        for name, value in self.headers:
            parts += [*_sized(name), *_sized(value)]
        return hashlib.sha256(b"".join([*parts, self.data_sha256])).digest()

    def header(self, wanted: bytes) -> str:
        found = [value for name, value in self.headers if name == wanted]
        return found[-1].decode("utf-8", "replace") if found else ""

    @property
    def data_holds(self) -> bool:
        return self.data is None or hashlib.sha256(self.data).digest() == self.data_sha256


@dataclass
class Report:
    """What was found. Everything up to ``proven`` is as it was signed."""

    log: str = ""
    first: int = 0
    last: int = 0
    events: int = 0
    withheld: int = 0
    heads: int = 0
    heads_not_counted: int = 0
    proven: int = 0
    proven_at: str = ""
    unsigned: int = 0
    keys: list[str] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    blobs: int = 0
    types: Counter[str] = field(default_factory=Counter)
    actors: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.findings and self.proven > 0

    def found(self, sequence: int, way: str, detail: str) -> None:
        self.findings.append(Finding(sequence, way, detail))


class Bundle:
    """A ZIP file or a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._zip = None if path.is_dir() else _opened(path)
        names = self._zip.namelist() if self._zip is not None else []
        self._names = set(names)
        if len(self._names) != len(names):
            raise NoBundle(f"{path} has two files of one name: {_twice(names)}")
        for name in (EVENTS, HEADS, KEYS):
            if not self.has(name):
                raise NoBundle(f"{path} has no {name}")

    def has(self, name: str) -> bool:
        if self._zip is not None:
            return name in self._names
        return (self._path / name).is_file()

    def open(self, name: str) -> IO[bytes]:
        if self._zip is not None:
            return self._zip.open(name)
        return (self._path / name).open("rb")

    def records(self, name: str) -> Iterator[dict[str, Any] | Unreadable]:
        """The lines of a file, or for one that is none what is wrong with it."""
        with self.open(name) as file:
            for number, line in enumerate(file, start=1):
                try:
                    record = json.loads(line, object_pairs_hook=_once)
                except (ValueError, RecursionError) as error:
                    yield Unreadable(f"line {number} of {name} cannot be read: {error}")
                    continue
                if isinstance(record, dict) and set(record) == FIELDS[name]:
                    yield record
                else:
                    yield Unreadable(f"line {number} of {name} has not the fields of such a line")


def verify(path: Path, trusted: Sequence[str] = ()) -> Report:
    """Check a bundle.

    Args:
        trusted: public keys, or their ids, that its heads must go back to; else its first key.

    Raises:
        NoBundle: It is none.
    """
    report = Report()
    try:
        bundle = Bundle(path)
        keys = _keys(bundle, [each.lower() for each in trusted], report)
        heads = _heads(bundle, keys, report)
        named = _blobs_named(bundle, report)
        _events(bundle, heads, named, report)
        _blobs_enclosed(bundle, named, report)
        _summary(bundle, report)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise NoBundle(f"{path} is damaged: {error}") from error
    report.findings.sort(key=lambda finding: finding.sequence)
    return report


def _keys(bundle: Bundle, trusted: list[str], report: Report) -> dict[str, str]:
    """Public keys by id that may sign, each behind the one that has vouched for it."""
    accepted: dict[str, str] = {}
    for record in bundle.records(KEYS):
        if isinstance(record, Unreadable) or not _is_key(record):
            report.found(0, "key", f"a key is none: {str(record)[:200]}")
            continue
        key, public, by = record["key"], record["public_key"], record["by"]
        statement = _statement("key", record, "key", "public_key", "time", "by")
        root = not accepted and by == key if not trusted else key in trusted or public in trusted
        vouching = public if by == key else accepted.get(by)
        signed = vouching is not None and _signed(vouching, statement, record)
        if (root and (trusted or signed)) or (by != key and signed):
            accepted[key] = public
        elif not trusted:
            report.found(0, "key", f"no key before it has vouched for key {key}")
    if not accepted:
        report.found(
            0, "key", "the key that you trust has not signed here" if trusted else "no key"
        )
    report.keys = [f"{key} {public}" for key, public in accepted.items()]
    return accepted


def _is_key(record: dict[str, Any]) -> bool:
    """Whether it is one, and its id that of its bytes."""
    public = record["public_key"]
    return (
        _texts(record)
        and _hexadecimal(public, 64)
        and record["key"] == hashlib.sha256(bytes.fromhex(public)).hexdigest()[:16]
    )


def _heads(bundle: Bundle, keys: dict[str, str], report: Report) -> dict[int, dict[str, Any]]:
    """Heads by sequence, in order, that a key has signed which may."""
    heads: dict[int, dict[str, Any]] = {}
    last, oldest_key = 0, 0
    order = list(keys)
    listed = {record["key"] for record in bundle.records(KEYS) if isinstance(record, dict)}
    for record in bundle.records(HEADS):
        sequence = record["sequence"] if isinstance(record, dict) else last
        if isinstance(record, Unreadable) or not _is_head(record):
            at = sequence if isinstance(sequence, int) else last
            report.found(at, "head", f"a head is none: {str(record)[:200]}")
            continue
        if record["key"] not in keys:
            if record["key"] in listed and keys:  # older than the key that is trusted
                report.heads_not_counted += 1
            else:
                report.found(sequence, "head", f"nobody knows its key {record['key']}")
        elif sequence <= last:
            report.found(sequence, "head", f"it stands behind the head at {last}")
        elif order.index(record["key"]) < oldest_key:
            report.found(sequence, "head", "its key had been replaced by then")
        elif report.log not in ("", record["log"]):
            report.found(sequence, "head", "it is of another log")
        elif not _signed(keys[record["key"]], _head_statement(record), record):
            report.found(sequence, "head", "its signature does not hold")
        else:
            heads[sequence] = record
            last, oldest_key = sequence, order.index(record["key"])
            report.log = record["log"]
    report.heads = len(heads)
    return heads


def _is_head(record: dict[str, Any]) -> bool:
    sequence = record["sequence"]
    return (
        isinstance(sequence, int)
        and not isinstance(sequence, bool)
        and sequence > 0
        and _texts({name: value for name, value in record.items() if name != "sequence"})
        and _hexadecimal(record["log"], 64)
        and _hexadecimal(record["hash"], 64)
    )


def _head_statement(record: dict[str, Any]) -> bytes:
    return _statement("head", record, "log", "sequence", "hash", "time", "key")


def _events(
    bundle: Bundle, heads: dict[int, dict[str, Any]], named: dict[int, set[str]], report: Report
) -> None:
    """Compute the chain again, and see that it is at every head what was signed."""
    chain = claimed = START  # what is computed; what the lines say of themselves
    last, broken, waiting = 0, False, sorted(heads)
    for place, record in enumerate(bundle.records(EVENTS)):
        try:
            event = _event(record)
        except Unreadable as error:
            if not broken:
                report.found(last + 1, "unreadable", str(error))
            broken = True
            continue
        if not report.first:
            chain, last = _beginning(event, heads, waiting, report)
            claimed = chain
        chain = event.hashed(chain)
        stands = event.sequence > last and event.hashed(claimed) == event.hash
        if not broken and not (stands and event.data_holds):
            broken = True
            ahead = islice(bundle.records(EVENTS), place, place + LOOKED_AHEAD)
            report.findings.append(_in_what_way(claimed, last, _readable(ahead)))
        elif not broken and 0 < last < event.sequence - 1:
            report.gaps.append((last + 1, event.sequence - 1))
        claimed = event.hash
        last = max(last, event.sequence)
        _count(event, named, report)
        _pass_heads(event.sequence, chain, heads, waiting, report, broken=broken)
    report.last = last
    _end(last, heads, waiting, report, broken=broken)


def _beginning(
    event: Event, heads: dict[int, dict[str, Any]], waiting: list[int], report: Report
) -> tuple[bytes, int]:
    """Hash and sequence before the first event: those of the head before it, or the log's start."""
    report.first = event.sequence
    if waiting and waiting[0] < event.sequence:
        before = waiting.pop(0)
        report.proven, report.proven_at = before, heads[before]["time"]
        return bytes.fromhex(heads[before]["hash"]), before
    if event.hashed(START) == event.hash and event.hash.hex() != report.log:
        report.found(event.sequence, "changed", "it is not the first event of what was signed")
    return START, 0


def _pass_heads(
    sequence: int,
    chain: bytes,
    heads: dict[int, dict[str, Any]],
    waiting: list[int],
    report: Report,
    *,
    broken: bool,
) -> None:
    report.unsigned += 1
    while waiting and waiting[0] <= sequence:
        at = waiting.pop(0)
        if broken:
            continue
        if at != sequence:
            report.found(at, "missing", f"there is a head at event {at}, which is not there")
        elif chain.hex() != heads[at]["hash"]:
            report.found(
                report.proven + 1,
                "changed",
                f"somewhere between event {report.proven + 1} and event {at}: the hashes were "
                "computed anew, and are not what was signed",
            )
        elif not report.findings or min(f.sequence for f in report.findings) > at:
            report.proven, report.proven_at = at, heads[at]["time"]
            report.unsigned = 0


def _end(
    last: int,
    heads: dict[int, dict[str, Any]],
    waiting: list[int],
    report: Report,
    *,
    broken: bool,
) -> None:
    if waiting and not broken:
        at = waiting[-1]
        report.found(last + 1, "missing", f"it ends with event {last}, and {at} was signed")
    if not heads and not any(finding.way == "head" for finding in report.findings):
        report.found(last, "head", "nothing in it was signed")


def _in_what_way(previous: bytes, last: int, ahead: list[Event]) -> Finding:
    """Say what became of the event behind ``last``, given the lines from there on."""
    event, later = ahead[0], ahead[1:]
    at = event.sequence
    if at <= last:
        return Finding(at, "inserted", f"it stands behind event {last}")
    if lower := [each.sequence for each in later if last < each.sequence < at]:
        return Finding(min(lower), "reordered", f"it stands behind event {at}")
    for each in later:
        if each.hashed(previous, at) in (event.hash, each.hash) and each.data_holds:
            if each is later[0] and each.hashed(previous, at) == each.hash:
                return Finding(at, "inserted", "what stands behind it belongs in its place")
            return Finding(at, "reordered", f"what stands at {each.sequence} belongs there")
    if later and later[0].hashed(previous) == later[0].hash:
        return Finding(at, "inserted", "what stands behind it follows on what stands before it")
    if later and later[0].hashed(event.hash, later[0].sequence + 1) == later[0].hash:
        return Finding(at, "missing", "it was taken out, and those behind it moved up")
    follows = not later or later[0].hashed(event.hash) == later[0].hash
    if at > last + 1 and event.data_holds and follows:
        missing = f"{last + 1} to {at - 1} are" if at > last + 2 else f"{last + 1} is"
        return Finding(last + 1, "missing", f"{missing} not there")
    return _changed(event)


def _changed(event: Event) -> Finding:
    at = event.sequence
    if not event.data_holds:
        return Finding(at, "changed", "its data is not what was hashed")
    if not _subject_fits(event):
        return Finding(at, "subject changed", f"it does not fit {event.header(b'ce-subject')}")
    return Finding(at, "header changed", "its headers or its hash are not what they were")


def _subject_fits(event: Event) -> bool:
    return event.subject.decode("utf-8", "replace").split(".")[2:] == event.header(
        b"ce-subject"
    ).split("/")


def _event(record: dict[str, Any] | Unreadable) -> Event:
    if isinstance(record, Unreadable):
        raise record
    sequence = record["sequence"]
    if isinstance(sequence, bool) or not isinstance(sequence, int) or not 0 < sequence < 2**63:
        raise Unreadable(f"{str(sequence)[:40]} is no sequence")
    if not _hexadecimal(record["hash"], 64) or not _hexadecimal(record["data_sha256"], 64):
        raise Unreadable(f"event {sequence}: a hash is none")
    headers = record["headers"]
    if not isinstance(headers, list) or any(
        not isinstance(pair, list) or len(pair) != 2 for pair in headers
    ):
        raise Unreadable(f"event {sequence}: its headers are no pairs")
    try:
        pairs = [(_bytes(name), _bytes(value)) for name, value in headers]
        data = None if record["data"] is None else _bytes(record["data"])
        return Event(
            sequence,
            bytes.fromhex(record["hash"]),
            _bytes(record["subject"]),
            pairs,
            bytes.fromhex(record["data_sha256"]),
            data,
        )
    except ValueError as error:
        raise Unreadable(f"event {sequence}: {error}") from error


def _readable(records: Iterator[dict[str, Any] | Unreadable]) -> list[Event]:
    events = []
    for record in records:
        with suppress(Unreadable):
            events.append(_event(record))
    return events


def _bytes(value: object) -> bytes:
    """Text as UTF-8; bytes that are none stand as an object with ``base64``."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and set(value) == {"base64"} and isinstance(value["base64"], str):
        return base64.b64decode(value["base64"], validate=True)
    raise ValueError(f"{str(value)[:40]} is neither text nor base64")


def _count(event: Event, named: dict[int, set[str]], report: Report) -> None:
    report.events += 1
    report.withheld += event.data is None
    report.types[event.header(b"ce-type")] += 1
    report.actors[event.header(b"ce-actor")] += 1
    for sha256 in named.get(event.sequence, ()):
        if event.data is not None and sha256.encode() not in event.data:
            report.found(event.sequence, "blob", f"it does not name blob {sha256}")


def _blobs_named(bundle: Bundle, report: Report) -> dict[int, set[str]]:
    """The blobs that each event is said to name."""
    named: dict[int, set[str]] = {}
    for record in bundle.records(BLOBS) if bundle.has(BLOBS) else ():
        sequence = record["sequence"] if isinstance(record, dict) else 0
        if (
            isinstance(record, Unreadable)
            or not isinstance(sequence, int)
            or not _hexadecimal(record["sha256"], 64)
        ):
            report.found(0, "blob", f"{str(record)[:200]} names no blob")
            continue
        named.setdefault(sequence, set()).add(record["sha256"])
        report.blobs += 1
    return named


def _blobs_enclosed(bundle: Bundle, named: dict[int, set[str]], report: Report) -> None:
    for sequence, blobs in named.items():
        for sha256 in blobs:
            name = f"blobs/{sha256}"
            if bundle.has(name):
                digest = hashlib.sha256()
                with bundle.open(name) as file:
                    while chunk := file.read(1 << 20):
                        digest.update(chunk)
                if digest.hexdigest() != sha256:
                    report.found(sequence, "blob", f"{name} does not hold what its name says")


def _summary(bundle: Bundle, report: Report) -> None:
    """What people read must not say anything else."""
    if not bundle.has(SUMMARY):
        return
    with bundle.open(SUMMARY) as file:
        try:
            told = json.load(file)
            same = (told["events"], told["first"], told["last"]) == (
                report.events,
                report.first,
                report.last,
            ) and (told["types"], told["actors"]) == (dict(report.types), dict(report.actors))
        except (ValueError, KeyError, TypeError):
            same = False
    if not same:
        at = report.last + 1
        report.found(at, "summary", f"{SUMMARY} does not say what the events say")


def _statement(kind: str, record: dict[str, Any], *names: str) -> bytes:
    """The lines that were signed."""
    words = {"public_key": "public"}
    lines = [f"finetrail {kind} 1", *(f"{words.get(name, name)} {record[name]}" for name in names)]
    return "".join(f"{line}\n" for line in lines).encode()


def _signed(public: str, statement: bytes, record: dict[str, Any]) -> bool:
    signature = record["signature"]
    return _hexadecimal(signature, 128) and verifies(
        bytes.fromhex(public), statement, bytes.fromhex(signature)
    )


def _sized(value: bytes) -> tuple[bytes, bytes]:
    return len(value).to_bytes(4, "big"), value


def _hexadecimal(value: object, digits: int) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(f"[0-9a-f]{{{digits}}}", value))


def _texts(record: dict[str, Any]) -> bool:
    """Whether all values are texts of one line: what is signed must not be read in two ways."""
    return all(isinstance(value, str) and value.isprintable() for value in record.values())


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a name stands there twice")
    return record


def _twice(names: Sequence[str]) -> str:
    return next(name for name, count in Counter(names).items() if count > 1)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise NoBundle(f"{path} is no bundle: {error}") from error


def verifies(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether an Ed25519 signature holds, by a library if there is one."""
    with suppress(ImportError):
        from nacl.exceptions import BadSignatureError  # noqa: PLC0415 - there may be none
        from nacl.signing import VerifyKey  # noqa: PLC0415

        try:
            VerifyKey(public).verify(message, signature)
        except BadSignatureError:
            return False
        return True
    return ed25519_verifies(public, message, signature)


# Ed25519 by RFC 8032, section 5.1.7, on points (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z.
Point = tuple[int, int, int, int]
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT = pow(2, (P - 1) // 4, P)  # of -1


def ed25519_verifies(public: bytes, message: bytes, signature: bytes) -> bool:
    key, r = _point(public), _point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if key is None or r is None or s >= ORDER or len(signature) != 64:
        return False
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    left = _times(s, BASE)
    right = _plus(r, _times(int.from_bytes(digest, "little") % ORDER, key))
    return (left[0] * right[2] - right[0] * left[2]) % P == 0 and (
        left[1] * right[2] - right[1] * left[2]
    ) % P == 0


def _point(encoded: bytes) -> Point | None:
    number = int.from_bytes(encoded, "little")
    y, sign = number & ((1 << 255) - 1), number >> 255
    if len(encoded) != 32 or y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


def _plus(one: Point, other: Point) -> Point:
    a = (one[1] - one[0]) * (other[1] - other[0]) % P
    b = (one[1] + one[0]) * (other[1] + other[0]) % P
    c = 2 * one[3] * other[3] * D % P
    d = 2 * one[2] * other[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(factor: int, point: Point) -> Point:
    result: Point = (0, 1, 1, 0)
    while factor:
        if factor & 1:
            result = _plus(result, point)
        point = _plus(point, point)
        factor >>= 1
    return result


_BASE = _point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
BASE: Point = _BASE if _BASE is not None else (0, 1, 1, 0)


def told(report: Report) -> str:
    """What was found, for a person."""
    period = f"events {report.first} to {report.last}: {report.events:,}"
    lines = [
        period + (f", of which {report.withheld:,} without their data" if report.withheld else ""),
        f"log {report.log or 'unknown'}",
        *(f"signed with key {key}" for key in report.keys),
        f"heads that hold: {report.heads:,}",
    ]
    if report.heads_not_counted:
        lines.append(f"heads of keys that you do not trust: {report.heads_not_counted:,}")
    if report.gaps:
        shown = ", ".join(f"{a} to {b}" if a < b else str(a) for a, b in report.gaps[:10])
        lines.append(f"sequences that the log does not have: {shown}")
    if report.proven:
        lines.append(f"proven: everything up to event {report.proven}, signed {report.proven_at}")
    if report.unsigned and not report.findings:
        lines.append(f"not signed yet: {report.unsigned:,} events behind it")
    lines += [
        f"DOES NOT HOLD: event {finding.sequence}, {finding.way}: {finding.detail}"
        for finding in report.findings[:10]
    ]
    lines.append("It holds." if report.holds else "It does not hold.")
    return "\n".join(lines) + "\n"


def facts(report: Report) -> dict[str, Any]:
    """What was found, for a program."""
    found = {name: value for name, value in vars(report).items() if name != "findings"}
    return {
        **found,
        "types": dict(report.types),
        "actors": dict(report.actors),
        "holds": report.holds,
        "findings": [vars(finding) for finding in report.findings],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check an evidence bundle of Finetrail.")
    parser.add_argument("bundle", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("--key", action="append", default=[], help="A key that you trust.")
    parser.add_argument("--json", action="store_true", help="One JSON object.")
    given = parser.parse_args(arguments)
    try:
        report = verify(given.bundle, given.key)
    except (NoBundle, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(json.dumps(facts(report)) + "\n" if given.json else told(report))
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
