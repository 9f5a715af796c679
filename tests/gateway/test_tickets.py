"""Signed links: good for what they say and as long as they say, and for nothing else."""

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.problems import Problem
from gateway.tickets import ArchiveTicket, Ticket, Tickets, ticket_key
from tests.gateway.world import PEPPER

TICKETS = Tickets(ticket_key(PEPPER))
HASH = "ab" * 32
TICKET = Ticket("GET", HASH, 1000, filename="größe.bin", holder="key:00000000")
ARCHIVE = ArchiveTicket("support", 1, UUID(int=1), 1000)


def code_of(text: str, now: int = 0) -> str:
    with pytest.raises(Problem) as refused:
        TICKETS.read(text, now)
    return refused.value.code


@given(
    st.builds(
        Ticket,
        st.sampled_from(["GET", "PUT"]),
        st.just(HASH),
        st.integers(1, 2**40),
        filename=st.text(max_size=50),
        size=st.none() | st.integers(0, 2**50),
        holder=st.text(max_size=50),
    )
)
def test_a_ticket_is_read_as_it_was_issued(ticket: Ticket) -> None:
    text = TICKETS.issue(ticket)

    assert TICKETS.read(text, ticket.expires_at - 1) == ticket
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def test_a_ticket_ends_with_its_second() -> None:
    assert TICKETS.read(TICKETS.issue(TICKET), 999) == TICKET
    assert code_of(TICKETS.issue(TICKET), 1000) == "ticket_expired"


def test_no_character_of_a_ticket_can_be_changed() -> None:
    text = TICKETS.issue(TICKET)

    for place in range(len(text)):
        for other in "AB-.=é\x00":
            if other != text[place]:
                assert code_of(text[:place] + other + text[place + 1 :]) == "ticket_invalid"


@given(st.text(max_size=200))
def test_no_text_of_others_is_a_ticket(text: str) -> None:
    assert code_of(text) == "ticket_invalid"


def test_another_pepper_signs_other_tickets() -> None:
    assert code_of(Tickets(ticket_key(b"other")).issue(TICKET)) == "ticket_invalid"
    assert ticket_key(PEPPER) != PEPPER


def test_a_ticket_for_an_archive_is_none_for_a_blob_and_the_other_way_round() -> None:
    archive = TICKETS.issue_archive(ARCHIVE)

    assert TICKETS.read_archive(archive, 999) == ARCHIVE
    assert code_of(archive) == "ticket_invalid"
    with pytest.raises(Problem, match="not one of ours"):
        TICKETS.read_archive(TICKETS.issue(TICKET), 0)


@pytest.mark.parametrize(
    "name", ["", "../../canary", "/etc/passwd", HASH.upper(), HASH + "\n", HASH[1:]]
)
def test_a_ticket_for_what_is_no_hash_opens_nothing(name: str) -> None:
    with pytest.raises(Problem) as refused:
        TICKETS.read(TICKETS.issue(replace(TICKET, sha256=name)), 0)

    assert refused.value.code == "ticket_invalid"
