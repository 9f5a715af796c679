"""A child's ties to its parent: it dies with it, hears it on standard input, and answers on a clean pipe."""

import ctypes
import os
import signal
import sys
import threading
from typing import Any, BinaryIO

from pydantic import ValidationError

from gpu_agent.protocol import ChildOrder

PR_SET_PDEATHSIG = 1  # linux/prctl.h
ORPHANED = 3  # exit code when the parent has gone; nobody is left to read it


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends.

    A parent that died before the call is noticed by the end of standard input instead.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the agent's to handle
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")


def claim_stdout() -> BinaryIO:
    """Keep file descriptor 1 for the protocol and send everybody else's prints to standard error."""
    protocol = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(protocol, "wb")


def leave_out_quantisation() -> None:
    """Keep peft from loading bitsandbytes: over a second at every start, and most work does without."""
    not_to_be_found: Any = None
    sys.modules.setdefault("bitsandbytes", not_to_be_found)


class Orders:
    """Listens for the parent in a thread of its own, so that a long import or step cannot make it deaf."""

    def __init__(self, lines: BinaryIO) -> None:
        self._lines = lines
        self._stop = threading.Event()
        self._done = threading.Event()
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    @property
    def stop(self) -> bool:
        return self._stop.is_set()

    def finish(self) -> None:
        """Say that the last fact is about to be written: from now on the parent may leave."""
        self._done.set()

    def _listen(self) -> None:
        for line in self._lines:
            try:
                if ChildOrder.model_validate_json(line).stop:
                    self._stop.set()
            except ValidationError as error:
                print(f"not an order: {error}", file=sys.stderr)  # noqa: T201 - the agent keeps stderr
        os._exit(0 if self._done.is_set() else ORPHANED)
