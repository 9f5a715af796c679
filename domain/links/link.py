"""The rules of a link: it is issued once, and ends by itself."""

from collections.abc import Sequence
from dataclasses import dataclass

from domain.errors import Rejected
from domain.links.commands import IssueLink
from domain.links.events import LinkIssued
from domain.messages import Decider


class LinkExists(Rejected):
    """A link with this id was issued before, by another command."""

    code = "link_exists"


@dataclass(frozen=True, slots=True)
class Absent:
    """Nobody asked for it."""


@dataclass(frozen=True, slots=True)
class Issued:
    issued: LinkIssued


Link = Absent | Issued


def decide(command: IssueLink, link: Link) -> Sequence[LinkIssued]:
    if isinstance(link, Issued):
        raise LinkExists(f"link {command.link_id} was issued before")
    return [LinkIssued(**command.model_dump(exclude={"type"}))]


def evolve(_: Link, event: LinkIssued) -> Link:
    return Issued(event)


decider: Decider[IssueLink, Link, LinkIssued] = Decider(Absent(), decide, evolve)
