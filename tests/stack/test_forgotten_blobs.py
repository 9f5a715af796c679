"""Blobs of who is forgotten: nobody misses them, and they are collected."""

from typing import Any
from uuid import UUID

import pytest

from domain.blobs import BlobRef
from finetrail.blob_checks import check_all
from finetrail.blob_references import blobs_in
from finetrail.forgotten_blobs import Forgotten
from tests.stack.test_blob_care import Installation, installation

__all__ = ["installation"]  # a fixture
ANA, BEN = (str(UUID(int=n)) for n in (1, 2))


def dataset(blob: BlobRef, person: str | None) -> dict[str, Any]:
    return {"blob": blob.model_dump(), "person_id": person}


async def remember(installation: Installation, blobs: dict[str, BlobRef]) -> None:
    """Datasets, a job on two of them, and an evaluation on Ana's rows."""
    for name, person in (("ana", ANA), ("twice", ANA), ("ben", BEN), ("all", None)):
        await installation.record("DatasetRegistered", dataset(blobs[name], person))
    await installation.record(
        "DatasetRegistered", dataset(blobs["twice"], BEN), "events.default.dataset.other"
    )
    spec = {"train": dataset(blobs["all"], None), "test": dataset(blobs["ana"], ANA)}
    await installation.record("JobSubmitted", {"spec": spec}, "events.default.job.one")
    of = "events.default.evaluation.one"
    await installation.record("EvaluationRequested", {"evaluation_id": "one", "spec": spec}, of)
    outputs = {"evaluation_id": "one", "outputs": blobs["outputs"].model_dump()}
    await installation.record("EvaluationCompleted", outputs, of)
    model = {"spec": spec, "files": [{"path": "a", "blob": blobs["model"].model_dump()}]}
    await installation.record("VersionRegistered", model, "events.default.model_version.one")


@pytest.mark.infra
async def test_blobs_of_who_is_forgotten_are_collected_and_not_missed(
    installation: Installation,
) -> None:
    names = ("ana", "twice", "ben", "all", "outputs", "model")
    blobs = {name: await installation.blob(name.encode()) for name in names}
    await remember(installation, blobs)
    _, before = await installation.cli("blobs", "collect")
    await installation.record("PersonForgotten", {"person_id": ANA}, f"events.default.person.{ANA}")

    _, listed = await installation.cli("blobs", "collect")
    kept = await installation.stored()
    _, done = await installation.cli("blobs", "collect", "--delete")
    (healthy,) = await check_all(installation.settings)

    theirs = {blobs["ana"].sha256, blobs["outputs"].sha256}
    assert before["count"] == 0
    assert {each["sha256"] for each in listed["blobs"]} == theirs
    assert kept == {blob.sha256 for blob in blobs.values()}
    assert done["deleted"]
    assert await installation.stored() == kept - theirs
    assert healthy.ok, healthy.detail


def test_the_same_bytes_are_left_where_they_are_named_for_another_reason() -> None:
    gone = Forgotten(frozenset({ANA}))
    blob = b'{"sha256": "%s", "size": 3, "crc32": 0}' % (b"a" * 64)

    both = b'{"a": {"person_id": "%s", "blob": %s}, "b": {"blob": %s}}' % (ANA.encode(), blob, blob)

    assert [purpose for _, purpose in blobs_in(gone.without_theirs(both))] == ["b.blob"]


@pytest.mark.parametrize("data", [b"no json", b'{"person_id": "somebody"}', b"[]"])
def test_what_says_nothing_of_them_stays_byte_for_byte(data: bytes) -> None:
    assert Forgotten(frozenset({ANA})).without_theirs(data) is data
    assert Forgotten().without_theirs(data) is data
