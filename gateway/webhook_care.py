"""What webhooks need beside the log: secrets and addresses that are kept apart, tests, what was tried."""

import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from domain.catalog import EVENTS
from domain.webhooks.addresses import is_public
from domain.webhooks.commands import MAX_URL
from domain.webhooks.deliveries import Attempt, Cursor
from domain.webhooks.messages import (
    SECRET_BYTES,
    TEST_TYPE,
    encode,
    secret_text,
    signed_headers,
    type_name,
)
from gateway.commanding import Caller
from gateway.ports import WebhookSender, WebhookStore
from gateway.problems import Problem, invalid
from projections.webhooks import WebhookRow

TYPES: Final = tuple(sorted(type_name(of, name) for name, (of, _) in EVENTS.items()))
AGGREGATES: Final = tuple(sorted({f"{name.partition('.')[0]}.*" for name in TYPES}))


@dataclass(frozen=True, slots=True)
class NewSecret:
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How far each webhook has come, and how many deliveries of it wait."""

    cursors: Mapping[UUID, Cursor]
    waiting: Mapping[UUID, int]


class WebhookCare:
    """Keeps what is secret about the webhooks of one workspace."""

    def __init__(
        self, store: WebhookStore, sender: WebhookSender, pepper: bytes, *, allow_private: bool
    ) -> None:
        self._store = store
        self._sender = sender
        self._pepper = pepper
        self._allow_private = allow_private

    async def keep_url(self, webhook_id: UUID, url: str) -> str:
        """Keep an address; give the id under which it is.

        Raises:
            Problem: Nothing may be sent there.
        """
        self._check(url)
        keyed = hmac.new(self._pepper, f"url\x1f{url}".encode(), hashlib.sha256)
        id_ = f"url_{keyed.hexdigest()[:16]}"
        async with _kept():
            await self._store.keep_secret(webhook_id, id_, url)
        return id_

    async def make_secret(self, caller: Caller, webhook_id: UUID) -> NewSecret:
        """A secret that signs; the same request gives the same one."""
        key = secrets.token_bytes(SECRET_BYTES)
        if caller.repeatable:
            said = f"webhook\x1f{caller.command_id}".encode()
            key = hmac.new(self._pepper, said, hashlib.sha256).digest()
        text = secret_text(key)
        id_ = f"key_{hashlib.sha256(key).hexdigest()[:16]}"
        async with _kept():
            return NewSecret(id_, await self._store.keep_secret(webhook_id, id_, text))

    async def standing(self) -> Standing:
        async with _kept():
            return Standing(await self._store.cursors(), await self._store.waiting())

    async def attempts(self, webhook_id: UUID, before: int | None, limit: int) -> Sequence[Attempt]:
        async with _kept():
            return await self._store.attempts(webhook_id, before=before, limit=limit)

    async def test(self, row: WebhookRow, caller: Caller) -> Attempt:
        """Send an event that means nothing, now, and write down what came of it."""
        now = datetime.now(UTC)
        async with _kept():
            url = await self._store.secret(row.id, row.url_id)
            found = [await self._store.secret(row.id, id_) for id_ in _signing(row, now)]
        known = [one for one in found if one is not None]
        if url is None or not known:
            raise Problem(
                "webhook_incomplete", "Its address or its secret is not in this database any more."
            )
        id_ = f"msg_{caller.command_id.hex}"
        data = {"webhook_id": str(row.id), "text": "If you can read this, it works."}
        body = encode(TEST_TYPE, now.isoformat().replace("+00:00", "Z"), data)
        answer = await self._sender.post(url, signed_headers(id_, now, body, known), body)
        attempt = Attempt(row.id, 0, id_, TEST_TYPE, 1, now, "test", answer)
        async with _kept():
            await self._store.record(row.id, [attempt], [], [])
        return attempt

    def _check(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host, parts = None, urlsplit("")
        if not host or parts.scheme not in {"http", "https"} or not url.isprintable():
            raise invalid("url", "an address as https://hooks.example.org/finetrail", "body")
        if len(url) > MAX_URL or " " in url:
            raise invalid("url", f"at most {MAX_URL} characters, without spaces", "body")
        if self._allow_private:
            return
        if parts.scheme != "https":
            raise invalid("url", "https, unless webhooks.allow_private is on", "body")
        if host == "localhost" or not _may_be_public(host):
            raise invalid("url", f"{host} is not public; webhooks.allow_private allows it", "body")


def require_types(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """The chosen types, each once; None for all.

    Raises:
        Problem: One of them is none.
    """
    if names is None:
        return None
    unknown = [name for name in names if name not in TYPES and name not in AGGREGATES]
    if unknown or not names:
        said = f"there is no type {unknown[0]!r}" if unknown else "choose one, or null for all"
        raise invalid("event_types", f"{said}; GET /api/v1/webhooks/event-types lists them", "body")
    return tuple(dict.fromkeys(names))


def _signing(row: WebhookRow, now: datetime) -> list[str]:
    old = row.old_key_id if row.old_key_valid_until and now < row.old_key_valid_until else None
    return [row.key_id, *([old] if old else [])]


def _may_be_public(host: str) -> bool:
    """Whether a name, which is resolved when it is used, or an address may be told."""
    try:
        ip_address(host)
    except ValueError:
        return True
    return is_public(host)


@asynccontextmanager
async def _kept() -> AsyncIterator[None]:
    try:
        yield
    except ConnectionError as error:
        raise Problem("webhooks_unavailable", "The database cannot be reached now.") from error
