"""Text generation, measured: tokens per second of 16 concurrent streams beside those of one.

    python -m bench.serving_speed [--runs N]

The engine alone, without pipes and NATS, over a model of 7 million parameters with weights at random
and prompts of different lengths. Runs of one stream and of many alternate, so that a neighbour on the
machine meets both; medians are compared. The last line is one JSON object.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bench.random_model import VOCABULARY, random_model
from domain.inference import End, Sampling
from gpu_agent.base_models import Places, find_base_model
from gpu_agent.generation import Engine, Speaker
from gpu_agent.language_model import load_language_model
from gpu_agent.speakers import bare_speaker

STREAMS = 16
NEW = 128
RUNS = 5
CONTEXT = 512
PROMPTS = (8, 120)  # tokens, from and to


def serving_16_vs_1(runs: int = RUNS) -> float:
    """How many times as many tokens per second 16 concurrent streams get as one stream alone."""
    many, one = tokens_per_s(runs)
    return many / one


def tokens_per_s(runs: int = RUNS) -> tuple[float, float]:
    """Of 16 streams together, and of one."""
    speaker = _speaker()
    prompts = _prompts(STREAMS)
    _run(speaker, prompts)  # the first forward of each shape is slower
    many, one = [], []
    for _ in range(runs):
        many.append(_run(speaker, prompts))
        one.append(_run(speaker, prompts[:1]))
    return statistics.median(many), statistics.median(one)


def _run(speaker: Speaker, prompts: list[list[int]]) -> float:
    engine = Engine()
    for number, ids in enumerate(prompts):
        engine.add(str(number), speaker, ids, Sampling(temperature=0, max_tokens=NEW))
    began = time.perf_counter()
    tokens = 0
    while engine.busy:
        tokens += sum(reply.completion_tokens for reply in engine.step() if isinstance(reply, End))
    assert tokens == NEW * len(prompts)
    return tokens / (time.perf_counter() - began)


def _speaker() -> Speaker:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random"
        random_model(CONTEXT, eos_id=None, pad_id=None).save_pretrained(path)
        _tokenizer().save_pretrained(path)
        files = find_base_model(path.name, Places(models=path.parent))
        model = load_language_model(files, torch.device("cpu"))
    return bare_speaker(model, torch.get_num_threads())


def _tokenizer() -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [f"w{number}" for number in range(VOCABULARY - len(letters))]
    vocabulary = {token: number for number, token in enumerate([*letters, *words])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=CONTEXT)


def _prompts(number: int) -> list[list[int]]:
    dice = random.Random(1)
    lengths = [dice.randint(*PROMPTS) for _ in range(number)]
    return [dice.choices(range(VOCABULARY), k=length) for length in lengths]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    runs = parser.parse_args().runs
    many, one = tokens_per_s(runs)
    print(
        json.dumps(
            {
                "streams": STREAMS,
                "threads": torch.get_num_threads(),  # that were used in the last run
                "load": os.getloadavg()[0],
                "tokens_per_s_16": round(many, 1),
                "tokens_per_s_1": round(one, 1),
                "serving_16_vs_1": round(many / one, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
