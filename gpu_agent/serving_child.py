"""Predictions and texts: one child process that keeps models warm, and bounded queues before it."""

import asyncio
import errno
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar, assert_never

from domain.inference import (
    Begun,
    Control,
    End,
    GenerateRequest,
    Piece,
    Refused,
    ServedModel,
)
from domain.jobs.spec import DEFAULT_BASE_MODEL, LANGUAGE_METHODS, Method
from domain.jobs.tabular import TABULAR_MODELS
from domain.work import Failed, PredictReply, PredictRequest
from gpu_agent.attempt_files import without_paths
from gpu_agent.figures import (
    GENERATED_TOKENS,
    GENERATIONS,
    PREDICTIONS,
    SERVING_DEATHS,
    SERVING_STARTS,
)
from gpu_agent.ports import Blobs, Send
from gpu_agent.protocol import (
    ADAPTERS,
    BASES,
    SLOTS,
    CancelOrder,
    Device,
    GenerateOrder,
    Predicted,
    ServingInput,
    ServingRequest,
    Warmed,
    WarmOrder,
)
from gpu_agent.served_files import ServedFiles
from gpu_agent.serving_process import ServingDied, ServingProcess
from gpu_agent.text_stream import TextStream

SERVING_FOLDER: Final = "serving"  # in the agent's work folder
MAX_WAITING: Final = 64  # more would only wait to be too late; of either kind
DEADLINE_S: Final = 30.0  # of one prediction, from its arrival
WARM_TRIES: Final = 2  # each may kill the child, and with it what others wait for
CANCELS: Final = 1000  # remembered for requests that they overtook, by a few milliseconds
RESTART_PAUSE_S: Final = 0.5  # one that dies at once must not keep a core busy

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServingConfig:
    """How to start the child; ``folder`` keeps the adapters, by version."""

    agent_id: str
    folder: Path
    models_folder: Path | None
    made_folder: Path  # base models that are made here, or were stored and are fetched
    device: Device
    threads: int
    environment: Mapping[str, str]
    command: tuple[str, ...]


@dataclass(slots=True, eq=False)
class _Prediction:
    """``order`` is there once its adapter is; ``reply`` is set by whoever knows it first."""

    request: PredictRequest
    order: bytes | None = None
    reply: asyncio.Future[PredictReply] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


