"""Loopback ports for the embedded servers, and whether a wanted port can be had."""

import random
import socket
from pathlib import Path

from finetrail.stack.errors import StackError

LOWEST = 10_240
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A free loopback port outside the range that the kernel gives to outgoing connections.

    Inside it, a client that looks for a server which is just being restarted can be given the
    server's own port, connect to itself, and keep the server from coming back.
    """
    chosen = random.Random()
    for _ in range(100):
        port = chosen.randrange(LOWEST, _below())
        if is_free("127.0.0.1", port):
            return port
    raise StackError("No free loopback port was found in 100 attempts.")


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now.

    Raises:
        OSError: This machine does not have the address.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            probe.bind(address)
            probe.listen(1)
        except PermissionError:
            raise
        except OSError as error:
            if "in use" in str(error):
                return False
            raise
    return True


def _below() -> int:
    try:
        first = int(EPHEMERAL_RANGE.read_text().split()[0])
    except OSError:
        first = 32_768
    return first if first > LOWEST + 1000 else 65_536
