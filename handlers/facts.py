"""What a decision needs to know of other aggregates, looked up in the log and put into the command."""

from typing import Any
from uuid import UUID

from domain.access.commands import IssueKey
from domain.datasets import dataset as datasets
from domain.datasets.commands import RegisterDataset
from domain.errors import NotYours
from domain.evaluations.commands import ClaimEvaluation, RunEvaluation
from domain.jobs.commands import ClaimJob, DatasetFacts, SubmitJob
from domain.jobs.spec import JobSpec
from domain.messages import Command, StreamId
from domain.model_versions import model_version as versions
from domain.models.commands import ActivateModel
from domain.people.person import Forgotten, PersonIsForgotten
from domain.people.person import decider as people_decider
from domain.queues.queue import decider as queue_decider
from domain.queues.queue import queue_id
from domain.queues.state import Queue
from handlers.histories import Histories


async def look_up(command: Command, workspace: str, histories: Histories) -> Command:
    """The command with every fact filled in from the log, whatever its sender had put there."""
    match command:
        case SubmitJob():
            return await _with_datasets(command, workspace, histories)
        case IssueKey() | RegisterDataset():
            forgotten = await _is_forgotten(command.person_id, workspace, histories)
            return command.model_copy(update={"forgotten": forgotten})
        case ActivateModel():
            version = await _version(command.version_id, workspace, histories)
            theirs = (
                isinstance(version, versions.Known)
                and version.registered.model_id == command.model_id
            )
            status = version.status if isinstance(version, versions.Known) and theirs else "absent"
            return command.model_copy(update={"version_status": status})
        case RunEvaluation():
            version = await _version(command.version_id, workspace, histories)
            if isinstance(version, versions.Known):
                await _require_rows(version.registered.spec, workspace, histories)
            return command.model_copy(update=_evaluated(version))
        case ClaimJob():
            await _require_assigned(command, command.job_id, workspace, histories)
            return command
        case ClaimEvaluation():
            await _require_assigned(command, command.evaluation_id, workspace, histories)
            return command
        case _:
            return command


async def _require_rows(spec: JobSpec, workspace: str, histories: Histories) -> None:
    """An evaluation asks a model about rows that may still be read.

    Raises:
        PersonIsForgotten: They may not.
    """
    tested = spec.tested
    if await _is_forgotten(tested.person_id, workspace, histories):
        raise PersonIsForgotten(f"dataset {tested.dataset_id} was of a person who is forgotten")


async def _require_assigned(
    claim: ClaimJob | ClaimEvaluation, work_id: UUID, workspace: str, histories: Histories
) -> None:
    """An agent claims what it was given, and nothing else that it has heard of.

    Raises:
        NotYours: The queue has given the attempt to another agent, or to none.
    """
    stream = StreamId(workspace, "queue", queue_id(workspace))
    queue: Queue = (await histories.load(stream, queue_decider)).state
    given = queue.assigned.get(work_id)
    if given is None or (given.agent_id, given.attempt) != (claim.agent_id, claim.attempt):
        raise NotYours(f"attempt {claim.attempt} of {work_id} was not given to {claim.agent_id}")


async def _is_forgotten(person_id: UUID | None, workspace: str, histories: Histories) -> bool:
    if person_id is None:
        return False
    stream = StreamId(workspace, "person", person_id)
    return isinstance((await histories.load(stream, people_decider)).state, Forgotten)


async def _with_datasets(command: SubmitJob, workspace: str, histories: Histories) -> SubmitJob:
    train = await _dataset(command.dataset_id, workspace, histories)
    test = (
        await _dataset(command.test_dataset_id, workspace, histories)
        if command.test_dataset_id
        else None
    )
    return command.model_copy(update={"train": train, "test": test})


async def _dataset(dataset_id: UUID, workspace: str, histories: Histories) -> DatasetFacts:
    stream = StreamId(workspace, "dataset", dataset_id)
    match (await histories.load(stream, datasets.decider)).state:
        case datasets.Absent():
            return DatasetFacts(status="absent")
        case datasets.Pending(ref):
            return DatasetFacts(status="pending", ref=ref)
        case datasets.Valid(ref):
            gone = await _is_forgotten(ref.person_id, workspace, histories)
            return DatasetFacts(status="deleted" if gone else "valid", ref=ref)
        case datasets.Refused(ref, message):
            return DatasetFacts(status="rejected", ref=ref, message=message)
        case datasets.Deleted(ref):
            return DatasetFacts(status="deleted", ref=ref)


async def _version(version_id: UUID, workspace: str, histories: Histories) -> versions.ModelVersion:
    stream = StreamId(workspace, "model_version", version_id)
    return (await histories.load(stream, versions.decider)).state


def _evaluated(version: versions.ModelVersion) -> dict[str, Any]:
    match version:
        case versions.Absent():
            return {
                "version_status": "absent",
                "model_id": None,
                "job_id": None,
                "spec": None,
                "labels": (),
                "adapter": (),
                "threads": None,
                "base_model": None,
            }
        case versions.Known(registered, status):
            return {
                "version_status": status,
                "model_id": registered.model_id,
                "job_id": registered.job_id,
                "spec": registered.spec,
                "labels": registered.labels,
                "adapter": registered.files,
                "threads": registered.environment.threads,
                "base_model": registered.base_model,
            }
