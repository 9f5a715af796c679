"""The rules of a link."""

from datetime import UTC, datetime
from uuid import UUID

from domain.links.commands import IssueLink
from domain.links.events import LinkIssued
from domain.links.link import LinkExists, decider
from tests.spec import Spec

link = Spec(decider)
ISSUE = IssueLink(
    link_id=UUID(int=1),
    resource="dataset",
    resource_id=UUID(int=2),
    expires_at=datetime(2026, 11, 20, tzinfo=UTC),
)
ISSUED = LinkIssued(**ISSUE.model_dump(exclude={"type"}))


def test_a_link_is_issued_for_one_thing_until_a_time() -> None:
    link.when(ISSUE).then(ISSUED)


def test_a_link_is_issued_once() -> None:
    link.given(ISSUED).when(ISSUE).then_rejected(LinkExists)
