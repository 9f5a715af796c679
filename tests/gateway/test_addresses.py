"""From where a request came, as far as that can be believed."""

from typing import Any

import pytest
from litestar import Request
from litestar.types import HTTPScope

from gateway.addresses import Addresses


def request(peer: str | None, *forwarded: str) -> Request[Any, Any, Any]:
    headers = [(b"x-forwarded-for", one.encode()) for one in forwarded]
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": headers,
        "client": (peer, 1234) if peer is not None else None,
    }
    made: HTTPScope = scope  # type: ignore[assignment]  # as much of it as is looked at
    return Request(made)


@pytest.mark.parametrize(
    ("peer", "forwarded", "told"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.2.3.4, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.2.3.4", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("::1", ["2001:db8::7"], "2001:db8::7"),
        ("a socket", [], ""),
        (None, [], ""),
    ],
)
def test_only_our_own_proxies_are_believed(
    peer: str | None, forwarded: list[str], told: str
) -> None:
    assert Addresses(["10.0.0.0/8", "::1"]).of(request(peer, *forwarded)) == told


def test_an_address_that_is_not_to_be_recorded_is_not_told() -> None:
    assert Addresses(recorded=False).of(request("203.0.113.9")) == ""
