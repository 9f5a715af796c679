"""The rules of access."""

from domain.access.access import KeyExists, access_id, decider
from domain.access.commands import IssueKey, RevokeKey
from domain.access.events import KeyIssued, KeyRevoked
from domain.errors import NotFound
from tests.spec import Spec

access = Spec(decider)

issue = IssueKey(key_id="Ab3dEf7h", name="ci", role="editor", secret_hmac="0" * 64)
issued = KeyIssued(key_id="Ab3dEf7h", name="ci", role="editor", secret_hmac="0" * 64)
revoke = RevokeKey(key_id="Ab3dEf7h")
revoked = KeyRevoked(key_id="Ab3dEf7h")


def test_a_key_is_issued_once() -> None:
    access.when(issue).then(issued)
    access.given(issued).when(issue).then_rejected(KeyExists)


def test_a_revoked_key_does_not_come_back() -> None:
    access.given(issued).when(revoke).then(revoked)
    access.given(issued, revoked).when(revoke).then_nothing()
    access.given(issued, revoked).when(issue).then_rejected(KeyExists)


def test_a_key_that_was_never_issued_is_not_found() -> None:
    access.when(revoke).then_rejected(NotFound)


def test_a_revoked_key_is_no_longer_in_force() -> None:
    assert decider.fold([issued]).keys == {"Ab3dEf7h": issued}
    assert decider.fold([issued, revoked]).keys == {}


def test_every_workspace_has_its_own_access() -> None:
    assert access_id("default") != access_id("other")
