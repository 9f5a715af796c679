"""Keys and agents over HTTP."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from domain.access.access import access_id
from domain.access.commands import IssueKey, RevokeKey
from domain.access.events import Role
from domain.agents.commands import DrainAgent
from domain.people.person import holder_id
from gateway.api_keys import NewKey, new_key
from gateway.as_of import Readable, Shown, missing
from gateway.commanding import Caller, Commands, Done, note_of
from gateway.etags import IfMatch, require_revision
from gateway.fleet import Fleet
from gateway.keyring import Keyring
from gateway.naming import person_name
from gateway.pages import Page
from gateway.people import require_remembered
from gateway.sealing import Opened, Sealing
from projections.access_keys import AccessKeyRow
from projections.agents import AgentRow
from projections.queries import Queries

KEYRING_S: Final = 2.0  # the live copy of the log takes a millisecond; then the key counts


class IssueBody(msgspec.Struct, forbid_unknown_fields=True):
    """Who or what the key is for, and what it may do.

    `person_id` is whom it is of. Without it the key has a holder of its own.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    role: Role
    person_id: UUID | None = None


class Key(msgspec.Struct):
    """A key in force. Neither it nor its hash can be read again.

    `name` is null once its holder is forgotten.
    """

    key_id: str
    name: str | None
    role: Role
    person_id: UUID
    forgotten: bool
    created_at: datetime | None
    created_by: str
    sequence: int


class IssuedKey(msgspec.Struct):
    """`secret` is the whole key. It is shown this once."""

    key_id: str
    name: str
    role: Role
    person_id: UUID
    secret: str
    created_by: str
    sequence: int
    note: str | msgspec.UnsetType = msgspec.UNSET


class RevokedKey(msgspec.Struct):
    key_id: str
    status: Literal["revoked"]
    sequence: int
    note: str | msgspec.UnsetType = msgspec.UNSET


class HeldAttempt(msgspec.Struct):
    work_id: UUID
    attempt: int


class Agent(msgspec.Struct):
    """A machine that trains, evaluates and serves.

    `connected`, `last_seen`, `slots`, `pool`, `holds` and `serving` are what it says itself every second.
    """

    id: UUID
    name: str
    status: Literal["invited", "joined", "active", "draining", "revoked"]
    accelerator: str
    memory_bytes: int
    methods: list[str]
    created_at: datetime
    invited_by: str | None
    expires_at: datetime | None
    joined_at: datetime | None
    connected: bool | None
    last_seen: datetime | None
    slots: int | None
    pool: str | None
    holds: list[HeldAttempt]
    serving: Literal["starting", "ready"] | None
    sequence: int
    note: str | msgspec.UnsetType = msgspec.UNSET


class KeyMaker:
    """Makes keys of one workspace, with the secret that their hashes depend on."""

    def __init__(self, pepper: bytes, keyring: Keyring, workspace: str) -> None:
        self._pepper = pepper
        self._keyring = keyring
        self.access_id = access_id(workspace)

    def make(self, caller: Caller) -> NewKey:
        return new_key(self._pepper, str(caller.command_id) if caller.repeatable else None)

    async def in_force(self, done: Done) -> None:
        """Wait until this process itself knows what was issued or revoked."""
        await self._keyring.wait_for(done.sequence, KEYRING_S)


class KeysController(Controller):
    path = "/keys"
    tags = ("access",)

    @get("/")
    async def list_keys(
        self,
        shown: NamedDependency[Shown],
        sealing: NamedDependency[Sealing],
        workspace: NamedDependency[str],
    ) -> Response[Page[Key]]:
        """The keys in force, oldest first."""
        rows = [row for row in await shown.queries.keys(workspace) if row.status == "active"]
        opened = await opened_keys(sealing, rows)
        return shown.whole([_key(row, opened) for row in rows])

    @get("/{key_id:str}")
    async def key(
        self,
        key_id: FromPath[str],
        shown: NamedDependency[Shown],
        sealing: NamedDependency[Sealing],
        workspace: NamedDependency[str],
    ) -> Response[Key]:
        """One of them, while it is in force."""
        for row in await shown.queries.keys(workspace):
            if (row.key_id, row.status) == (key_id, "active"):
                return shown.answered(_key(row, await opened_keys(sealing, [row])))
        raise missing(shown.queries, "such key in force")

    @post("/", status_code=201)
    async def issue(
        self,
        data: JSONBody[IssueBody],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        maker: NamedDependency[KeyMaker],
        queries: NamedDependency[Queries],
        sealing: NamedDependency[Sealing],
        workspace: NamedDependency[str],
    ) -> Response[IssuedKey]:
        """Make a key. Keep its `secret`: it cannot be shown again."""
        key, name = maker.make(caller), person_name(data.name)
        if data.person_id is not None:
            await require_remembered(queries, workspace, data.person_id)
        holder = data.person_id or holder_id(workspace, key.key_id)
        command = IssueKey(
            key_id=key.key_id,
            name=await sealing.sealed(holder, "key.name", name),
            role=data.role,
            secret_hmac=key.secret_hmac,
            person_id=holder,
        )
        done = await commands.send(caller, "access", maker.access_id, command)
        await maker.in_force(done)
        issued = _issued(key, data, holder, caller, done)
        return Response(issued, status_code=201 if done.sequence else 202)

    @delete("/{key_id:str}", status_code=200)
    async def revoke(
        self,
        key_id: FromPath[str],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        maker: NamedDependency[KeyMaker],
    ) -> RevokedKey:
        """Refuse a key from now on; streams that were opened with it end."""
        command = RevokeKey(key_id=key_id)
        done = await commands.send(caller, "access", maker.access_id, command)
        await maker.in_force(done)
        return RevokedKey(key_id, "revoked", done.sequence, note_of(done))


