"""The rules of a webhook, and what a receiver is sent."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from pydantic import ValidationError
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from domain.catalog import EVENTS
from domain.errors import NotFound
from domain.webhooks import messages
from domain.webhooks.commands import (
    AddWebhook,
    ChangeWebhook,
    DisableWebhook,
    EnableWebhook,
    RemoveWebhook,
    ReplayWebhook,
    RotateWebhookSecret,
)
from domain.webhooks.events import (
    WebhookAdded,
    WebhookChanged,
    WebhookDisabled,
    WebhookEnabled,
    WebhookEvent,
    WebhookRemoved,
    WebhookReplayed,
    WebhookSecretRotated,
)
from domain.webhooks.webhook import Present, WebhookExists, decider
from tests.spec import Spec

webhook = Spec(decider)
ID = UUID(int=7)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
FIRST, SECOND, THIRD = (f"key_{digit * 16}" for digit in "123")
ADD = AddWebhook(
    webhook_id=ID,
    url="https://hooks.example.org/a",
    url_id="url_1111111111111111",
    event_types=("job.succeeded",),
    key_id=FIRST,
)
ADDED = WebhookAdded(**ADD.model_dump(exclude={"type"}))
ROTATED = WebhookSecretRotated(
    webhook_id=ID, key_id=SECOND, old_key_id=FIRST, old_valid_until=NOW + timedelta(hours=24)
)
DISABLED = WebhookDisabled(webhook_id=ID, by="person", reason="")
REMOVED = WebhookRemoved(webhook_id=ID)


def folded(*events: WebhookEvent) -> Present:
    state = decider.fold(events)
    assert isinstance(state, Present)
    return state


def test_a_webhook_is_added_once() -> None:
    webhook.when(ADD).then(ADDED)
    webhook.given(ADDED).when(ADD).then_rejected(WebhookExists)
    webhook.given(ADDED, REMOVED).when(ADD).then_rejected(WebhookExists)


def test_what_is_not_named_in_a_change_stays() -> None:
    change = ChangeWebhook(webhook_id=ID, description="chat")
    changed = WebhookChanged(
        webhook_id=ID,
        url=ADDED.url,
        url_id=ADDED.url_id,
        event_types=ADDED.event_types,
        description="chat",
    )
    webhook.given(ADDED).when(change).then(changed)
    webhook.given(ADDED, changed).when(change).then_nothing()


def test_a_choice_of_types_is_taken_away_by_asking_for_all() -> None:
    webhook.given(ADDED).when(ChangeWebhook(webhook_id=ID, all_types=True)).then(
        WebhookChanged(
            webhook_id=ID, url=ADDED.url, url_id=ADDED.url_id, event_types=None, description=""
        )
    )


def test_disabling_and_enabling_twice_is_no_error() -> None:
    disable, enable = DisableWebhook(webhook_id=ID), EnableWebhook(webhook_id=ID)
    webhook.given(ADDED).when(disable).then(DISABLED)
    webhook.given(ADDED, DISABLED).when(disable).then_nothing()
    webhook.given(ADDED, DISABLED).when(enable).then(WebhookEnabled(webhook_id=ID))
    webhook.given(ADDED).when(enable).then_nothing()


def test_both_secrets_sign_until_the_old_ones_time_is_up() -> None:
    rotate = RotateWebhookSecret(
        webhook_id=ID, key_id=SECOND, old_valid_until=ROTATED.old_valid_until
    )
    webhook.given(ADDED).when(rotate).then(ROTATED)

    state = folded(ADDED, ROTATED)

    assert state.keys_at(NOW) == (SECOND, FIRST)
    assert state.keys_at(NOW + timedelta(hours=24)) == (SECOND,)


def test_a_second_rotation_does_not_prolong_the_first_secret() -> None:
    again = WebhookSecretRotated(
        webhook_id=ID, key_id=THIRD, old_key_id=SECOND, old_valid_until=NOW + timedelta(hours=30)
    )

    state = folded(ADDED, ROTATED, again)

    assert state.keys_at(NOW) == (THIRD, SECOND, FIRST)
    assert state.keys_at(NOW + timedelta(hours=25)) == (THIRD, SECOND)


def test_a_replay_is_recorded_and_changes_nothing_else() -> None:
    replayed = WebhookReplayed(webhook_id=ID, after=5)
    webhook.given(ADDED).when(ReplayWebhook(webhook_id=ID, after=5)).then(replayed)
    assert folded(ADDED, replayed) == folded(ADDED)


def test_what_is_removed_or_was_never_there_is_not_found() -> None:
    webhook.given(ADDED).when(RemoveWebhook(webhook_id=ID)).then(REMOVED)
    webhook.given(ADDED, REMOVED).when(RemoveWebhook(webhook_id=ID)).then_nothing()
    webhook.given(ADDED, REMOVED).when(EnableWebhook(webhook_id=ID)).then_rejected(NotFound)
    webhook.when(ReplayWebhook(webhook_id=ID, after=5)).then_rejected(NotFound)


@pytest.mark.parametrize("name", ["job", "job.", "Job.succeeded", "job.*.x", "job succeeded"])
def test_what_is_no_type_cannot_be_chosen(name: str) -> None:
    with pytest.raises(ValidationError):
        ChangeWebhook(webhook_id=ID, event_types=(name,))


def test_every_event_has_a_name_of_its_own() -> None:
    names = {name: messages.type_name(of, name) for name, (of, _) in EVENTS.items()}

    assert len(set(names.values())) == len(names)
    assert names["JobSucceeded"] == "job.succeeded"
    assert names["ModelReady"] == "model_version.ready"
    assert names["CheckpointSaved"] == "job.checkpoint_saved"


def test_types_are_chosen_by_name_or_by_aggregate() -> None:
    assert messages.wants(None, "job.succeeded")
    assert messages.wants(("job.succeeded",), "job.succeeded")
    assert messages.wants(("job.*",), "job.failed")
    assert not messages.wants(("job.*",), "model.created")


def test_an_id_is_the_same_at_each_attempt_and_another_for_each_webhook() -> None:
    event = UUID(int=9)
    assert messages.message_id(ID, event) == messages.message_id(ID, event)
    assert messages.message_id(ID, event) != messages.message_id(UUID(int=8), event)


HEADERS = {
    "ce-id": str(UUID(int=3)),
    "ce-type": "KeyIssued",
    "ce-time": "2026-11-21T12:00:00Z",
    "ce-actor": "key:ab%20c",
    "ce-correlationid": str(UUID(int=4)),
    "ce-causationid": str(UUID(int=5)),
}
SUBJECT = f"events.default.access.{UUID(int=1)}"


def test_what_nobody_is_shown_is_not_sent() -> None:
    data = b'{"key_id": "k", "secret_hmac": "abc"}'

    body = json.loads(messages.body_of(SUBJECT, 12, HEADERS, data, "https://f.example"))

    assert body["type"] == "access.key_issued"
    assert body["timestamp"] == "2026-11-21T12:00:00Z"
    assert body["data"]["event"] == {"key_id": "k"}
    assert (body["data"]["sequence"], body["data"]["actor"]) == (12, "key:ab c")
    assert body["data"]["link"] == "https://f.example/api/v1/events?after=11&limit=1"


def test_an_event_that_is_too_long_is_named_by_its_link() -> None:
    data = json.dumps({"text": "x" * 30_000}).encode()

    sent = messages.body_of(SUBJECT, 12, HEADERS, data, "https://f.example")

    assert len(sent) < messages.MAX_BODY
    assert json.loads(sent)["data"]["event"] is None


def test_the_reference_library_accepts_either_signature_while_a_secret_rotates() -> None:
    old, new = messages.secret_text(b"o" * 32), messages.secret_text(b"n" * 32)
    headers = messages.signed_headers("msg_1", datetime.now(UTC), b'{"a":"\xc3\xa9"}', [new, old])

    for secret in (old, new):
        assert Webhook(secret).verify(b'{"a":"\xc3\xa9"}', headers) == {"a": "é"}
    with pytest.raises(WebhookVerificationError):
        Webhook(messages.secret_text(b"x" * 32)).verify(b"{}", headers)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example/hook", "https://a.example/hook"),
        ("https://me:pass@a.example:8443/h", "https://***@a.example:8443/h"),
        ("https://a.example/h?token=abc#x", "https://a.example/h?***"),
    ],
)
def test_what_may_be_a_secret_in_an_address_is_not_shown(url: str, shown: str) -> None:
    assert messages.shown_url(url) == shown
