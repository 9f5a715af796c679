"""Whether a receiver was told everything, and whether what lies on a disk is counted where it belongs."""

from pathlib import Path
from typing import Any
from uuid import UUID

from domain.webhooks.messages import message_id
from tests.soak.hooks import Hook, Told, missed
from tests.soak.sampling import files_of

JOBS = Hook(UUID(int=1), ("job.*",), added=1)
JOB, OTHER = str(UUID(int=2)), str(UUID(int=3))


def event(sequence: int, thing: str = JOB, aggregate: str = "job") -> dict[str, Any]:
    name = {"job": "JobCancelled", "dataset": "DatasetDeleted"}[aggregate]
    return {
        "id": str(UUID(int=100 + sequence)),
        "sequence": sequence,
        "aggregate": aggregate,
        "aggregate_id": thing,
        "type": name,
    }


def told(*sequences: int) -> list[Told]:
    return [Told(message_id(JOBS.id, UUID(int=100 + n)), n, JOB) for n in sequences]


def test_an_event_that_was_not_delivered_is_named() -> None:
    events = [event(1), event(2), event(3, aggregate="dataset"), event(4)]

    assert missed(JOBS, events, told(2, 4)) == []
    assert missed(JOBS, events, told(2)) == ["JobCancelled at 4 was not delivered"]


def test_the_first_deliveries_of_one_thing_must_be_in_order_and_repeats_may_come() -> None:
    events = [event(2), event(3, OTHER), event(4)]

    assert missed(JOBS, events, told(3, 2, 4, 2)) == []
    (wrong,) = missed(JOBS, events, told(4, 3, 2, 4))
    assert wrong == f"what happened to job {JOB} was not delivered in order"


def test_files_that_should_not_last_are_counted_and_others_by_their_bytes(tmp_path: Path) -> None:
    data, scratch = tmp_path / "data", tmp_path / "scratch"
    for name in (
        "blobs/tmp/half",
        "blobs/sha256/ab/cd/whole",
        "agent/lock",
        "agent/serving/version/adapter",
        "agent/0192/rows.csv",
        "postgres/pg_wal/0001",
        "postgres/base/1",
    ):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(b"12345")
    scratch.mkdir()
    (scratch / "left").write_bytes(b"")

    found = files_of(data, scratch)

    assert (found["unfinished blobs"], found["attempt files"], found["temporary files"]) == (
        1,
        1,
        1,
    )
    assert (found["wal bytes"], found["postgres bytes"], found["blobs bytes"]) == (5, 5, 10)
    assert found["served adapters"] == 1