class AgentsController(Controller):
    path = "/agents"
    tags = ("agents",)

    @get("/")
    async def list_agents(
        self,
        shown: NamedDependency[Shown],
        fleet: NamedDependency[Fleet],
        workspace: NamedDependency[str],
    ) -> Response[Page[Agent]]:
        """In the order of their invitation or enrolment, with what was last heard of each.

        With `as_of`, what an agent itself says every second is null: it is not in the log.
        """
        past = shown.queries.sequence is not None
        rows = await shown.queries.agents(workspace)
        return shown.whole([agent_answer(row, None if past else fleet) for row in rows])

    @get("/{agent_id:uuid}")
    async def agent(
        self,
        agent_id: FromPath[UUID],
        shown: NamedDependency[Shown],
        fleet: NamedDependency[Fleet],
        workspace: NamedDependency[str],
    ) -> Response[Agent]:
        """One of them. With `as_of`, what it says itself every second is null."""
        row = await require_agent(shown.queries, workspace, agent_id)
        past = shown.queries.sequence is not None
        return shown.answered(agent_answer(row, None if past else fleet))

    @post("/{agent_id:uuid}/drain", status_code=202)
    async def drain(
        self,
        agent_id: FromPath[UUID],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        queries: NamedDependency[Queries],
        fleet: NamedDependency[Fleet],
        workspace: NamedDependency[str],
        if_match: IfMatch = None,
    ) -> Agent:
        """Let it finish what it holds, and give it nothing more."""
        if if_match is not None:
            require_revision(if_match, (await require_agent(queries, workspace, agent_id)).sequence)
        done = await commands.send(caller, "agent", agent_id, DrainAgent(agent_id=agent_id))
        return agent_answer(await require_agent(queries, workspace, agent_id), fleet, done)


async def opened_keys(sealing: Sealing, rows: Sequence[AccessKeyRow]) -> Opened:
    return await sealing.opened(
        [("key.name", row.name) for row in rows], [row.person_id for row in rows]
    )


def _key(row: AccessKeyRow, opened: Opened) -> Key:
    return Key(
        key_id=row.key_id,
        name=opened.said("key.name", row.name),
        role=row.role,
        person_id=row.person_id,
        forgotten=row.person_id in opened.forgotten,
        created_at=row.created_at,
        created_by=row.created_by,
        sequence=row.sequence,
    )


def _issued(key: NewKey, body: IssueBody, holder: UUID, caller: Caller, done: Done) -> IssuedKey:
    return IssuedKey(
        key_id=key.key_id,
        name=body.name,
        role=body.role,
        person_id=holder,
        secret=key.text,
        created_by=caller.principal.actor,
        sequence=done.sequence,
        note=note_of(done),
    )


async def require_agent(queries: Readable, workspace: str, agent_id: UUID) -> AgentRow:
    for row in await queries.agents(workspace):
        if row.id == agent_id:
            return row
    raise missing(queries, f"agent {agent_id}")


def agent_answer(row: AgentRow, fleet: Fleet | None, done: Done | None = None) -> Agent:
    seen = fleet.seen(str(row.id)) if fleet else None
    held = seen.presence.held if seen else ()
    return Agent(
        id=row.id,
        name=row.name,
        status=row.status,
        accelerator=row.accelerator,
        memory_bytes=row.memory_bytes,
        methods=row.methods,
        created_at=row.created_at,
        invited_by=row.invited_by,
        expires_at=row.expires_at,
        joined_at=row.joined_at,
        connected=(seen is not None and seen.connected) if fleet else None,
        last_seen=seen.at if seen else None,
        slots=seen.presence.slots if seen else None,
        pool=seen.presence.pool if seen else None,
        holds=[HeldAttempt(one.work_id, one.attempt) for one in held],
        serving=seen.presence.serving if seen else None,
        sequence=row.sequence,
        note=note_of(done),
    )
