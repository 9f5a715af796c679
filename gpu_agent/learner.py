"""What every recipe for language models begins with: the base model, and the weights that are trained over it."""

import time
from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Final

from torch import nn

from domain.jobs.spec import Hyperparameters, Tuning
from domain.work import (
    Environment,
    Fact,
    Started,
    Supervision,
    TrainAssignment,
    TrainingFinished,
)
from gpu_agent.base_models import BaseModelFiles, find_base_model, places_for
from gpu_agent.checkpoints import LoopState, read_state
from gpu_agent.environment import describe, set_up
from gpu_agent.language_model import LanguageModel, load_language_model
from gpu_agent.layers import compile_layers, recompute_layers
from gpu_agent.loop import Plan
from gpu_agent.lora import add_lora, save_lora
from gpu_agent.protocol import ChildInput
from gpu_agent.quantisation import QuantisationMissing, quantise
from gpu_agent.schedule import log, total_steps, warning

# Enough for two cores to be as fast as they get, while what is kept for the gradients stays small:
# half a GiB in a model of 7 million parameters.
MICRO_BATCH_TOKENS: Final = 2048


@dataclass(frozen=True, slots=True)
class Learner:
    """A language model that is ready to be trained."""

    model: LanguageModel
    weights: dict[str, nn.Parameter]  # that are trained, in float32, by their names in the result
    environment: Environment
    files: BaseModelFiles
    parameters: int  # of the base
    tuning: Tuning  # as it is done, whatever was asked for
    precision: str  # of the frozen weights

    @property
    def trainable(self) -> int:
        return sum(weight.numel() for weight in self.weights.values())

    @property
    def made_here(self) -> str | None:
        """The base model's folder, where its files are yet to be stored."""
        return str(self.files.path) if self.files.made_here else None


def language_learner(
    order: ChildInput, assignment: TrainAssignment
) -> Generator[Fact, None, Learner]:
    """Load the base model as the job asks for it, and lay a new adapter over it.

    Raises:
        WorkFailed: it cannot be had, or not like this.
    """
    spec, config = assignment.spec, assignment.spec.hyperparameters
    device = set_up(order.device, assignment.threads or order.threads)
    environment = describe(device)
    yield log(f"training on {environment.device_name}, {environment.threads} threads")
    files = yield from _base_model(order, assignment)
    before = state_before(order, assignment)
    model = load_language_model(files, device, before.precision or config.precision)
    parameters: int = model.network.num_parameters()
    tuning = yield from _quantised(model, config)
    if config.gradient_checkpointing:
        recompute_layers(model.network)
    weights = add_lora(model, config.lora, spec.seed)
    if config.compile:
        compile_layers(model.network)
    learner = Learner(
        model=model,
        weights=weights,
        environment=environment,
        files=files,
        parameters=parameters,
        tuning=tuning,
        precision=str(model.dtype).removeprefix("torch."),
    )
    kept = "four bits" if tuning == "qlora" else learner.precision
    yield log(
        f"{files.id}, {parameters:,} parameters in {kept}, and {learner.trainable:,} trainable ones "
        "in float32"
    )
    return learner


def language_plan(
    order: ChildInput, assignment: TrainAssignment, learner: Learner, *, may_diverge: bool = True
) -> Plan:
    return Plan(
        config=assignment.spec.hyperparameters,
        seed=assignment.spec.seed,
        precision=learner.precision,
        micro_batch_tokens=MICRO_BATCH_TOKENS,
        checkpoints=order.work_dir / "checkpoints",
        resume=order.files.checkpoint if assignment.resume_from else None,
        may_diverge=may_diverge,
    )


def language_started(
    assignment: TrainAssignment,
    learner: Learner,
    *,
    train_rows: int,
    validation_rows: int,
    test_rows: int,
    supervision: Supervision | None = None,
) -> Started:
    config = assignment.spec.hyperparameters
    return Started(
        environment=learner.environment,
        total_steps=total_steps(train_rows, config),
        total_epochs=config.epochs,
        first_step=assignment.resume_from.step if assignment.resume_from else 0,
        train_rows=train_rows,
        validation_rows=validation_rows,
        test_rows=test_rows,
        trainable_parameters=learner.trainable,
        total_parameters=learner.parameters + learner.trainable,
        base_model=learner.files.record(learner.parameters),
        base_model_folder=learner.made_here,
        supervision=supervision,
        tuning=learner.tuning,
        precision=learner.precision,
    )


def language_finished(
    order: ChildInput,
    assignment: TrainAssignment,
    learner: Learner,
    state: LoopState,
    *,
    train_rows: int,
    began: float,
) -> TrainingFinished:
    """Write the adapter's folder, and say where it lies.

    Args:
        began: when the loop did, by ``time.monotonic``.
    """
    folder = order.work_dir / "adapter"
    save_lora(folder, learner.model, assignment.spec.hyperparameters.lora)
    return TrainingFinished(
        folder=str(folder),
        labels=(),
        train_rows=train_rows,
        trained_tokens=state.tokens,
        steps=state.step,
        seconds=time.monotonic() - began,
        final_loss=state.final_loss,
        validation_accuracy=state.validation_accuracy,
        best_step=state.best_step,
    )


def state_before(order: ChildInput, assignment: TrainAssignment) -> LoopState:
    """Read where the loop stands that is to go on, or where a new one begins."""
    if assignment.resume_from is None or order.files.checkpoint is None:
        return LoopState()
    return read_state(order.files.checkpoint)


def _quantised(model: LanguageModel, config: Hyperparameters) -> Generator[Fact, None, Tuning]:
    if config.tuning != "qlora":
        return config.tuning
    try:
        layers = quantise(model.network)
    except QuantisationMissing as missing:
        if not config.qlora_fallback:
            raise QuantisationMissing(
                f"{missing}; qlora_fallback lets such an agent train with lora instead"
            ) from missing
        yield warning(f"trained with lora instead of qlora, as the job allows: {missing}")
        return "lora"
    yield log(f"{layers} frozen layers are kept in four bits (NF4, double quantisation)")
    return "qlora"


def _base_model(
    order: ChildInput, assignment: TrainAssignment
) -> Generator[Fact, None, BaseModelFiles]:
    """Find the base model in a thread, so that what is told while one is made can be heard, and stopped."""
    told_so_far: SimpleQueue[str | None] = SimpleQueue()
    finding: Future[BaseModelFiles] = Future()

    def find() -> None:
        try:
            finding.set_result(
                find_base_model(
                    assignment.spec.base_model,
                    places_for(order),
                    assignment.base_model,
                    progress=told_so_far.put,
                )
            )
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            finding.set_exception(error)
        told_so_far.put(None)

    Thread(target=find, name="base model", daemon=True).start()
    while (line := told_so_far.get()) is not None:
        yield log(line)
    return finding.result()
