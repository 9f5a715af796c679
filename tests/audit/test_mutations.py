"""Whatever is done to the events of a bundle below its last head, the verifier finds it and says where."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from domain.audit import key_id
from finetrail.audit import offline
from tests.audit.bundles import FIRST, SECOND, STRANGER, Files, bundle, head_of, key_of

LAST_HEAD = 100  # of the bundle; of 107 events
EACH = 12  # mutations of every kind
ROOT_KEY = key_id(bytes(FIRST.verify_key))


@dataclass(frozen=True)
class Done:
    """What was done, and what the verifier has to say of it at the least."""

    sequences: range  # one of which has to be named
    ways: frozenset[str]
    keys: tuple[str, ...] = ()


Mutation = Callable[[Files, random.Random], Done]


def at(sequence: int, *ways: str) -> Done:
    return Done(range(sequence, sequence + 1), frozenset(ways))


def anew(files: Files, place: int, *ways: str) -> Done:
    """Hide a change by computing all hashes behind it again: the heads still tell, from one to the next."""
    files.hash_anew(place)
    sequence = files.events[min(place, len(files.events) - 1)]["sequence"]
    before = max([head["sequence"] for head in files.heads if head["sequence"] < sequence] or [0])
    return Done(range(before + 1, sequence + 1), frozenset({"changed", "missing", *ways}))


def pick(files: Files, some: random.Random, *, first: int = 0) -> int:
    """The place of an event that was signed, with signed ones behind it."""
    return some.randrange(first, LAST_HEAD - 2)


def changed_data(files: Files, some: random.Random) -> Done:
    event = files.events[pick(files, some)]
    spot = some.randrange(len(event["data"]))
    letter = chr(ord(event["data"][spot]) ^ 1)
    event["data"] = event["data"][:spot] + letter + event["data"][spot + 1 :]
    return at(event["sequence"], "changed")


def changed_data_and_its_digest(files: Files, some: random.Random) -> Done:
    place = pick(files, some)
    event = files.events[place]
    event["data"] += " "
    copied = files.copy()
    copied.hash_anew(place)
    event["data_sha256"] = copied.events[place]["data_sha256"]
    return at(event["sequence"], "header changed")


def changed_header(files: Files, some: random.Random) -> Done:
    event = files.events[pick(files, some)]
    header = some.choice(event["headers"])
    header[1] += some.choice(["0", " ", "\x00"])
    return at(event["sequence"], "header changed", "subject changed")


def renamed_header(files: Files, some: random.Random) -> Done:
    event = files.events[pick(files, some)]
    some.choice(event["headers"])[0] += "x"
    return at(event["sequence"], "header changed", "subject changed")


def dropped_header(files: Files, some: random.Random) -> Done:
    event = files.events[pick(files, some)]
    event["headers"].pop(some.randrange(len(event["headers"])))
    return at(event["sequence"], "header changed", "subject changed")


def added_header(files: Files, some: random.Random) -> Done:
    event = files.events[pick(files, some)]
    event["headers"].insert(some.randrange(len(event["headers"])), ["ce-actor", "key:someone"])
    return at(event["sequence"], "header changed")


def swapped_headers(files: Files, some: random.Random) -> Done:
    event = files.events[pick(files, some)]
    one, other = some.sample(range(len(event["headers"])), 2)
    values = event["headers"]
    values[one], values[other] = values[other], values[one]
    return at(event["sequence"], "header changed")


def swapped_values_of_headers(files: Files, some: random.Random) -> Done:
    event = files.events[pick(files, some)]
    by_name = {name: place for place, (name, _) in enumerate(event["headers"])}
    one, other = by_name["ce-id"], by_name["ce-correlationid"]
    values = event["headers"]
    values[one][1], values[other][1] = values[other][1], values[one][1]
    return at(event["sequence"], "header changed")


def moved_bytes_from_header_to_data(files: Files, some: random.Random) -> Done:
    event = files.events[pick(files, some)]
    header = some.choice(event["headers"])
    count = some.randrange(1, len(header[1]) + 1)
    event["data"] = header[1][-count:] + event["data"]
    header[1] = header[1][:-count]
    return at(event["sequence"], "changed")


def moved_bytes_from_data_to_header(files: Files, some: random.Random) -> Done:
    event = files.events[pick(files, some)]
    count = some.randrange(1, 10)
    event["headers"][-1][1] += event["data"][:count]
    event["data"] = event["data"][count:]
    return at(event["sequence"], "changed")


def moved_bytes_between_name_and_value(files: Files, some: random.Random) -> Done:
    event = files.events[pick(files, some)]
    header = some.choice(event["headers"])
    header[0], header[1] = header[0] + header[1][0], header[1][1:]
    return at(event["sequence"], "header changed", "subject changed")


def changed_subject(files: Files, some: random.Random) -> Done:
    event = files.events[pick(files, some)]
    event["subject"] = event["subject"].replace("default", "other") + some.choice(["", "1"])
    return at(event["sequence"], "subject changed", "header changed")


def changed_hash(files: Files, some: random.Random) -> Done:
    event = files.events[pick(files, some)]
    event["hash"] = f"{some.getrandbits(256):064x}"
    return at(event["sequence"], "header changed", "changed", "subject changed")


def deleted(files: Files, some: random.Random) -> Done:
    gone = files.events.pop(pick(files, some))
    return at(gone["sequence"], "missing")


def deleted_a_run(files: Files, some: random.Random) -> Done:
    place, count = pick(files, some), some.randrange(2, 20)
    first = files.events[place]["sequence"]
    del files.events[place : min(place + count, LAST_HEAD - 1)]
    return at(first, "missing")


def deleted_and_closed_the_gap(files: Files, some: random.Random) -> Done:
    place = pick(files, some, first=1)
    gone = files.events.pop(place)
    for event in files.events[place:]:
        event["sequence"] -= 1
    return at(gone["sequence"], "missing")


def inserted_a_copy(files: Files, some: random.Random) -> Done:
    place = pick(files, some)
    copied = dict(some.choice(files.events), sequence=files.events[place]["sequence"])
    files.events.insert(place, copied)
    return at(copied["sequence"], "inserted", "reordered")


def inserted_and_made_room(files: Files, some: random.Random) -> Done:
    place = pick(files, some)
    source = some.choice(files.events)
    copied = dict(source, sequence=files.events[place]["sequence"], data='{"forged":true}')
    for event in files.events[place:]:
        event["sequence"] += 1
    files.events.insert(place, copied)
    return at(copied["sequence"], "inserted", "changed")


def swapped_lines(files: Files, some: random.Random) -> Done:
    one, other = sorted(some.sample(range(LAST_HEAD), 2))
    events = files.events
    first = events[one]["sequence"]
    events[one], events[other] = events[other], events[one]
    return Done(range(first, first + 2), frozenset({"reordered"}))


def swapped_contents(files: Files, some: random.Random) -> Done:
    one, other = sorted(some.sample(range(LAST_HEAD), 2))
    events = files.events
    for name in ("subject", "headers", "data", "data_sha256"):
        events[one][name], events[other][name] = events[other][name], events[one][name]
    return at(events[one]["sequence"], "reordered")


def swapped_contents_and_hashes(files: Files, some: random.Random) -> Done:
    one, other = sorted(some.sample(range(LAST_HEAD), 2))
    events = files.events
    for name in ("subject", "headers", "data", "data_sha256", "hash"):
        events[one][name], events[other][name] = events[other][name], events[one][name]
    return at(events[one]["sequence"], "reordered", "header changed")


def changed_and_hashed_anew(files: Files, some: random.Random) -> Done:
    place = pick(files, some)
    files.events[place]["data"] += " "
    return anew(files, place)


def changed_actor_and_hashed_anew(files: Files, some: random.Random) -> Done:
    place = pick(files, some)
    files.events[place]["headers"][0][1] = "key:somebody"
    return anew(files, place)


def deleted_and_hashed_anew(files: Files, some: random.Random) -> Done:
    place = pick(files, some)
    files.events.pop(place)
    for event in files.events[place:]:
        event["sequence"] -= 1
    return anew(files, place)


def reordered_and_hashed_anew(files: Files, some: random.Random) -> Done:
    one = pick(files, some)
    events = files.events
    for name in ("subject", "headers", "data"):
        events[one][name], events[one + 1][name] = events[one + 1][name], events[one][name]
    return anew(files, one)


def inserted_and_hashed_anew(files: Files, some: random.Random) -> Done:
    place = pick(files, some)
    copied = dict(some.choice(files.events), sequence=files.events[place]["sequence"])
    for event in files.events[place:]:
        event["sequence"] += 1
    files.events.insert(place, copied)
    return anew(files, place)


def cut_off_the_end(files: Files, some: random.Random) -> Done:
    place = some.randrange(1, LAST_HEAD)
    first = files.events[place]["sequence"]
    del files.events[place:]
    return at(first, "missing")


def cut_off_the_beginning(files: Files, some: random.Random) -> Done:
    # Exactly the first 20, and what is left is a bundle that begins behind the head at 20.
    count = some.choice([n for n in range(1, LAST_HEAD - 1) if n != 20])
    del files.events[:count]
    return at(1 if count < 20 else 21, "missing")


def head_with_another_hash(files: Files, some: random.Random) -> Done:
    head = some.choice(files.heads)
    head["hash"] = f"{some.getrandbits(256):064x}"
    return at(head["sequence"], "head")


def head_of_another_event(files: Files, some: random.Random) -> Done:
    head = some.choice(files.heads)
    was, head["sequence"] = head["sequence"], head["sequence"] + some.choice([-1, 1])
    return Done(
        range(min(was, head["sequence"]), max(was, head["sequence"]) + 1), frozenset({"head"})
    )


def head_with_another_time(files: Files, some: random.Random) -> Done:
    head = some.choice(files.heads)
    head["time"] = head["time"].replace("2026", "2025")
    return at(head["sequence"], "head")


def head_signed_by_a_stranger(files: Files, some: random.Random) -> Done:
    place = some.randrange(len(files.heads))
    head = files.heads[place]
    files.heads[place] = head_of(STRANGER, head["log"], head["sequence"], head["hash"]).record()
    return at(head["sequence"], "head")


def head_signed_by_a_stranger_in_the_name_of_a_key(files: Files, some: random.Random) -> Done:
    head = some.choice(files.heads)
    other = head_of(STRANGER, head["log"], head["sequence"], head["hash"])
    head["signature"] = other.signature
    return at(head["sequence"], "head")


def head_signed_by_a_replaced_key(files: Files, some: random.Random) -> Done:
    place = len(files.heads) - 1
    head = files.heads[place]
    files.heads[place] = head_of(FIRST, head["log"], head["sequence"], head["hash"]).record()
    return at(head["sequence"], "head")


def head_replaced_by_another(files: Files, some: random.Random) -> Done:
    one, other = sorted(some.sample(range(len(files.heads)), 2))
    files.heads[other] = dict(files.heads[one])
    return at(files.heads[one]["sequence"], "head")


def events_and_heads_made_by_a_stranger_who_vouches_for_himself(
    files: Files, some: random.Random
) -> Done:
    place = pick(files, some)
    files.events[place]["data"] += " "
    files.hash_anew(place)
    hashes = {event["sequence"]: event["hash"] for event in files.events}
    log = files.events[0]["hash"]
    files.heads = [
        head_of(STRANGER, log, head["sequence"], hashes[head["sequence"]]).record()
        for head in files.heads
    ]
    files.keys = [key_of(STRANGER, STRANGER).record()]
    return Done(range(1), frozenset({"key"}), keys=(ROOT_KEY,))


def key_that_a_stranger_has_vouched_for(files: Files, some: random.Random) -> Done:
    files.keys[1] = key_of(SECOND, STRANGER).record()
    return Done(range(1), frozenset({"key"}))


def key_with_other_bytes(files: Files, some: random.Random) -> Done:
    files.keys[some.randrange(2)]["public_key"] = bytes(STRANGER.verify_key).hex()
    return Done(range(1), frozenset({"key"}))


MUTATIONS: list[Mutation] = [
    value
    for name, value in sorted(globals().items())
    if callable(value) and getattr(value, "__annotations__", {}).get("return") is Done
    if name not in {"at", "anew", "Done"}
]
ONE = bundle()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.__name__)
def test_a_bundle_that_was_tampered_with_does_not_hold(mutation: Mutation, tmp_path: Path) -> None:
    for seed in range(EACH):
        files = ONE.copy()
        done = mutation(files, random.Random(f"{mutation.__name__} {seed}"))
        if files == ONE:
            continue  # two headers of one value

        report = offline.verify(files.write(tmp_path / "bundle.zip"), done.keys)

        assert not report.holds, seed
        first = report.findings[0]
        assert first.sequence in done.sequences, (seed, first, done)
        assert first.way in done.ways, (seed, first, done)
        assert report.proven < max(done.sequences.stop, 1), (seed, report.proven, done)


def test_there_are_hundreds_of_mutations_of_dozens_of_kinds() -> None:
    assert len(MUTATIONS) >= 35
    assert len(MUTATIONS) * EACH > 400


def test_what_nobody_has_touched_holds(tmp_path: Path) -> None:
    report = offline.verify(ONE.write(tmp_path / "bundle.zip"), [ROOT_KEY])

    assert report.holds
    assert (report.proven, report.unsigned, report.heads) == (LAST_HEAD, 7, 5)


def test_behind_the_last_head_nothing_is_proven_and_that_is_said(tmp_path: Path) -> None:
    files = ONE.copy()
    files.events[LAST_HEAD]["data"] += " "
    files.hash_anew(LAST_HEAD)

    report = offline.verify(files.write(tmp_path / "bundle.zip"))

    assert report.holds
    assert (report.proven, report.unsigned) == (LAST_HEAD, 7)
    assert "not signed yet: 7 events" in offline.told(report)


@pytest.mark.parametrize("seed", range(10))
def test_any_bit_of_any_event_counts(seed: int, tmp_path: Path) -> None:
    some = random.Random(seed)
    folder = tmp_path / "bundle"
    folder.mkdir()
    lines = ONE.write(tmp_path / "bundle.zip")
    unpacked = offline.Bundle(lines)
    for name in ("events.jsonl", "heads.jsonl", "keys.jsonl"):
        with unpacked.open(name) as file:
            (folder / name).write_bytes(file.read())
    events = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    signed = b"".join(events[:LAST_HEAD])
    for _ in range(20):
        spot = some.randrange(len(signed))
        flipped = bytes([signed[spot] ^ (1 << some.randrange(8))])
        mutated = signed[:spot] + flipped + signed[spot + 1 :]
        (folder / "events.jsonl").write_bytes(mutated + b"".join(events[LAST_HEAD:]))

        report = offline.verify(folder)

        assert not report.holds or _same(mutated, signed), (seed, spot)


def _same(one: bytes, other: bytes) -> bool:
    """Whether they are the same JSON: a blank or an escape says nothing."""
    import json

    def read(text: bytes) -> list[Any]:
        return [json.loads(line) for line in text.splitlines()]

    try:
        return read(one) == read(other)
    except ValueError:
        return False
