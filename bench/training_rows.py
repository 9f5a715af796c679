"""Conversations to measure training on, of lengths that are chosen, and a tokenizer for them."""

import ast
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from bench.random_model import VOCABULARY
from domain.datasets.conversations import Conversation, Message
from gpu_agent.tiny.tokenizer import CHAT_TEMPLATE, END, END_OF_TEXT, SPECIAL

Spread = tuple[float, float]  # mean and deviation of the logarithm of a row's characters

CONTEXT = 384  # tokens; longer rows lose their end
CHARACTERS = (120, 1400)  # of a conversation, at least and at most
RAGGED: Spread = (5.9, 0.75)  # half of a padded batch would be padding
EVEN: Spread = (6.4, 0.0)  # all as long as one another
ASKED = 0.55  # share of a conversation that is read and not learned


def docstrings() -> Iterator[str]:
    """English in different lengths that every machine has: what Python's own library says of itself."""
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) > CHARACTERS[0]:
                    yield text


def chat(text: str, drawn: random.Random, spread: Spread) -> Conversation:
    length = int(min(CHARACTERS[1], max(CHARACTERS[0], drawn.lognormvariate(*spread))))
    text = (text * (length // len(text) + 1))[:length]
    cut = int(length * ASKED)
    asked = Message("user", text[:cut], supervised=False)
    return Conversation(1, (asked, Message("assistant", text[cut:], supervised=True)))


def train_tokenizer(texts: list[str]) -> Any:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END,
        pad_token=END_OF_TEXT,
        model_max_length=CONTEXT,
        chat_template=CHAT_TEMPLATE,
    )
