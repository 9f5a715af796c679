"""Webhooks over HTTP: added, changed, tested, replayed; what was tried, and what receivers said."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from domain.webhooks.commands import (
    MAX_TEXT,
    MAX_TYPES,
    MAX_URL,
    AddWebhook,
    ChangeWebhook,
    DisableWebhook,
    EnableWebhook,
    RemoveWebhook,
    ReplayWebhook,
    RotateWebhookSecret,
    WebhookCommand,
)
from domain.webhooks.deliveries import Attempt, Outcome
from domain.webhooks.messages import shown_url
from gateway.as_of import Readable, Shown, missing
from gateway.commanding import Caller, Commands, Done, note_of
from gateway.etags import IfMatch, require_revision
from gateway.pages import Cursor, Limit, Page, decode_cursor, page_of
from gateway.ports import Feed
from gateway.problems import invalid
from gateway.webhook_care import AGGREGATES, TYPES, Standing, WebhookCare, require_types
from projections.queries import Queries
from projections.webhooks import WebhookRow

OVERLAP: Final = timedelta(hours=24)  # that an old secret signs beside the new one

Url = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_URL)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Types = Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_TYPES)]
Sequence = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class NewWebhookBody(msgspec.Struct, forbid_unknown_fields=True):
    """Where to, and which types of events, as `job.succeeded` or `job.*`; null for all."""

    url: Url
    event_types: Types | None = None
    description: Text = ""


class ChangeWebhookBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is left out stays as it is."""

    url: Url | msgspec.UnsetType = msgspec.UNSET
    event_types: Types | msgspec.UnsetType | None = msgspec.UNSET
    description: Text | msgspec.UnsetType = msgspec.UNSET


class DisableBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: Text = ""


class ReplayBody(msgspec.Struct, forbid_unknown_fields=True):
    """From which event on: by its sequence, or by the time from which on events were recorded."""

    from_sequence: Sequence | None = None
    from_time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class Webhook(msgspec.Struct):
    """An address that is told what happens.

    `url` is without what may be a secret. Everything up to `cursor`, a sequence of the log, was
    delivered, or is among the `waiting` deliveries, or has become a dead letter.
    """

    id: UUID
    url: str
    event_types: list[str] | None
    description: str
    status: Literal["enabled", "disabled", "removed"]
    disabled_by: Literal["person", "gone"] | None
    reason: str | None
    key_id: str
    old_key_id: str | None
    old_key_valid_until: datetime | None
    cursor: int | None
    waiting: int | None
    created_at: datetime
    created_by: str
    sequence: int
    note: str | msgspec.UnsetType = msgspec.UNSET


class WebhookSecret(msgspec.Struct):
    """`secret` verifies what is sent. It is shown this once."""

    id: UUID
    key_id: str
    secret: str
    old_key_id: str | None
    old_key_valid_until: datetime | None
    sequence: int
    note: str | msgspec.UnsetType = msgspec.UNSET


class DoneToWebhook(msgspec.Struct):
    id: UUID
    status: Literal["removed", "replaying"]
    sequence: int
    note: str | msgspec.UnsetType = msgspec.UNSET


class DeliveryAttempt(msgspec.Struct):
    """One request to the receiver: the event (none for a test), and what came of it.

    `answer` is the beginning of what the receiver said; `error` why it was not heard.
    """

    event_sequence: int | None
    message_id: str
    type: str
    attempt: int
    time: datetime
    outcome: Outcome
    status: int | None
    latency_ms: float
    error: str
    answer: str


