"""What follows when a person is forgotten: the key destroyed, API keys revoked, datasets deleted, jobs ended."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from domain.access import access
from domain.access.commands import RevokeKey
from domain.access.events import KeyIssued
from domain.datasets.commands import DeleteDataset
from domain.datasets.events import DatasetRegistered
from domain.errors import StoreUnavailable
from domain.jobs.commands import CancelJob
from domain.jobs.events import JobSubmitted
from domain.messages import Event, Recorded, StreamId
from domain.people import person as people
from domain.people.events import PersonForgotten
from handlers.follow_ups import FollowUp, World, ask, fold
from handlers.ports import EventStore, PersonKeys, Scan

AGAIN_S: Final = 900.0  # a database may be put back to what it was while nobody is started anew
RETRY_S: Final = 2.0

_log = logging.getLogger(__name__)


async def forget(recorded: Recorded[PersonForgotten], world: World) -> Sequence[FollowUp]:
    """Destroy the key first; what is asked for then has the same ids however often it is done.

    Raises:
        ConnectionError, StoreUnavailable: The keys or the log are away; ask again later.
    """
    person_id, workspace = recorded.event.person_id, recorded.stream.workspace
    await world.person_keys.destroy([person_id])
    held = fold(
        await world.store.read(StreamId(workspace, "access", access.access_id(workspace))),
        access.decider,
    )
    asked = [
        _revoke(recorded, key.key_id)
        for key in held.keys.values()
        if access.holder_of(key, workspace) == person_id
    ]
    asked += [
        _delete(recorded, dataset.stream)
        async for dataset in world.scan(workspace, "dataset", DatasetRegistered)
        if dataset.event.person_id == person_id
    ]
    asked += [
        _cancel(recorded, job.stream)
        async for job in world.scan(workspace, "job", JobSubmitted)
        if person_id in job.event.spec.people
    ]
    return asked


async def too_late(recorded: Recorded[Event], world: World) -> FollowUp | None:
    """What takes back an event that was on its way while its person was forgotten."""
    workspace = recorded.stream.workspace
    match recorded.event:
        case KeyIssued() as key:
            whose, undone = {access.holder_of(key, workspace)}, _revoke(recorded, key.key_id)
        case DatasetRegistered(person_id=UUID() as person_id):
            whose, undone = {person_id}, _delete(recorded, recorded.stream)
        case JobSubmitted(spec=spec):
            whose, undone = set(spec.people), _cancel(recorded, recorded.stream)
        case _:
            return None
    for person in whose:
        if await _is_forgotten(person, workspace, world.store):
            return undone
    return None


async def keep_forgotten(workspace: str, scan: Scan, keys: PersonKeys, stop: asyncio.Event) -> None:
    """See, now and every now and then, that no key of a forgotten person is there.

    A restored database may hold one: the log remembers who was forgotten, the database need not.
    """
    while not stop.is_set():
        pause = AGAIN_S
        try:
            found = [
                one.event.person_id async for one in scan(workspace, "person", PersonForgotten)
            ]
            if found and (count := await keys.destroy(found)):
                _log.warning("%d keys of forgotten people were there again; destroyed", count)
        except (ConnectionError, StoreUnavailable) as problem:
            _log.info("keys of forgotten people cannot be looked for yet: %s", problem)
            pause = RETRY_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await stop.wait()


async def _is_forgotten(person_id: UUID, workspace: str, store: EventStore) -> bool:
    history = await store.read(StreamId(workspace, "person", person_id))
    return isinstance(fold(history, people.decider), people.Forgotten)


def _revoke(cause: Recorded[Event], key_id: str) -> FollowUp:
    workspace = cause.stream.workspace
    stream = StreamId(workspace, "access", access.access_id(workspace))
    return ask(cause, f"revoke {key_id}", stream, RevokeKey(key_id=key_id))


def _delete(cause: Recorded[Event], dataset: StreamId) -> FollowUp:
    return ask(cause, f"delete {dataset.id}", dataset, DeleteDataset(dataset_id=dataset.id))


def _cancel(cause: Recorded[Event], job: StreamId) -> FollowUp:
    return ask(cause, f"cancel {job.id}", job, CancelJob(job_id=job.id))
