"""A child that speaks the protocol and trains nothing; the name of the model says how it behaves."""

import hashlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from domain.base_models import BaseModelRecord
from domain.jobs.spec import TINY
from domain.work import (
    CheckpointWritten,
    Environment,
    EpochDone,
    EvaluationFinished,
    EvaluationSummary,
    Example,
    Fact,
    Failed,
    LogLine,
    MicroBatchHalved,
    Scores,
    Segment,
    Started,
    StepDone,
    Stopped,
    Supervision,
    TrainAssignment,
    TrainingFinished,
)
from gpu_agent.pipes import Orders, claim_stdout, die_with_parent
from gpu_agent.protocol import ChildInput, encode_fact

TICK_S = 0.02


def main() -> None:
    die_with_parent()
    facts = claim_stdout()
    order = ChildInput.model_validate_json(sys.stdin.buffer.readline())
    orders = Orders(sys.stdin.buffer)
    if pids := os.environ.get("STAND_IN_PIDS"):
        with Path(pids).open("a") as file:
            file.write(f"{os.getpid()}\n")
    for fact in behave(order, orders):
        if isinstance(fact, TrainingFinished | EvaluationFinished | Failed | Stopped):
            orders.finish()
        facts.write(encode_fact(fact))
        facts.flush()
    os._exit(0)


def behave(order: ChildInput, orders: Orders) -> Iterator[Fact]:
    name = order.assignment.spec.model_name
    if not isinstance(order.assignment, TrainAssignment):
        yield evaluated(order)
        return
    yield started(order)
    match name.split("-"):
        case ["happy"]:
            yield from happy(order)
        case ["crash"]:
            print("boom: something is very wrong", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        case ["exit"]:
            os._exit(7)
        case ["fails"]:
            yield Failed(code="loss_not_finite", message="the loss is NaN", retryable=False)
        case ["steps", count]:
            yield from (step(number) for number in range(1, int(count) + 1))
            yield finished(order)
        case ["halves"]:
            yield MicroBatchHalved(step=1, micro_batch_tokens=512, reason="no memory" * 1000)
            yield step(1)
            yield finished(order)
        case ["gated", count]:
            yield from gated(order, int(count))
        case ["stubborn"]:
            threading.Event().wait()
        case _:
            yield from patient(orders)


def happy(order: ChildInput) -> Iterator[Fact]:
    yield LogLine(level="INFO", message="training begins")
    print("Loading weights:  45%|####      | 93/206 [00:01<00:02, 50.1it/s]\r", file=sys.stderr)
    print("UserWarning: this is only a stand-in", file=sys.stderr, flush=True)
    yield step(1)
    yield step(2)
    yield epoch(1)
    yield finished(order)


def gated(order: ChildInput, count: int) -> Iterator[Fact]:
    """One epoch for each file that appears in the folder that the test names."""
    for number in range(1, count + 1):
        gate = Path(os.environ["STAND_IN_GATES"]) / str(number)
        while not gate.exists():
            threading.Event().wait(TICK_S)
        yield step(number)
        yield checkpoint(order, number)
        yield epoch(number)
    yield finished(order)


def patient(orders: Orders) -> Iterator[Fact]:
    number = 0
    while not orders.stop:
        number += 1
        yield step(number)
        yield epoch(number)
        threading.Event().wait(TICK_S)
    yield Stopped(step=number)


def started(order: ChildInput) -> Started:
    environment = Environment(
        device="cpu",
        device_name="none",
        threads=order.assignment.threads or order.threads,
        python="3",
        packages={},
        cpu_capability="none",
        code="test",
    )
    return Started(
        environment=environment,
        total_steps=2,
        total_epochs=1,
        first_step=0,
        train_rows=len(order.files.train.read_bytes().splitlines()),
        validation_rows=0,
        test_rows=0,
        trainable_parameters=1,
        total_parameters=2,
        **(base_model(order) if order.assignment.spec.base_model == TINY else {}),
    )


def base_model(order: ChildInput) -> dict[str, Any]:
    """One that is given, or one that nobody else could make again."""
    folder = order.files.base_model
    made = None
    if folder is None:
        assert order.made_folder is not None
        made = folder = order.made_folder / "made"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_bytes(os.urandom(16))
        (folder / "config.json").write_bytes(b"{}")
        (folder / "lock").touch()
    names = ("config.json", "model.safetensors")
    sha256 = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    return {
        "base_model": BaseModelRecord(id=TINY, parameters=4, sha256=sha256),
        "base_model_folder": made and str(made),
        "supervision": Supervision(
            rows=1,
            tokens=1,
            supervised_tokens=1,
            truncated_rows=0,
            dropped_rows=0,
            longest_row=1,
            padding_share=0,
            example=(Segment(text="ü" * 50_000, supervised=True),),
        ),
    }


def step(number: int) -> StepDone:
    return StepDone(
        step=number,
        epoch=float(number),
        loss=1 / number,
        learning_rate=0.1,
        grad_norm=1.0,
        tokens_per_s=10.0,
        step_s=0.1,
        eta_s=0.0,
    )


def epoch(number: int) -> EpochDone:
    return EpochDone(
        epoch=number,
        step=number,
        train_loss=0.5,
        validation_loss=None,
        validation_accuracy=None,
        seconds=0.1,
    )


def checkpoint(order: ChildInput, number: int) -> CheckpointWritten:
    folder = order.work_dir / "checkpoints" / str(number)
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(f'{{"step": {number}}}')
    return CheckpointWritten(step=number, epoch=0, folder=str(folder))


def finished(order: ChildInput) -> TrainingFinished:
    folder = order.work_dir / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "adapter_config.json").write_bytes(b"{}")
    return TrainingFinished(
        folder=str(folder),
        labels=("a", "b"),
        train_rows=2,
        trained_tokens=20,
        steps=2,
        seconds=0.1,
        final_loss=0.5,
        validation_accuracy=None,
    )


def evaluated(order: ChildInput) -> EvaluationFinished:
    assert order.files.adapter is not None
    assert (order.files.adapter / "adapter_model.safetensors").is_file()
    if order.assignment.base_model is not None:
        assert order.files.base_model is not None
        assert {path.name for path in order.files.base_model.iterdir()} == {"config.json"}
    outputs = order.work_dir / "outputs.jsonl"
    outputs.write_text('{"text": "all of it"}\n')
    scores = Scores(
        accuracy=1, f1=1, precision=1, recall=1, latency_ms_p50=None, latency_ms_mean=None
    )
    example = Example(text="ü" * 5000, expected="a", base="b", fine_tuned="a", winner="fine_tuned")
    summary = EvaluationSummary(
        rows=20,
        base=scores,
        untrained=scores,
        fine_tuned=scores,
        accuracy_delta=0,
        accuracy_delta_relative=0,
        f1_delta=0,
        p_value=1,
        ci95=(0, 0),
        only_base_right=0,
        only_fine_tuned_right=0,
        verdict="inconclusive",
        examples=(example,) * 20,
        seconds=0.1,
    )
    return EvaluationFinished(summary=summary, outputs_path=str(outputs))


if __name__ == "__main__":
    main()
