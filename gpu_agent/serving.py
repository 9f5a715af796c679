"""The process that answers requests: predictions, and text a token at a time, until its parent goes away."""

import os
import sys
import threading
import traceback
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import BinaryIO, Protocol

from pydantic import BaseModel

from gpu_agent.pipes import claim_stdout, die_with_parent, leave_out_quantisation
from gpu_agent.protocol import SIGN_S, ServingInput, ServingReady, Working

Say = Callable[[BaseModel], None]


class Work(Protocol):
    """What there is to do; nothing of it raises."""

    @property
    def busy(self) -> bool: ...

    def take(self, line: bytes) -> None: ...

    def step(self) -> None: ...


def main() -> None:
    die_with_parent()
    output = claim_stdout()
    config = ServingInput.model_validate_json(sys.stdin.buffer.readline())
    lines: SimpleQueue[bytes | None] = SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, lines), daemon=True).start()

    def say(message: BaseModel) -> None:
        output.write(message.model_dump_json().encode() + b"\n")
        output.flush()

    work = _load(config, say)
    say(ServingReady())
    serve(lines, work, say)


def _load(config: ServingInput, say: Say) -> Work:
    leave_out_quantisation()
    from gpu_agent.answering import Answering  # noqa: PLC0415 - torch, after the ties are made

    return Answering(config, say)


def _listen(source: BinaryIO, lines: "SimpleQueue[bytes | None]") -> None:
    for line in source:
        lines.put(line)
    lines.put(None)


def serve(lines: "SimpleQueue[bytes | None]", work: Work, say: Say) -> None:
    """Take what has come in, do a step, and so on; None ends it."""
    while True:
        try:
            line = lines.get(block=not work.busy, timeout=SIGN_S)
        except Empty:
            if not work.busy:
                say(Working())
            work.step()
            continue
        if line is None:
            return
        work.take(line)


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # noqa: BLE001 - the top of the process: the agent reads it from stderr
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)  # an ordinary exit takes a moment to unload torch
