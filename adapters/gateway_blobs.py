"""Blobs of a store that another machine has, through its gateway: a ticket for each, asked for over NATS.

A ticket is asked for anew whenever a connection broke; what had come by then is not sent again.
"""

import asyncio
import errno
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from uuid import uuid4

import httpx
from nats.aio.client import Client
from nats.errors import Error as NatsError
from pydantic import ValidationError

from adapters.blob_files import (
    BlobDamaged,
    BlobMissing,
    BlobsAway,
    HashedFile,
    NoSpace,
    chunks_of,
    open_to_read,
    ref_of,
)
from domain.blob_tickets import TicketAnswer, TicketQuestion
from domain.blobs import BlobRef
from domain.subjects import ticket_subject

ASK_S: Final = 15.0  # the gateway may wait for its read model to follow the log
CONNECT_S: Final = 10.0
SILENT_S: Final = 60.0
SLOWEST: Final = 10_000_000  # bytes a second that a gateway hands on to the disk or the S3 server
TIMEOUT: Final = httpx.Timeout(SILENT_S, connect=CONNECT_S)
TRIES: Final = 5  # of one file, before whoever wants it hears of it
PAUSE_S: Final = 0.5
NOT_FOUND: Final = 404

_log = logging.getLogger(__name__)


class BlobRefused(PermissionError):
    """The gateway gives this agent no ticket for that blob; asking again gives the same."""

    def __init__(self, sha256: str, reason: str) -> None:
        super().__init__(errno.EACCES, reason, sha256)


class GatewayAway(BlobsAway):
    """Neither refused nor done; trying again may help."""

    def __init__(self, reason: object) -> None:
        super().__init__(errno.ECONNREFUSED, f"the gateway cannot be reached: {reason}")


class GatewayBlobs:
    """What an agent needs of a store: to be used with ``async with``."""

    def __init__(self, nc: Client, url: str, *, workspace: str, agent_id: str) -> None:
        self._nc = nc
        self._url = url.rstrip("/")
        self._subject = ticket_subject(workspace, agent_id)
        self._http = httpx.AsyncClient(timeout=TIMEOUT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def put_file(self, path: Path) -> BlobRef:
        """Bring a file.

        Raises:
            BlobRefused: No attempt is held.
            OSError: The gateway is away, its disk is full, or the file was changed meanwhile.
        """
        ref = await ref_of(path)
        for attempt in range(1, TRIES + 1):
            try:
                answer = await self._ask(TicketQuestion(verb="PUT", blob=ref))
                if not answer.there:
                    await self._put(answer.path, path, ref)
            except GatewayAway as away:
                await _pause(attempt, path.name, away)
            else:
                return ref
        raise AssertionError("the last try returns or raises")

    async def fetch(self, ref: BlobRef, to: Path) -> None:
        """Copy a blob to ``to``, which appears only when its bytes were verified.

        Raises:
            BlobRefused: It is none that this agent needs.
            OSError: The gateway is away, the blob is missing or damaged, or the disk is full.
        """
        async with HashedFile(to.with_name(f".{to.name}.{uuid4().hex}")) as copy:
            for attempt in range(1, TRIES + 1):
                try:
                    answer = await self._ask(TicketQuestion(verb="GET", blob=ref))
                    async for chunk in self._get(answer.path, copy.size, ref):
                        await copy.write(chunk)
                except GatewayAway as away:
                    await _pause(attempt, to.name, away)
                else:
                    break
            if (copy.ref.sha256, copy.size) != (ref.sha256, ref.size):
                raise BlobDamaged(ref.sha256)
            await copy.move(to)

    async def _ask(self, question: TicketQuestion) -> TicketAnswer:
        try:
            msg = await self._nc.request(
                self._subject, question.model_dump_json().encode(), timeout=ASK_S
            )
            answer = TicketAnswer.model_validate_json(msg.data)
        except (NatsError, TimeoutError, ValidationError) as error:
            raise GatewayAway(repr(error)) from error
        if answer.unavailable:
            raise GatewayAway(answer.refused)
        if answer.refused:
            raise BlobRefused(question.blob.sha256, answer.refused)
        return answer

    async def _put(self, ticket: str, path: Path, ref: BlobRef) -> None:
        try:
            answer = await self._http.put(
                self._url + ticket,
                content=chunks_of(open_to_read(path)),
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Length": str(ref.size),
                },
                # It answers when it has stored all of it: given up before, it would be sent for ever.
                timeout=httpx.Timeout(
                    SILENT_S, connect=CONNECT_S, read=SILENT_S + ref.size / SLOWEST
                ),
            )
        except httpx.HTTPError as error:
            raise GatewayAway(repr(error)) from error
        _check(answer, ref)

    async def _get(self, ticket: str, have: int, ref: BlobRef) -> AsyncIterator[bytes]:
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have == ref.size > 0:
            return
        try:
            async with self._http.stream("GET", self._url + ticket, headers=headers) as answer:
                _check(answer, ref, httpx.codes.PARTIAL_CONTENT if have else httpx.codes.OK)
                async for chunk in answer.aiter_bytes():
                    yield chunk
        except httpx.HTTPError as error:
            raise GatewayAway(repr(error)) from error


def _check(answer: httpx.Response, ref: BlobRef, wanted: int | None = None) -> None:
    status = answer.status_code
    if status == wanted or (wanted is None and answer.is_success):
        return
    if status == NOT_FOUND:
        raise BlobMissing(ref.sha256)
    if status == httpx.codes.INSUFFICIENT_STORAGE:
        raise NoSpace("the gateway")
    if status == httpx.codes.UNPROCESSABLE_ENTITY:
        raise OSError(errno.EIO, "the file was changed while it was sent", ref.sha256)
    raise GatewayAway(f"it answers {status}")  # a ticket may have run out, too


async def _pause(attempt: int, name: str, away: GatewayAway) -> None:
    if attempt == TRIES:
        raise away
    _log.info("%s is asked for again: %s", name, away)
    await asyncio.sleep(PAUSE_S * attempt)
