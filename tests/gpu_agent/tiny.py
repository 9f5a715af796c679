"""A base model of two layers, a few dozen rows, and jobs over both: training takes moments."""

import csv
import itertools
import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from domain.blobs import BlobRef
from domain.jobs.spec import (
    ALL_LINEAR,
    DatasetRef,
    Hyperparameters,
    JobSpec,
    LoraConfig,
    SplitConfig,
)
from domain.work import EvaluateAssignment, Fact, TrainAssignment, TrainingCheckpoint
from gpu_agent.base_models import Places, find_base_model
from gpu_agent.classifier import add_lora, load_base, logits, save_adapter
from gpu_agent.data import tokenise
from gpu_agent.protocol import ChildFiles, ChildInput

NAME = "tiny-bert"
LABELS = ("colour", "food", "weather")
WORDS = {
    "colour": ("red", "blue", "green", "yellow"),
    "food": ("bread", "soup", "rice", "apples"),
    "weather": ("rain", "snow", "sunshine", "fog"),
}
TEXTS = ("more soup", "why is there so much fog here?", "red")
FRAMES = (
    "I like {} a lot",
    "please tell me about {}",
    "nothing is better than {} in the morning",
    "{} again, and no end of it",
    "why is there so much {} here?",
)


def rows() -> list[tuple[str, str]]:
    words = [(word, label) for label in LABELS for word in WORDS[label]]
    pairs = itertools.product(words, FRAMES)
    return [(frame.format(word), label) for (word, label), frame in pairs]


def chat_rows() -> list[dict[str, Any]]:
    """The same rows as questions with an answer; every third has an earlier exchange before it."""
    earlier = [
        {"role": "user", "content": "good day"},
        {"role": "assistant", "content": "good day, what is it?"},
    ]
    return [
        {
            "messages": [
                *(earlier if at % 3 == 0 else []),
                {"role": "user", "content": text},
                {"role": "assistant", "content": label},
            ]
        }
        for at, (text, label) in enumerate(rows())
    ]


def write_chats(path: Path, content: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in content), encoding="utf-8")
    return path


def write_rows(path: Path, content: list[tuple[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *content])
    return path


def build_base_model(folder: Path) -> None:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({word for text, _ in rows() for word in re.findall(r"\w+|\W", text.lower())})
    # Written down and not trained: a trainer breaks ties as it likes, and the tests then vary.
    vocabulary = {token: number for number, token in enumerate(special + words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        **{f"{name}_token": token for name, token in names.items()},
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,  # two layers at the usual 0.02 hardly tell one word from another
    )
    BertModel(config).save_pretrained(folder)


def dataset(path: Path) -> DatasetRef:
    return DatasetRef(
        dataset_id=UUID(int=1),
        name=path.name,
        blob=BlobRef(sha256="0" * 64, size=path.stat().st_size, crc32=0),
        format="csv",
        delimiter=",",
        text_column="text",
        label_column="label",
        rows=len(rows()),
        labels=LABELS,
    )


def spec(train: Path, test: Path | None = None, **changes: Any) -> JobSpec:
    values: dict[str, Any] = {
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 0.005,
        "checkpoint_every": 4,
        "lora": LoraConfig(dropout=0.1),  # without it nothing would depend on the random state
    }
    return JobSpec(
        base_model=NAME,
        model_name="tiny",
        train=dataset(train),
        test=dataset(test) if test else None,
        split=SplitConfig(validation_fraction=0.1, test_fraction=0.2),
        hyperparameters=Hyperparameters(**(values | changes)),
    )


def chat_dataset(path: Path) -> DatasetRef:
    chats = {"format": "jsonl", "delimiter": None, "kind": "chat", "labels": ()}
    columns = {"text_column": "messages", "label_column": ""}
    return dataset(path).model_copy(update=chats | columns)


def sft_spec(
    base_model: str, train: Path, test: Path | None = None, *, dropout: float = 0.1, **changes: Any
) -> JobSpec:
    """Ten steps over each of three epochs, with a checkpoint after every fourth."""
    values: dict[str, Any] = {
        "epochs": 3,
        "batch_size": 5,
        "learning_rate": 0.01,
        "max_length": 256,
        "checkpoint_every": 4,
        "lora": LoraConfig(rank=4, alpha=8.0, dropout=dropout, target_modules=(ALL_LINEAR,)),
    }
    return JobSpec(
        method="sft",
        base_model=base_model,
        model_name="tiny",
        train=chat_dataset(train),
        test=chat_dataset(test) if test else None,
        split=SplitConfig(validation_fraction=0.1, test_fraction=0.2),
        hyperparameters=Hyperparameters(**(values | changes)),
    )


def minilm_spec(example: Path, **changes: Any) -> JobSpec:
    """The bundled model and the shipped example, with the defaults of the product."""
    intents = dataset(example).model_copy(update={"label_column": "intent"})
    return JobSpec(model_name="example", train=intents, hyperparameters=Hyperparameters(**changes))


def train_order(
    job: JobSpec,
    data: Path,
    work_dir: Path,
    models_folder: Path | None,
    checkpoint: Path | None = None,
) -> ChildInput:
    resume = None
    if checkpoint:
        resume = TrainingCheckpoint(step=int(checkpoint.name.split("-")[1]), epoch=0, files=())
    assignment = TrainAssignment(
        workspace="default",
        job_id=UUID(int=2),
        attempt=1,
        spec=job,
        resume_from=resume,
        correlation_id=UUID(int=3),
    )
    return ChildInput(
        assignment=assignment,
        work_dir=work_dir,
        files=ChildFiles(train=data, checkpoint=checkpoint),
        models_folder=models_folder,
        device="cpu",
        threads=1,
    )


def evaluate_order(
    job: JobSpec,
    data: Path,
    work_dir: Path,
    models_folder: Path | None,
    adapter: Path,
    labels: tuple[str, ...] = LABELS,
) -> ChildInput:
    assignment = EvaluateAssignment(
        workspace="default",
        evaluation_id=UUID(int=4),
        attempt=1,
        spec=job,
        labels=labels,
        adapter=(),
        correlation_id=UUID(int=3),
    )
    return ChildInput(
        assignment=assignment,
        work_dir=work_dir,
        files=ChildFiles(train=data, adapter=adapter),
        models_folder=models_folder,
        device="cpu",
        threads=1,
    )


def make_adapter(
    folder: Path, models_folder: Path, labels: tuple[str, ...], rank: int
) -> torch.Tensor:
    """Write an adapter with weights at random, and give what its network says of the texts."""
    files = find_base_model(NAME, Places(models_folder))
    base = load_base(files, len(labels), seed=5)
    model = add_lora(base, files, LoraConfig(rank=rank), seed=5)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    save_adapter(folder, model, labels)
    return logits(model, tokenise(base.tokenizer, TEXTS, 64)).softmax(dim=1)


def of_kind(facts: list[Fact], kind: type[Any]) -> list[Any]:
    return [fact for fact in facts if isinstance(fact, kind)]


def adapter_bytes(folder: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