class WebhooksController(Controller):
    path = "/webhooks"
    tags = ("webhooks",)

    @get("/")
    async def list_webhooks(
        self,
        shown: NamedDependency[Shown],
        care: NamedDependency[WebhookCare],
        workspace: NamedDependency[str],
    ) -> Response[Page[Webhook]]:
        """In the order in which they were added, with how far each has come.

        With `as_of`, `cursor` and `waiting` are null: how far one had come is not in the log.
        """
        standing = await care.standing() if shown.queries.sequence is None else None
        rows = await shown.queries.webhooks(workspace)
        return shown.whole([webhook_answer(row, standing) for row in rows])

    @get("/event-types")
    async def event_types(self) -> Page[str]:
        """The types of events, and `*` for all of an aggregate."""
        return Page([*TYPES, *AGGREGATES])

    @post("/", status_code=201)
    async def add(
        self,
        data: JSONBody[NewWebhookBody],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        care: NamedDependency[WebhookCare],
    ) -> WebhookSecret:
        """Tell this address of what happens from now on. Keep `secret`: it cannot be shown again."""
        webhook_id = caller.resource_id
        types = require_types(data.event_types)
        url_id = await care.keep_url(webhook_id, data.url)
        secret = await care.make_secret(caller, webhook_id)
        command = AddWebhook(
            webhook_id=webhook_id,
            url=shown_url(data.url),
            url_id=url_id,
            event_types=types,
            description=data.description,
            key_id=secret.id,
        )
        done = await commands.send(caller, "webhook", webhook_id, command)
        return WebhookSecret(
            webhook_id, secret.id, secret.text, None, None, done.sequence, note_of(done)
        )

    @get("/{webhook_id:uuid}")
    async def webhook(
        self,
        webhook_id: FromPath[UUID],
        shown: NamedDependency[Shown],
        care: NamedDependency[WebhookCare],
        workspace: NamedDependency[str],
    ) -> Response[Webhook]:
        """One of them, with how far it has come."""
        row = await require_webhook(shown.queries, workspace, webhook_id)
        standing = await care.standing() if shown.queries.sequence is None else None
        return shown.answered(webhook_answer(row, standing))

    @patch("/{webhook_id:uuid}")
    async def change(
        self,
        webhook_id: FromPath[UUID],
        data: JSONBody[ChangeWebhookBody],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        queries: NamedDependency[Queries],
        care: NamedDependency[WebhookCare],
        workspace: NamedDependency[str],
        if_match: IfMatch = None,
    ) -> Webhook:
        """Another address, other types, another description. What waits goes to the new address."""
        row = await require_webhook(queries, workspace, webhook_id)
        require_revision(if_match, row.sequence)
        url = data.url if isinstance(data.url, str) else None
        types = data.event_types
        command = ChangeWebhook(
            webhook_id=webhook_id,
            url=shown_url(url) if url is not None else None,
            url_id=await care.keep_url(webhook_id, url) if url is not None else None,
            event_types=require_types(types) if isinstance(types, list) else None,
            all_types=types is None,
            description=data.description if isinstance(data.description, str) else None,
        )
        return await _do(command, caller, commands, queries, care, workspace)

    @post("/{webhook_id:uuid}/disable", status_code=200)
    async def disable(
        self,
        webhook_id: FromPath[UUID],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        queries: NamedDependency[Queries],
        care: NamedDependency[WebhookCare],
        workspace: NamedDependency[str],
        data: JSONBody[DisableBody | None] = None,
    ) -> Webhook:
        """Send nothing more; what happens waits in the log until it is enabled again."""
        reason = data.reason if data else ""
        command = DisableWebhook(webhook_id=webhook_id, by="person", reason=reason)
        return await _do(command, caller, commands, queries, care, workspace)

    @post("/{webhook_id:uuid}/enable", status_code=200)
    async def enable(
        self,
        webhook_id: FromPath[UUID],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        queries: NamedDependency[Queries],
        care: NamedDependency[WebhookCare],
        workspace: NamedDependency[str],
    ) -> Webhook:
        """Go on where it was disabled. What had been waiting for another attempt is tried at once."""
        command = EnableWebhook(webhook_id=webhook_id)
        return await _do(command, caller, commands, queries, care, workspace)

    @delete("/{webhook_id:uuid}", status_code=200)
    async def remove(
        self,
        webhook_id: FromPath[UUID],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
    ) -> DoneToWebhook:
        """Tell it nothing more. Its secrets and what was tried are forgotten; the log is not."""
        command = RemoveWebhook(webhook_id=webhook_id)
        done = await commands.send(caller, "webhook", webhook_id, command)
        return DoneToWebhook(webhook_id, "removed", done.sequence, note_of(done))

    @post("/{webhook_id:uuid}/rotate-secret", status_code=200)
    async def rotate_secret(
        self,
        webhook_id: FromPath[UUID],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        queries: NamedDependency[Queries],
        care: NamedDependency[WebhookCare],
        workspace: NamedDependency[str],
    ) -> WebhookSecret:
        """Sign with a new secret, and for 24 hours with the old one too."""
        await require_webhook(queries, workspace, webhook_id)
        secret = await care.make_secret(caller, webhook_id)
        command = RotateWebhookSecret(
            webhook_id=webhook_id, key_id=secret.id, old_valid_until=datetime.now(UTC) + OVERLAP
        )
        done = await commands.send(caller, "webhook", webhook_id, command)
        row = await require_webhook(queries, workspace, webhook_id)
        return WebhookSecret(
            webhook_id,
            secret.id,
            secret.text,
            row.old_key_id,
            row.old_key_valid_until,
            done.sequence,
            note_of(done),
        )

    @post("/{webhook_id:uuid}/test", status_code=200)
    async def test(
        self,
        webhook_id: FromPath[UUID],
        caller: NamedDependency[Caller],
        queries: NamedDependency[Queries],
        care: NamedDependency[WebhookCare],
        workspace: NamedDependency[str],
    ) -> DeliveryAttempt:
        """Send `webhook.test` now, also to one that is disabled, and answer what the receiver said."""
        row = await require_webhook(queries, workspace, webhook_id)
        return attempt_answer(await care.test(row, caller))

    @get("/{webhook_id:uuid}/deliveries")
    async def deliveries(
        self,
        webhook_id: FromPath[UUID],
        queries: NamedDependency[Queries],
        care: NamedDependency[WebhookCare],
        workspace: NamedDependency[str],
        limit: Limit = 20,
        cursor: Cursor = None,
    ) -> Page[DeliveryAttempt]:
        """What was tried in the last 30 days, newest first."""
        await require_webhook(queries, workspace, webhook_id)
        found = await care.attempts(webhook_id, decode_cursor(cursor), limit + 1)
        return page_of(found, limit, lambda attempt: attempt.id, attempt_answer)

    @post("/{webhook_id:uuid}/replay", status_code=202)
    async def replay(
        self,
        webhook_id: FromPath[UUID],
        data: JSONBody[ReplayBody],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        queries: NamedDependency[Queries],
        feed: NamedDependency[Feed],
        workspace: NamedDependency[str],
    ) -> DoneToWebhook:
        """Deliver everything from there on, whether it was delivered before or not, under the same ids."""
        await require_webhook(queries, workspace, webhook_id)
        after = await _position(data, queries, feed, workspace)
        command = ReplayWebhook(webhook_id=webhook_id, after=after)
        done = await commands.send(caller, "webhook", webhook_id, command)
        return DoneToWebhook(webhook_id, "replaying", done.sequence, note_of(done))


