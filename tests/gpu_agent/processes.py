"""Starts real children as an agent would, and reads what they say."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel

from domain.work import Fact
from gpu_agent.protocol import ChildInput, child_environment, decode_fact

TIME_LIMIT_S = 120


@contextmanager
def started(module: str, first_line: BaseModel) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **child_environment(1)},
    )
    try:
        say(child, first_line)
        yield child
    finally:
        child.kill()
        child.communicate()


def say(child: subprocess.Popen[bytes], line: BaseModel) -> None:
    assert child.stdin
    child.stdin.write(line.model_dump_json().encode() + b"\n")
    child.stdin.flush()


def facts_of(child: subprocess.Popen[bytes]) -> Iterator[Fact]:
    assert child.stdout
    for line in child.stdout:
        yield decode_fact(line)


def run(order: ChildInput) -> tuple[list[Fact], int]:
    """Let a child work to its end; give what it said and its exit code."""
    with started("gpu_agent.child", order) as child:
        facts = list(facts_of(child))
        return facts, child.wait(TIME_LIMIT_S)