@dataclass(slots=True)
class _Warming:
    order: bytes
    outcome: asyncio.Future[Failed | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Serving:
    """`answer`, `generate` and `warm` may be called at any time; `run` keeps the child meanwhile."""

    def __init__(self, config: ServingConfig, blobs: Blobs) -> None:
        self._config = config
        self._files = ServedFiles(blobs, config.folder, config.made_folder)
        self._wanted = asyncio.Event()
        self._child: ServingProcess | None = None  # that is ready
        self._classifies = False
        self._stopped = False
        self._predictions: deque[_Prediction] = deque()
        self._in_hand: _Prediction | None = None  # the child's; of several, one would kill all
        self._streams: dict[str, TextStream] = {}
        self._cancelled: deque[str] = deque(maxlen=CANCELS)
        self._warming: dict[str, _Warming] = {}
        self._warm: set[str] = set()
        self._failures: Counter[str] = Counter()

    def warm_up(self, method: Method) -> None:
        """Start the child now, so that the first request need not wait for it."""
        self._classifies = self._classifies or method == "sequence_classification"
        self._wanted.set()

    async def warm(self, models: Sequence[ServedModel]) -> None:
        """Load what is not loaded yet, one after the other; what cannot be loaded is only logged.

        Of more than a child keeps in memory only the first are loaded: the rest would push them out.
        """
        able = [served for served in models if self._failures[_key(served)] < WARM_TRIES]
        for served in _that_fit(able):
            key = _key(served)
            if key in self._warm:
                continue
            if failed := await self._warm_one(key, served):
                self._failures[key] += 1
                _log.warning("model %s is not kept warm: %s", key, failed.message)
            else:
                self._warm.add(key)

    async def _warm_one(self, key: str, served: ServedModel) -> Failed | None:
        try:
            async with self._files.of(served) as folders:
                order = WarmOrder(warm_id=key, served=served, folders=folders)
                warming = self._warming[key] = _Warming(order.model_dump_json().encode())
                self._tell(warming.order)
                return await warming.outcome
        except (OSError, ValueError) as error:
            return _unreadable(error)
        finally:
            self._warming.pop(key, None)

    async def answer(self, request: PredictRequest) -> PredictReply:
        """Predict in the order of arrival; a refusal says whether trying again may help."""
        if len(self._predictions) >= MAX_WAITING:
            return _refused(request, _busy())
        self._classifies = self._classifies or request.base_model not in TABULAR_MODELS
        prediction = _Prediction(request)
        self._predictions.append(prediction)
        try:
            async with asyncio.timeout(DEADLINE_S):
                async with self._files.adapter(request.version_id, request.adapter) as folder:
                    order = ServingRequest.model_validate(
                        {**request.model_dump(), "adapter_folder": folder}
                    )
                    prediction.order = order.model_dump_json().encode()
                    self._hand_over()
                    return await prediction.reply
        except TimeoutError:
            late = f"there was no answer within {DEADLINE_S:.0f} s"
            return _refused(request, Failed(code="deadline", message=late, retryable=True))
        except (OSError, ValueError) as error:
            return _refused(request, _unreadable(error))
        finally:
            self._predictions.remove(prediction)

    async def generate(self, request: GenerateRequest, send: Send) -> None:
        """Generate text; the last thing that is sent is an ``End`` or a ``Refused``.

        Raises:
            ConnectionError: from ``send``; the request is then cancelled.
        """
        if refusal := self._refusal(request):
            await send(Refused(request_id=request.request_id, error=refusal))
            return
        stream = self._streams[request.request_id] = TextStream(request, self._config.agent_id)
        if request.request_id in self._cancelled:
            stream.hear("cancel")
        preparing = asyncio.create_task(self._prepare(stream))
        try:
            await stream.run(send)
        finally:
            del self._streams[request.request_id]
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)
            if self._child and stream.order and not stream.child_is_done:
                cancel = CancelOrder(request_id=request.request_id)
                self._child.tell(cancel.model_dump_json().encode())

    def control(self, request_id: str, word: Control) -> None:
        """Pass on what whoever asked says; the request may be another agent's, over, or still to come."""
        if stream := self._streams.get(request_id):
            stream.hear(word)
        elif word == "cancel":
            self._cancelled.append(request_id)

    def _refusal(self, request: GenerateRequest) -> Failed | None:
        if self._stopped:
            return _restarted("the agent stops")
        if len(self._streams) >= SLOTS + MAX_WAITING:
            return _busy()
        if request.request_id in self._streams:
            message = "a request with this id is being answered"
            return Failed(code="bad_request", message=message, retryable=False)
        return None

    async def _prepare(self, stream: TextStream) -> None:
        """Hand a request to the child, and keep its files until the child has read them."""
        request = stream.request
        try:
            async with self._files.of(request.served) as folders:
                order = GenerateOrder(request=request, folders=folders)
                stream.order = order.model_dump_json().encode()
                self._tell(stream.order)
                await stream.taken.wait()
        except (OSError, ValueError) as error:
            stream.deliver(Refused(request_id=request.request_id, error=_unreadable(error)))

    async def run(self) -> None:
        """Keep a child from the first wish for one; requests that it dies of are refused."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                try:
                    await self._live()
                except ServingDied as death:
                    SERVING_DEATHS.inc()
                    _log.warning("%s", death)
                    self._refuse_what_died(str(death))
                    if self._predictions or death.was_ready:
                        self._wanted.set()
                    await asyncio.sleep(RESTART_PAUSE_S)
        finally:
            self._stopped = True
            self._refuse_what_died("the agent stops")
            for prediction in self._predictions:
                _settle(
                    prediction.reply, _refused(prediction.request, _restarted("the agent stops"))
                )

    async def _live(self) -> None:
        """One life of a child."""
        SERVING_STARTS.inc()
        config = self._config
        order = ServingInput(
            threads=config.threads,
            device=config.device,
            models_folder=config.models_folder,
            made_folder=config.made_folder,
            base_model=DEFAULT_BASE_MODEL if self._classifies else None,
        )
        async with ServingProcess.start(config.command, config.environment, order) as child:
            self._child = child
            try:
                for order_line in self._orders():
                    child.tell(order_line)
                self._hand_over()
                while True:
                    self._deliver(await child.reply())
            finally:
                self._child = None

    def _orders(self) -> list[bytes]:
        """What was asked for while there was no child."""
        streams = [stream.order for stream in self._streams.values() if stream.order]
        return [*(warming.order for warming in self._warming.values()), *streams]

    def _tell(self, order: bytes) -> None:
        """Tell the child, now or when there is one."""
        if self._child:
            self._child.tell(order)
        else:
            self._wanted.set()

    def _hand_over(self) -> None:
        """Give the child the next prediction; it has one at a time."""
        if self._in_hand is not None:
            return
        ready = (p for p in self._predictions if p.order and not p.reply.done())
        prediction = next(ready, None)
        if prediction is not None and prediction.order:
            if self._child:
                self._in_hand = prediction
            self._tell(prediction.order)

    def _deliver(self, reply: Predicted | Warmed | Begun | Piece | End | Refused) -> None:
        match reply:
            case Predicted():
                prediction, self._in_hand = self._in_hand, None
                if prediction is None or prediction.request.request_id != reply.reply.request_id:
                    raise ServingDied("serving answers what was not asked", was_ready=True)
                _settle(prediction.reply, reply.reply)
                PREDICTIONS.inc()
                self._hand_over()
            case Warmed():
                if warming := self._warming.get(reply.warm_id):
                    _settle(warming.outcome, reply.error)
            case Begun() | Piece() | End() | Refused():
                if isinstance(reply, End):
                    GENERATIONS.labels(reply.reason).inc()
                    GENERATED_TOKENS.inc(reply.completion_tokens)
                if stream := self._streams.get(reply.request_id):
                    stream.deliver(reply)
            case _:
                assert_never(reply)

    def _refuse_what_died(self, why: str) -> None:
        restarted = _restarted(why)
        died, self._in_hand = self._in_hand, None
        if died is None:  # it could not even be handed over
            died = next((p for p in self._predictions if not p.reply.done()), None)
        if died is not None:
            _settle(died.reply, _refused(died.request, restarted))
        for stream in self._streams.values():
            if stream.order or self._stopped:
                stream.deliver(Refused(request_id=stream.request.request_id, error=restarted))
        for warming in self._warming.values():
            _settle(warming.outcome, restarted)
        self._warm.clear()


def _key(served: ServedModel) -> str:
    return str(served.version_id or served.base_model)


def _that_fit(models: Iterable[ServedModel]) -> Iterator[ServedModel]:
    adapters: defaultdict[Method, Counter[str]] = defaultdict(Counter)
    for served in models:
        # Whatever they were trained by, language models lie over the same bases.
        over = adapters["sft" if served.method in LANGUAGE_METHODS else served.method]
        full = len(over) >= BASES and served.base_model not in over
        if not full and over[served.base_model] < ADAPTERS:
            over[served.base_model] += 1
            yield served


def _settle(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _refused(request: PredictRequest, error: Failed) -> PredictReply:
    return PredictReply(request_id=request.request_id, error=error)


def _busy() -> Failed:
    message = f"{MAX_WAITING} requests are waiting already"
    return Failed(code="busy", message=message, retryable=True)


def _restarted(why: str) -> Failed:
    return Failed(code="serving_restarted", message=why, retryable=True)


def _unreadable(error: OSError | ValueError) -> Failed:
    lost = not isinstance(error, OSError) or error.errno in {errno.ENOENT, errno.EIO}
    return Failed(code="adapter_unreadable", message=without_paths(error), retryable=not lost)