async def _do(
    command: WebhookCommand,
    caller: Caller,
    commands: Commands,
    queries: Queries,
    care: WebhookCare,
    workspace: str,
) -> Webhook:
    done = await commands.send(caller, "webhook", command.webhook_id, command)
    row = await require_webhook(queries, workspace, command.webhook_id)
    return webhook_answer(row, await care.standing(), done)


async def _position(data: ReplayBody, queries: Queries, feed: Feed, workspace: str) -> int:
    if (data.from_sequence is None) == (data.from_time is None):
        raise invalid("from_sequence", "either this or from_time", "body")
    if data.from_time is not None:
        return await queries.last_until(workspace, data.from_time - timedelta(microseconds=1))
    last = (await feed.state("EVENTS")).last
    after = (data.from_sequence or 1) - 1
    if after > last:
        raise invalid("from_sequence", f"the log ends at sequence {last}", "body")
    return after


async def require_webhook(queries: Readable, workspace: str, webhook_id: UUID) -> WebhookRow:
    row = await queries.webhook(workspace, webhook_id)
    if row is None or row.status == "removed":
        raise missing(queries, f"webhook {webhook_id}")
    return row


def webhook_answer(row: WebhookRow, standing: Standing | None, done: Done | None = None) -> Webhook:
    cursor = standing.cursors.get(row.id) if standing else None
    return Webhook(
        id=row.id,
        url=row.url,
        event_types=row.event_types,
        description=row.description,
        status=row.status,
        disabled_by=row.disabled_by,
        reason=row.reason,
        key_id=row.key_id,
        old_key_id=row.old_key_id,
        old_key_valid_until=row.old_key_valid_until,
        cursor=cursor.sequence if cursor else None,
        waiting=standing.waiting.get(row.id, 0) if standing else None,
        created_at=row.created_at,
        created_by=row.created_by,
        sequence=row.sequence,
        note=note_of(done),
    )


def attempt_answer(attempt: Attempt) -> DeliveryAttempt:
    answer = attempt.answer
    return DeliveryAttempt(
        event_sequence=attempt.sequence or None,
        message_id=attempt.message_id,
        type=attempt.type,
        attempt=attempt.attempt,
        time=attempt.at,
        outcome=attempt.outcome,
        status=answer.status,
        latency_ms=round(1000 * answer.latency_s, 1),
        error=answer.error,
        answer=answer.text,
    )
