"""From where a request came: the client's address, if it is to be recorded."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from litestar import Request

FORWARDED = "x-forwarded-for"


class Addresses:
    """Tells where a request came from.

    Args:
        proxies: addresses or networks of our own proxies; what they say of a client is believed.
    """

    def __init__(self, proxies: Sequence[str] = (), *, recorded: bool = True) -> None:
        self._proxies = [ip_network(proxy, strict=False) for proxy in proxies]
        self._recorded = recorded

    def of(self, request: Request[Any, Any, Any]) -> str:
        """The client's address; empty where it is unknown or not to be recorded."""
        if not self._recorded or request.client is None:
            return ""
        hops = ",".join(request.headers.getall(FORWARDED, [])).split(",")
        address = request.client.host
        for hop in reversed(hops):
            if not self._is_proxy(address) or not _is_address(hop.strip()):
                break
            address = hop.strip()
        return address if _is_address(address) else ""

    def _is_proxy(self, address: str) -> bool:
        return _is_address(address) and any(ip_address(address) in one for one in self._proxies)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
