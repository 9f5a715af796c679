"""What the owner of a data directory may do without an API key: make one.

Whoever can read the secrets in a data directory owns all that is in it, so they may send commands
as `operator` over NATS. This is the way in after the first start, and after a lost key.
"""

import asyncio
import getpass
import os
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from nats.errors import Error as NatsError
from uuid_utils.compat import uuid7

from adapters.nats_command_bus import NatsCommandBus
from adapters.nats_connection import close, connect
from adapters.xchacha_sealer import XChaChaSealer
from domain.access.access import access_id
from domain.access.commands import IssueKey
from domain.access.events import Role
from domain.errors import BusUnavailable, CommandTimeout
from domain.messages import Command, Envelope, StreamId
from domain.people.person import holder_id
from domain.subjects import OPERATOR_SOURCE
from finetrail.settings import Settings
from finetrail.stack.state import write_private
from gateway.api_keys import new_key

CONNECT_S: Final = 10.0
CLI_KEY_FILE: Final = "cli.key"


class KeyNotIssued(Exception):
    """No key could be made; the message says why."""


async def issue_key(
    settings: Settings, *, name: str, role: Role, person_id: UUID | None = None
) -> str:
    """Make an API key and return its text, which cannot be read again.

    Raises:
        KeyNotIssued: The log or the database is away, nobody decides commands, or the rules refuse.
    """
    key = new_key(settings.api_key_pepper)
    holder = person_id or holder_id(settings.workspace, key.key_id)
    issue = IssueKey(
        key_id=key.key_id,
        name=await _sealed(settings, holder, name),
        role=role,
        secret_hmac=key.secret_hmac,
        person_id=holder,
    )
    await _send(settings, issue)
    return key.text


async def cli_key(settings: Settings) -> str:
    """The key that this command line keeps in the data directory, made when it is first needed."""
    kept = cli_key_file(settings)
    if kept.exists():
        return kept.read_text().strip()
    text = await issue_key(settings, name=f"command line of {_user()}", role="admin")
    write_private(kept, text + "\n")
    return text


def cli_key_file(settings: Settings) -> Path:
    return settings.folder / CLI_KEY_FILE


async def _sealed(settings: Settings, holder: UUID, name: str) -> str:
    # Here, because the image of an agent loads this module and has no client of Postgres.
    from adapters.postgres_person_keys import PostgresPersonKeys  # noqa: PLC0415 - see above

    async with aclosing(PostgresPersonKeys(settings.postgres_dsn)) as keys:
        try:
            key = await keys.get_or_make(holder)
        except ConnectionError as error:
            raise KeyNotIssued(f"the key's name cannot be sealed: {error}") from error
    if key is None:
        raise KeyNotIssued(f"person {holder} is forgotten")
    return XChaChaSealer().seal(key, holder, "key.name", name)


async def _send(settings: Settings, command: Command) -> None:
    login = settings.nats_login("gateway")  # the one that may send as operator and hear the reply
    id_ = uuid7()
    envelope = Envelope(
        id=id_,
        stream=StreamId(settings.workspace, "access", access_id(settings.workspace)),
        source=OPERATOR_SOURCE,
        actor=f"operator:{_user()}",
        correlation_id=id_,
        causation_id=None,
        sent_at=datetime.now(UTC),
        command=command,
    )
    try:
        async with asyncio.timeout(CONNECT_S):
            nc = await connect(
                login.url,
                user=login.user,
                password=login.password,
                name="finetrail operator",
                inbox_prefix=login.inbox_prefix,
            )
    except (TimeoutError, OSError, NatsError) as error:
        raise KeyNotIssued(f"no connection to NATS at {login.url}") from error
    try:
        outcome = await NatsCommandBus(nc).send(envelope)
    except (CommandTimeout, BusUnavailable) as error:
        raise KeyNotIssued(f"{error}; are the handlers running?") from error
    finally:
        await close(nc)
    if outcome.status in {"rejected", "failed"}:
        raise KeyNotIssued(outcome.message or outcome.code)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in many containers
        return str(os.getuid())
