"""The first call of a function in a process computes what every later one does."""

import os
import subprocess
import sys

import pytest

from gpu_agent.protocol import child_environment

PROCESSES = 1500
# Every process forks off before MKL was asked for anything. Three at a time on two cores: a thread
# is often interrupted in the middle of its call. Without `choose_kernels` 5 to 20 of them differ.
FIRST_CALLS = """
import collections, os, sys
import torch
from gpu_agent.vector_mathematics import choose_kernels

torch.set_num_threads(1)
numbers = torch.randn(16, 384, generator=torch.Generator().manual_seed(1))

def first_call():
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        choose_kernels()
        torch.set_num_threads(2)
        first, again = torch.exp(numbers), torch.exp(numbers)
        os.write(writing, b"equal" if torch.equal(first, again) else b"other")
        os._exit(0)
    os.close(writing)
    return child, reading

def answer(child, reading):
    said = os.read(reading, 10).decode()
    os.close(reading)
    os.waitpid(child, 0)
    return said

answers, running = collections.Counter(), []
for _ in range(int(sys.argv[1])):
    running.append(first_call())
    if len(running) == 3:
        answers[answer(*running.pop(0))] += 1
for one in running:
    answers[answer(*one)] += 1
print(dict(answers))
"""


@pytest.mark.slow
def test_the_first_call_in_a_process_computes_what_every_later_one_does() -> None:
    program = [sys.executable, "-c", FIRST_CALLS, str(PROCESSES)]

    ran = subprocess.run(
        program,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, **child_environment(2)},
    )

    assert ran.stdout.strip() == f"{{'equal': {PROCESSES}}}"
