"""What a person reads first in an evidence bundle."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from domain.audit import Head, Key
from finetrail.render import clean

if TYPE_CHECKING:
    from finetrail.audit.bundle import Contents

SHOWN: Final = 40  # types or actors that are listed

_TEXT: Final = """\
Evidence of what happened
=========================

This is a part of the event log of a Finetrail installation, made {made_at}.

  events     {first} to {last} ({events:,} of them)
  period     {began} to {ended}
  log        {log}
  signed     {signed}

Events behind the last head are not proven yet. {data}

How to check it
---------------

    python verify.py --key KEY

where KEY is the key of this installation, which its owner has told you by another way than this file
(`finetrail audit key` shows it). It needs Python 3.10 or newer, asks no server, and names the first event
that is not as it was signed. Whoever has given you this file could have changed verify.py too: take that
from Finetrail's source (finetrail/audit/offline.py), or write your own by the description below.

{keys}

What is in it
-------------

  events.jsonl   the events as they were chained, one JSON object a line
  heads.jsonl    what was signed; the first line may be the head before the first event
  keys.jsonl     the public keys; each is signed by one before it, the first by itself
  blobs.jsonl    the files that the events name, by SHA-256
  blobs/         those files themselves, if they were asked for
  summary.json   the figures of this page
  verify.py      the verifier

How it is computed
------------------

Numbers are unsigned and big-endian, u32 of 4 bytes and u64 of 8. Text is UTF-8. Bytes that are no UTF-8
stand in the JSON as {{"base64": "..."}}. The hash of an event is the SHA-256 of

  "finetrail event 1" and a line feed (18 bytes)
  the hash of the event before it (32 bytes; zeros before the first one)
  u64 sequence
  u32 length of the subject, the subject
  u32 number of headers, then for each of them, in the order of the line:
    u32 length of the name, the name, u32 length of the value, the value
  the SHA-256 of the data (32 bytes)

A head is an Ed25519 signature of these lines, each ended by a line feed:

  finetrail head 1
  log <the hash of the log's first event, in hexadecimal digits>
  sequence <decimal>
  hash <the hash of the event with this sequence>
  time <as in the record>
  key <the first 16 hexadecimal digits of the SHA-256 of the public key>

and a key one, by the key that it names last, of

  finetrail key 1
  key <its id>
  public <its 32 bytes, in hexadecimal digits>
  time <as in the record>
  by <id of the key that has signed this>

Events by type
--------------

{types}

Events by actor
---------------

{actors}
"""


def readme(
    contents: "Contents", heads: Sequence[Head], keys: Sequence[Key], made_at: datetime
) -> str:
    personal = (
        "The data of the events may be personal:\nnames, texts and addresses of people stand in it as "
        "they were written. Give this file to nobody\nwho must not see them, or make one with "
        "`finetrail audit export --without-data`."
    )
    withheld = (
        "The data of the events was left out; its\nSHA-256 stands in its place. The headers still say "
        "who acted."
    )
    last = heads[-1] if heads else None
    return _TEXT.format(
        made_at=made_at.isoformat(timespec="seconds"),
        first=contents.first,
        last=contents.last,
        events=contents.events,
        began=contents.began,
        ended=contents.ended,
        log=last.log if last else "not signed yet",
        signed=f"up to event {last.sequence}, at {last.time}" if last else "not yet",
        data=withheld if contents.withheld else personal,
        keys="\n".join(f"  key {key.key}, public key {key.public_key}" for key in keys),
        types=_counts(contents.types),
        actors=_counts(contents.actors),
    )


def _counts(counts: Counter[str]) -> str:
    lines = [f"  {count:>9,}  {clean(name)}" for name, count in counts.most_common(SHOWN)]
    if len(counts) > SHOWN:
        lines.append(f"  and {len(counts) - SHOWN} more, in summary.json")
    return "\n".join(lines)
