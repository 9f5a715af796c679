"""The process that does one piece of work: reads its input, writes facts, ends when the work or its parent does."""

import os
import sys
import traceback
from collections.abc import Generator, Iterator

from domain.work import (
    EvaluateAssignment,
    EvaluationFinished,
    Fact,
    Failed,
    StepDone,
    Stopped,
    TrainAssignment,
    TrainingFinished,
)
from gpu_agent.outcomes import StopAsked, WorkFailed, out_of_memory
from gpu_agent.pipes import Orders, claim_stdout, die_with_parent, leave_out_quantisation
from gpu_agent.protocol import ChildInput, encode_fact

ENDS = (TrainingFinished, EvaluationFinished, Failed, Stopped)  # the last fact of every child


def main() -> None:
    die_with_parent()
    facts = claim_stdout()
    order = ChildInput.model_validate_json(sys.stdin.buffer.readline())
    orders = Orders(sys.stdin.buffer)
    for fact in _until_stopped(order, orders):
        if isinstance(fact, ENDS):
            orders.finish()
        facts.write(encode_fact(fact))
        facts.flush()


def _until_stopped(order: ChildInput, orders: Orders) -> Iterator[Fact]:
    step, stopping = 0, False
    if isinstance(order.assignment, TrainAssignment) and order.assignment.resume_from:
        step = order.assignment.resume_from.step
    try:
        work = _facts(order)
        fact = next(work, None)
        while fact is not None:
            yield fact
            if isinstance(fact, StepDone):
                step = fact.step
            if orders.stop and not stopping and not isinstance(fact, ENDS):
                stopping = True
                fact = work.throw(StopAsked())
            else:
                fact = next(work, None)
    except StopAsked:
        yield Stopped(step=step)
    except WorkFailed as failure:
        yield failure.fact()
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        yield Failed(code="out_of_memory", message=_first_line(error), retryable=False)


def _facts(order: ChildInput) -> Generator[Fact, None, None]:
    yield from _work(order)


def _work(order: ChildInput) -> Iterator[Fact]:
    # torch takes seconds to load: by now the process hears its parent, and dies with it.
    hyperparameters = order.assignment.spec.hyperparameters
    quantises = hyperparameters.tuning == "qlora" or hyperparameters.optimizer == "adamw_8bit"
    if not (quantises and isinstance(order.assignment, TrainAssignment)):
        leave_out_quantisation()
    match order.assignment:
        case TrainAssignment() as assignment:
            return _train(order, assignment)
        case EvaluateAssignment() as assignment:
            return _evaluate(order, assignment)


def _train(order: ChildInput, assignment: TrainAssignment) -> Iterator[Fact]:
    match assignment.spec.method:
        case "sequence_classification":
            from gpu_agent.recipes import sequence_classification  # noqa: PLC0415

            return sequence_classification.train(order, assignment)
        case "sft":
            from gpu_agent.recipes import sft  # noqa: PLC0415

            return sft.train(order, assignment)
        case "grpo":
            from gpu_agent.recipes import grpo  # noqa: PLC0415

            return grpo.train(order, assignment)
        case "dpo" | "orpo" | "simpo":
            from gpu_agent.data import read_pair_splits  # noqa: PLC0415
            from gpu_agent.recipes import preference  # noqa: PLC0415

            pairs = read_pair_splits(assignment.spec, order.files.train, order.files.test)
            return preference.train(order, assignment, pairs)
        case "kto":
            from gpu_agent.data import read_rated_splits  # noqa: PLC0415
            from gpu_agent.recipes import kto  # noqa: PLC0415

            rated = read_rated_splits(assignment.spec, order.files.train, order.files.test)
            return kto.train(order, assignment, rated)
        case "tabular":
            from gpu_agent.recipes import tabular  # noqa: PLC0415

            return tabular.train(order, assignment)


def _evaluate(order: ChildInput, assignment: EvaluateAssignment) -> Iterator[Fact]:
    match assignment.spec.method:
        case "sequence_classification":
            from gpu_agent import evaluation  # noqa: PLC0415

            return evaluation.evaluate(order, assignment)
        case "sft" | "dpo" | "orpo" | "kto" | "simpo" | "grpo":
            from gpu_agent import language_evaluation  # noqa: PLC0415

            return language_evaluation.evaluate(order, assignment)
        case "tabular":
            from gpu_agent.tabular import evaluation as table_evaluation  # noqa: PLC0415

            return table_evaluation.evaluate(order, assignment)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # noqa: BLE001 - the top of the process: the agent reads it from stderr
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    # An ordinary exit would wait for the thread that still reads standard input, and unload torch.
    os._exit(0)
