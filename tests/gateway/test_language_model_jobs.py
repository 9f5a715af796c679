"""Language models over HTTP: what suits the rows, what they were trained on, what is taken home."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from domain.base_models import BaseModelRecord
from domain.blobs import FileEntry
from domain.jobs.commands import ClaimJob, RecordStart
from domain.jobs.spec import TINY
from domain.model_versions.commands import RecordReady, RegisterVersion
from domain.models.commands import CreateModel, NumberVersion
from domain.subjects import derived_id
from gateway.hyperparameters import defaults_table
from tests import samples
from tests.gateway.world import _FIGURES, _RESULT, AGENT, ENVIRONMENT, W, World

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "http-api.md"


def chats(count: int = 20) -> bytes:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"where is parcel {number}?"},
                {"role": "assistant", "content": "delivery"},
            ]
        }
        for number in range(count)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


async def post(world: World, path: str, body: Any) -> Any:
    async with world.client("admin") as client:
        return await client.post(f"/api/v1{path}", json=body)


async def get(world: World, path: str) -> Any:
    async with world.client("viewer") as client:
        answer = await client.get(f"/api/v1{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def submitted(world: World, **asked: Any) -> Any:
    dataset = await world.uploaded(chats(), "chats.jsonl")
    return await post(world, "/jobs", {"model": "support", "dataset_id": dataset["id"]} | asked)


async def started(world: World) -> tuple[dict[str, Any], BaseModelRecord]:
    """A job that has begun, on a base model that was made where it runs."""
    job = (await submitted(world)).json()
    async with world.blobs.writer() as writer:
        await writer.write(b"made here")
        weights = await writer.commit()
    record = BaseModelRecord(
        id=TINY,
        license="apache-2.0",
        parameters=700_000,
        sha256={"model.safetensors": weights.sha256},
        files=(FileEntry(path="base_model/model.safetensors", blob=weights),),
    )
    job_id, agent = UUID(job["id"]), str(AGENT)
    await world.claim(ClaimJob(job_id=job_id, attempt=1, boot_id="boot"))
    start = RecordStart(
        job_id=job_id,
        attempt=1,
        environment=ENVIRONMENT,
        base_model=record,
        supervision=samples.SUPERVISION,
        **_FIGURES,
    )
    await world.decide(start, job_id, agent)
    return job, record


async def registered(world: World) -> None:
    job, record = await started(world)
    found = await world.queries.job(W, UUID(job["id"]))
    assert found is not None
    model_id, version_id = derived_id(W, "model", "support"), UUID(int=12)
    await world.decide(CreateModel(model_id=model_id, name="support", base_model=TINY), model_id)
    number = NumberVersion(model_id=model_id, version_id=version_id, job_id=UUID(job["id"]))
    await world.decide(number, model_id)
    register = RegisterVersion(
        version_id=version_id,
        model_id=model_id,
        model_name="support",
        number=1,
        label="20261120-174305",
        job_id=UUID(job["id"]),
        spec=found.row.spec,
        environment=ENVIRONMENT,
        base_model=record,
        files=await world._adapter(),
        **_RESULT | {"labels": ()},
    )
    await world.decide(register, version_id)
    await world.decide(RecordReady(version_id=version_id), version_id)


async def test_a_job_is_answered_with_the_method_and_base_model_that_suit_its_rows(
    world: World,
) -> None:
    answer = await submitted(world, hyperparameters={"lora": {"rank": 4}})

    job = answer.json()
    assert answer.status_code == 202
    assert (job["method"], job["base_model"]) == ("sft", TINY)
    assert job["spec"]["hyperparameters"]["lora"]["rank"] == 4
    assert job["spec"]["hyperparameters"]["lora"]["alpha"] == 32
    assert (job["base_model_record"], job["supervision"]) == (None, None)


async def test_until_it_is_decided_only_what_was_asked_is_known(world: World) -> None:
    dataset = await world.uploaded(chats(), "chats.jsonl")
    world.bus.silent = True

    answer = await post(world, "/jobs", {"model": "support", "dataset_id": dataset["id"]})

    job = answer.json()
    assert answer.status_code == 202
    assert (job["method"], job["base_model"]) == (None, None)
    assert "safe" in job["note"]


@pytest.mark.parametrize(
    "asked", [{"method": "sequence_classification"}, {"base_model": "finetrail/minilm"}]
)
async def test_a_method_that_does_not_suit_is_refused_with_the_reason(
    world: World, asked: dict[str, str]
) -> None:
    answer = await submitted(world, **asked)

    assert (answer.status_code, answer.json()["code"]) == (409, "method_unfit")
    assert asked.popitem()[1] in answer.json()["detail"]


async def test_a_started_job_says_what_it_stands_on_and_what_it_learns(world: World) -> None:
    job, record = await started(world)

    shown = await get(world, f"/jobs/{job['id']}")

    assert shown["base_model_record"] == {
        "id": TINY,
        "revision": None,
        "license": "apache-2.0",
        "parameters": 700_000,
        "sha256": record.sha256,
        "stored": True,
    }
    assert shown["supervision"] == samples.SUPERVISION.model_dump(mode="json")


async def test_a_version_names_its_method_and_its_base_model_to_the_byte(world: World) -> None:
    await registered(world)

    version = await get(world, "/models/support/versions/1")

    assert (version["method"], version["base_model"]) == ("sft", TINY)
    assert version["lineage"]["base_model_record"]["stored"]
    assert version["labels"] == []


async def test_a_base_model_that_can_be_had_from_nowhere_else_is_in_the_archive(
    world: World,
) -> None:
    await registered(world)

    async with world.client() as client:
        answer = await client.get("/api/v1/models/support/versions/1/download")

    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.read("base_model/model.safetensors") == b"made here"
        assert archive.namelist() == [
            "lora_adapters/adapter_config.json",
            "lora_adapters/labels.json",
            "base_model/model.safetensors",
            "README.md",
            "metrics.json",
        ]
    assert len(answer.content) == int(answer.headers["content-length"])


async def test_a_language_model_is_not_asked_for_labels(world: World) -> None:
    await registered(world)

    body = {"texts": ["where is it?"], "version": 1}
    answer = await post(world, "/models/support/predict", body)

    assert (answer.status_code, answer.json()["code"]) == (409, "not_a_classifier")
    assert "/v1/chat/completions" in answer.json()["detail"]
    assert world.inference.asked == []


async def test_defaults_are_described_as_the_rules_have_them(world: World) -> None:
    async with world.client(None) as client:
        schema = (await client.get("/schema/openapi.json")).json()

    body = schema["components"]["schemas"]["SubmitBody"]["properties"]
    assert defaults_table() in body["hyperparameters"]["description"]
    assert defaults_table() in REFERENCE.read_text()
