"""Commands out of requests: who asks, under which id, what became of it, and when it can be read."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID, uuid5

import msgspec
from litestar import Request
from litestar.di import NamedDependency
from litestar.params import HeaderParameter
from uuid_utils.compat import uuid7

from domain.context import current
from domain.errors import CommandTimeout
from domain.messages import Command, Envelope, StreamId
from domain.people.person import holder_id
from domain.subjects import GATEWAY_SOURCE, NAMES, Aggregate
from gateway.addresses import Addresses
from gateway.authentication import Principal
from gateway.ports import CommandBus
from gateway.problems import invalid, refusal
from gateway.request_id import request_id
from gateway.sealing import Sealing
from projections.queries import Queries

DECIDE_S: Final = 10.0  # a decision takes milliseconds; handlers that restart are back within this
READ_S: Final = 5.0  # a projection follows within milliseconds

TAKEN: Final = "The command is safe in the log and will be decided; read the resource again soon."
RECORDED: Final = "This is recorded; the read model shows it when it is back."

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        description="Repeat a request with the same value and it is done once: the answer names "
        "the same resource. The first request counts, whatever a later one says.",
    ),
]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and the ids of what it leads to."""

    principal: Principal
    correlation_id: UUID
    command_id: UUID
    resource_id: UUID  # of what a creating request creates
    repeatable: bool  # whether the same ids come again when the request does
    address: str = ""  # the client's, where that is recorded; it enters the log sealed


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a command that was not refused."""

    sequence: int  # log position after which it can be read; 0 while it is undecided
    note: str | None  # why it cannot be read yet

    @property
    def readable(self) -> bool:
        return self.note is None


def note_of(done: Done | None) -> str | msgspec.UnsetType:
    """For the member ``note``, which is left out of an answer when there is nothing to say."""
    return (done and done.note) or msgspec.UNSET


def provide_caller(
    request: Request[Principal, Any, Any],
    addresses: NamedDependency[Addresses],
    idempotency_key: IdempotencyKey = None,
) -> Caller:
    by, correlation_id, address = request.user, request_id(request.scope), addresses.of(request)
    if idempotency_key is None:
        made = uuid7(), uuid7()
        return Caller(by, correlation_id, *made, repeatable=False, address=address)
    if not (0 < len(idempotency_key.strip()) <= 255 and idempotency_key.isprintable()):
        raise invalid("Idempotency-Key", "1 to 255 printable characters", "header")
    route = f"{request.method} {request.url.path}"
    asked = uuid5(NAMES, f"{request.user.key_id}\x1f{route}\x1f{idempotency_key}")
    command_id, resource_id = uuid5(asked, "command"), uuid5(asked, "resource")
    return Caller(by, correlation_id, command_id, resource_id, repeatable=True, address=address)


class Commands:
    """Sends commands of one workspace and waits until their outcome can be read."""

    def __init__(self, bus: CommandBus, queries: Queries, sealing: Sealing, workspace: str) -> None:
        self._bus = bus
        self._queries = queries
        self._sealing = sealing
        self._workspace = workspace

    async def send(self, caller: Caller, aggregate: Aggregate, id_: UUID, command: Command) -> Done:
        """Send, and wait for the outcome and for the read model.

        Raises:
            Problem: The rules refuse.
            BusUnavailable: The log did not take it; nothing will happen.
        """
        by = caller.principal
        holder = by.person_id or holder_id(self._workspace, by.key_id)
        envelope = Envelope(
            id=caller.command_id,
            stream=StreamId(self._workspace, aggregate, id_),
            source=GATEWAY_SOURCE,
            actor=caller.principal.actor,
            correlation_id=caller.correlation_id,
            causation_id=None,
            sent_at=datetime.now(UTC),
            command=command,
            traceparent=current().traceparent,
            client_address=await self._sealing.address(holder, caller.address),
        )
        try:
            outcome = await self._bus.send(envelope, timeout_s=DECIDE_S)
        except CommandTimeout:
            return Done(0, TAKEN)
        if outcome.status not in {"recorded", "unchanged"}:
            raise refusal(outcome)
        readable = await self._queries.wait_for(outcome.sequence, READ_S)
        return Done(outcome.sequence, None if readable else RECORDED)
