"""What a stack needs from the machine it runs on: its system, disk space, free loopback ports."""

import errno
import platform
import random
import shutil
import socket
from pathlib import Path

from finetrail.stack.errors import StackError

MIN_FREE_BYTES = 1024**3  # a base model, a few training checkpoints and the log's next segments
LOWEST_PORT = 10_240
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def check_system() -> None:
    if platform.system() != "Linux":
        raise StackError(
            "The embedded stack runs on Linux only.",
            "Run the roles one by one with FINETRAIL_NATS__URL and FINETRAIL_POSTGRES__DSN set.",
        )


def explained(error: OSError, folder: Path) -> StackError:
    """An operating system's refusal in words."""
    if error.errno == errno.ENOSPC:
        return StackError(f"The disk that holds {folder} is full.", "Free some space on it.")
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return StackError(
            f"Not permitted: {error}.",
            f"Start the stack as the owner of {folder}, or choose another FINETRAIL_DATA_DIR.",
        )
    return StackError(f"The operating system says: {error}.")


def check_free_space(folder: Path, wanted: int = MIN_FREE_BYTES) -> None:
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise StackError(
            f"The disk that holds {folder} has {free // 1024**2} MiB free; "
            f"a stack wants at least {wanted // 1024**2} MiB.",
            "Free some space, or move the data with FINETRAIL_DATA_DIR.",
        )


def free_port() -> int:
    """A free loopback port outside the range that the kernel gives to outgoing connections.

    Inside it, a client that looks for a server which is just being restarted can be given the
    server's own port, connect to itself, and keep the server from coming back.
    """
    chosen = random.Random()
    for _ in range(100):
        port = chosen.randrange(LOWEST_PORT, _below())
        if is_free("127.0.0.1", port):
            return port
    raise StackError("No free loopback port was found in 100 attempts.")


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now.

    Raises:
        StackError: This account may not use the port.
        OSError: This machine does not have the address.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            probe.bind(address)
            probe.listen(1)
        except PermissionError as error:
            raise StackError(
                f"This account may not listen on port {port}.", "Choose a port above 1023."
            ) from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def _below() -> int:
    try:
        first = int(EPHEMERAL_RANGE.read_text().split()[0])
    except OSError:
        first = 32_768
    return first if first > LOWEST_PORT + 1000 else 65_536
