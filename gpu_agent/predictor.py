"""Answers prediction requests: one base model in memory, and beside it the adapters last asked for."""

import copy
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import peft
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from domain.inference import ServedModel
from domain.work import Prediction, PredictReply
from gpu_agent.base_models import Places, find_base_model
from gpu_agent.classifier import (
    Base,
    adapter_labels,
    inject_lora,
    load_adapter,
    load_base,
    logits,
    read_lora,
)
from gpu_agent.data import tokenise
from gpu_agent.lately_used import remembered
from gpu_agent.outcomes import CheckpointUnreadable
from gpu_agent.protocol import ADAPTERS, BASES, ServingInput, ServingRequest


class Predictor:
    def __init__(
        self, config: ServingInput, device: torch.device, loading: Callable[[], None]
    ) -> None:
        """``loading`` is called before something is loaded that may take long."""
        self._device = device
        self._loading = loading
        self._places = Places(config.models_folder, config.made_folder)
        self._bases: OrderedDict[str, Base] = OrderedDict()
        self._adapters: OrderedDict[UUID, nn.Module] = OrderedDict()
        if config.base_model is not None:
            self._base(config.base_model)

    def warm(self, served: ServedModel, adapter: Path) -> None:
        """Load a classifier, so that its first request need not wait for it.

        Raises:
            WorkFailed: the base model or the adapter cannot be loaded.
        """
        if served.version_id is not None:
            self._classifier(served.version_id, served.base_model, served.labels, adapter)

    def answer(self, request: ServingRequest) -> PredictReply:
        """Score every text of a request, all in one batch where they fit.

        Raises:
            WorkFailed: the base model or the adapter cannot be loaded.
        """
        began = time.monotonic()
        base, model = self._classifier(
            request.version_id, request.base_model, request.labels, request.adapter_folder
        )
        predictions: list[Prediction] = []
        if request.texts:
            longest = min(request.max_length, base.max_tokens)
            scores = logits(model, tokenise(base.tokenizer, request.texts, longest)).softmax(dim=1)
            for row in scores.tolist():
                by_label = dict(zip(request.labels, row, strict=True))
                best = max(by_label, key=by_label.__getitem__)
                predictions.append(Prediction(label=best, scores=by_label))
        return PredictReply(
            request_id=request.request_id,
            predictions=tuple(predictions),
            seconds=time.monotonic() - began,
        )

    def _classifier(
        self, version_id: UUID, base_model: str, labels: tuple[str, ...], adapter: Path
    ) -> tuple[Base, nn.Module]:
        base = self._base(base_model)

        def load() -> nn.Module:
            if adapter_labels(adapter) != labels:
                raise CheckpointUnreadable("the adapter was trained for other labels")
            model: nn.Module = attach(base.network, adapter, len(labels))
            return model.to(self._device)

        return base, remembered(self._adapters, version_id, load, ADAPTERS)

    def _base(self, base_model: str) -> Base:
        def load() -> Base:
            self._loading()
            base = load_base(find_base_model(base_model, self._places), labels=2, seed=0)
            base.network.to(self._device)
            return base

        return remembered(self._bases, base_model, load, BASES)


def attach(network: Any, adapter: Path, labels: int) -> peft.PeftModel:
    """Build a classifier from an adapter folder; the encoder's weights stay ``network``'s own.

    The modules are copied, so any number of adapters with heads and ranks of their own can stand
    beside one another, and none has to be switched off for another.
    """
    shared = {id(weight): weight for weight in network.parameters()}
    config = copy.deepcopy(network.config)
    config.num_labels = labels
    with torch.device("meta"):  # neither computes nor holds weights that are replaced at once
        twin = AutoModelForSequenceClassification.from_config(config)
    for module in twin.children():
        if module is not twin.base_model:
            module.to_empty(device=next(network.parameters()).device)
    setattr(twin, twin.base_model_prefix, copy.deepcopy(network.base_model, shared))
    model: peft.PeftModel = inject_lora(twin, read_lora(adapter))
    load_adapter(adapter, model)
    return model
