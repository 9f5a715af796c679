"""Real child processes: killed and gone on, stopped, orphaned, and with outcomes instead of crashes."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from domain.work import (
    CheckpointWritten,
    EvaluationFinished,
    Failed,
    Started,
    StepDone,
    Stopped,
    TrainingFinished,
)
from gpu_agent.outcomes import out_of_memory
from gpu_agent.pipes import ORPHANED
from gpu_agent.protocol import ChildOrder
from tests.gpu_agent import processes, tiny
from tests.gpu_agent.tiny import of_kind

MANY_EPOCHS = 1000  # more than any test waits for


@pytest.mark.slow
def test_child_killed_in_mid_training_goes_on_to_the_same_bytes(
    data: Path, tmp_path: Path, models_folder: Path
) -> None:
    job = tiny.spec(data, epochs=6)
    whole, status = processes.run(tiny.train_order(job, data, tmp_path / "whole", models_folder))
    assert status == 0

    with processes.started(
        "gpu_agent.child", tiny.train_order(job, data, tmp_path / "killed", models_folder)
    ) as child:
        for fact in processes.facts_of(child):
            if isinstance(fact, StepDone) and fact.step == 15:
                child.kill()
        assert child.wait(processes.TIME_LIMIT_S) == -9
    left = max((tmp_path / "killed" / "checkpoints").glob("step-??????"))
    resumed, status = processes.run(
        tiny.train_order(job, data, tmp_path / "resumed", models_folder, checkpoint=left)
    )

    assert status == 0
    assert 12 <= of_kind(resumed, Started)[0].first_step < 36
    ends = [of_kind(facts, TrainingFinished)[0] for facts in (whole, resumed)]
    assert tiny.adapter_bytes(ends[0].folder) == tiny.adapter_bytes(ends[1].folder)


@pytest.mark.slow
def test_child_stops_at_the_next_step_when_asked(
    data: Path, tmp_path: Path, models_folder: Path
) -> None:
    job = tiny.spec(data, epochs=MANY_EPOCHS)
    order = tiny.train_order(job, data, tmp_path, models_folder)

    with processes.started("gpu_agent.child", order) as child:
        asked_at = 0
        last = None
        for fact in processes.facts_of(child):
            last = fact
            if isinstance(fact, StepDone) and not asked_at:
                asked_at = fact.step
                processes.say(child, ChildOrder(stop=True))
        status = child.wait(processes.TIME_LIMIT_S)

    assert status == 0
    assert isinstance(last, Stopped)
    assert asked_at <= last.step < 1000  # a step takes milliseconds, a line through a pipe does too


@pytest.mark.slow
def test_child_ends_when_its_parent_closes_the_pipe(
    data: Path, tmp_path: Path, models_folder: Path
) -> None:
    job = tiny.spec(data, epochs=MANY_EPOCHS)

    with processes.started(
        "gpu_agent.child", tiny.train_order(job, data, tmp_path, models_folder)
    ) as child:
        assert child.stdin
        child.stdin.close()
        child.stdin = None

        assert child.wait(processes.TIME_LIMIT_S) == ORPHANED


def test_process_dies_with_its_parent_even_while_the_pipe_is_open() -> None:
    child = (
        "import time; from gpu_agent.pipes import die_with_parent;"
        "die_with_parent(); print('tied', flush=True); time.sleep(600)"
    )
    parent = (
        "import os, subprocess, sys;"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE);"
        "child.stdout.readline(); print(child.pid, flush=True); os.kill(os.getpid(), 9)"
    )

    ended = subprocess.run(
        [sys.executable, "-c", parent], capture_output=True, check=False, timeout=60
    )

    assert ended.returncode == -9
    assert has_ended(int(ended.stdout))


def has_ended(pid: int) -> bool:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], 10)[0])  # readable from the end on
    finally:
        os.close(process)


def test_prints_of_others_do_not_reach_the_protocol() -> None:
    code = (
        "import os; from gpu_agent.pipes import claim_stdout;"
        "facts = claim_stdout(); print('noise', flush=True); os.system('echo more noise');"
        "facts.write(b'fact'); facts.flush()"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

    assert ended.stdout == b"fact"
    assert ended.stderr == b"noise\nmore noise\n"


def test_torch_is_not_loaded_before_the_parent_is_heard() -> None:
    code = (
        "import sys, gpu_agent.child, gpu_agent.serving;"
        "print([name for name in ('torch', 'transformers', 'sklearn') if name in sys.modules])"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

    assert ended.stdout == b"[]\n"


@pytest.mark.slow
def test_refused_base_model_is_an_outcome_and_not_a_crash(
    data: Path, tmp_path: Path, models_folder: Path
) -> None:
    job = tiny.spec(data).model_copy(update={"base_model": "org/name@main"})

    facts, status = processes.run(tiny.train_order(job, data, tmp_path, models_folder))

    assert status == 0
    assert isinstance(facts[-1], Failed)
    assert (facts[-1].code, facts[-1].retryable) == ("base_model_refused", False)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
        ),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"),
    ],
)
def test_running_out_of_memory_is_recognised(error: Exception) -> None:
    assert out_of_memory(error)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert not out_of_memory(RuntimeError("shapes cannot be multiplied"))


@pytest.mark.slow
def test_bundled_model_trains_and_is_compared_on_the_example(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "intents.csv"
    job = tiny.minilm_spec(example, epochs=1)
    trained, status = processes.run(tiny.train_order(job, example, tmp_path, None))
    assert status == 0
    finished = of_kind(trained, TrainingFinished)[0]
    assert len(of_kind(trained, CheckpointWritten)) >= 1

    order = tiny.evaluate_order(
        job, example, tmp_path, None, Path(finished.folder), finished.labels
    )
    evaluated, status = processes.run(order)

    assert status == 0
    summary = of_kind(evaluated, EvaluationFinished)[0].summary
    assert summary.rows >= 150
    assert summary.base.accuracy > 0.85
    assert summary.untrained.accuracy < 0.35
    assert summary.fine_tuned.accuracy > 0.75  # after one epoch of three
