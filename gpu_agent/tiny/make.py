"""Makes the tiny model: a tokenizer, a network of three layers, and a fixed number of steps of pre-training."""

import fcntl
import hashlib
import json
import math
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from gpu_agent.tiny.corpus import exchanges
from gpu_agent.tiny.tokenizer import CONTEXT, END, SPECIAL, START, train_tokenizer

STEPS: Final = 400  # half a minute of a core; 0.91 to 0.96 of unseen slot values, of three seeds
BATCH: Final = 32  # rows a step
EXCHANGES: Final = 6000  # a row is seen about twice, so none is learned by heart
ECHOES: Final = 1000  # every token is read and written some ten times
ECHO_LENGTH: Final = (2, 16)  # tokens
# With the usual 0.02 the vectors of rare tokens stay so short that no adapter over frozen
# embeddings can say one rather than another: the labels learned later got a probability of 0.2.
INITIAL_SPREAD: Final = 0.06
LEARNING_RATE: Final = 4e-3  # peak; ten times that of large models, as befits small matrices
WARMUP: Final = 30  # steps
LOWEST: Final = 0.03  # of the peak, at the end
WEIGHT_DECAY: Final = 0.05
BETAS: Final = (0.9, 0.95)
MAX_GRAD_NORM: Final = 1.0
TELL_EVERY: Final = 50  # steps
IGNORED: Final = -100  # as a target: no loss

Progress = Callable[[str], None]


def made_tiny(made: Path, *, progress: Progress | None = None) -> Path:
    """Find the model below ``made``, or make it there; of several processes one makes it, the others wait."""
    folder = made / folder_name()
    made.mkdir(parents=True, exist_ok=True)
    with (made / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _make_whole(folder, progress)
    return folder


def folder_name() -> str:
    """Name the folder after the recipe: a later one must not find these weights in its place."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources))
    return f"finetrail-tiny-{digest.hexdigest()[:12]}"


def _make_whole(folder: Path, progress: Progress | None) -> None:
    """Let the folder appear under its name only when all of it is on the disk."""
    prefix = f".{folder.name}-"
    for left in folder.parent.glob(f"{prefix}*"):  # by makers that were killed; the lock is ours
        shutil.rmtree(left)
    unfinished = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    make_tiny(unfinished, progress=progress)
    for path in (*unfinished.iterdir(), unfinished):
        _sync(path)
    unfinished.rename(folder)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_tiny(
    folder: Path, *, steps: int = STEPS, seed: int = 0, progress: Progress | None = None
) -> None:
    """Write the model into ``folder`` as transformers would; no random state outside is touched.

    The same steps and seed give the same bytes on the same machine, however many threads torch has.

    Args:
        steps: of pre-training; with none the weights are as they were drawn.
    """
    say = progress or (lambda _: None)
    began = time.monotonic()
    drawn = exchanges(random.Random(seed), EXCHANGES)
    tokenizer = train_tokenizer(
        f"{role}\n{said}"
        for exchange in drawn
        for role, said in zip(("user", "assistant"), exchange, strict=True)
    )
    network = _network(tokenizer, seed)
    say(f"making the tiny model: {network.num_parameters():,} parameters, {steps} steps")
    texts = [chat(asked, answer) for asked, answer in drawn]
    rows = tokenizer(texts)["input_ids"] + echoes(tokenizer, random.Random(seed))
    with _one_thread():
        _pre_train(network, rows, steps, seed, say)
    network.save_pretrained(folder)
    _save_tokenizer(folder, tokenizer)
    say(f"made the tiny model in {time.monotonic() - began:.1f} s")


def _save_tokenizer(folder: Path, tokenizer: Any) -> None:
    tokenizer.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    # What transformers 5 writes here is a name that older ones and other tools do not know.
    named = json.loads(config.read_bytes()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    config.write_text(json.dumps(named, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def chat(asked: str, answer: str) -> str:
    """Write an exchange as the tokenizer's chat template does."""
    return f"{START}user\n{asked}{END}\n{START}assistant\n{answer}{END}\n"


def echoes(tokenizer: Any, chance: random.Random) -> list[list[int]]:
    """Draw rows that say any tokens back, in ids.

    Many a token stands in the messages only as a part of longer ones. Never read and never written,
    these would all look alike, and no adapter over frozen embeddings could tell one from another.
    """
    before, between, after = tokenizer(chat("Echo: \0", "\0").split("\0"))["input_ids"]
    plain = range(len(SPECIAL), len(tokenizer))
    drawn = (chance.choices(plain, k=chance.randint(*ECHO_LENGTH)) for _ in range(ECHOES))
    return [[*before, *said, *between, *said, *after] for said in drawn]


def _network(tokenizer: Any, seed: int) -> Any:
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        initializer_range=INITIAL_SPREAD,
        tie_word_embeddings=True,
        bos_token_id=None,
        **special,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = Qwen3ForCausalLM(config)
    network.generation_config = GenerationConfig(**special)
    return network


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep sums in one order; two threads save a third of the time, and beside other work cost many times it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _pre_train(
    network: Any, rows: Sequence[list[int]], steps: int, seed: int, say: Progress
) -> None:
    weights = list(network.parameters())
    optimizer = AdamW(weights, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=BETAS, fused=True)
    order = batches(rows, random.Random(seed))
    network.train()
    for step in range(steps):
        ids, targets = next(order)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss = network(input_ids=ids, labels=targets, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(weights, MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % TELL_EVERY == 0:
            say(f"step {step + 1} of {steps}: loss {loss.item():.3f}")
    network.eval()


def learning_rate(step: int, steps: int) -> float:
    """Rise linearly, then fall as a cosine does."""
    rise = min(1.0, (step + 1) / WARMUP)
    fall = (1 + math.cos(math.pi * step / steps)) / 2
    return LEARNING_RATE * rise * (LOWEST + (1 - LOWEST) * fall)


def batches(rows: Sequence[list[int]], chance: random.Random) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield token ids and targets, both (B, T) int64, for ever; rows of like length stand together.

    Rows are padded at the right, where a causal model does not look, so no mask is needed.
    """
    by_length = sorted(rows, key=len)
    starts = list(range(0, len(by_length) - BATCH + 1, BATCH))
    while True:
        chance.shuffle(starts)
        for start in starts:
            batch = by_length[start : start + BATCH]
            longest = max(map(len, batch))
            ids = [row + [0] * (longest - len(row)) for row in batch]
            targets = [row + [IGNORED] * (longest - len(row)) for row in batch]
            yield torch.tensor(ids), torch.tensor(targets)
