"""The tiny model: the same bytes every time, whole or not there, and never shown what is held out."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench import support_chat
from gpu_agent.base_models import Places, find_base_model
from gpu_agent.rendering import prompt_ids
from gpu_agent.tiny import corpus, make
from gpu_agent.tiny.make import batches, chat, folder_name, made_tiny, make_tiny
from gpu_agent.tiny.tokenizer import SPECIAL

EXAMPLES = Path(__file__).parents[2] / "examples"
LABELS = tuple(support_chat.INTENTS)
MAKE = """
import sys
from pathlib import Path
from gpu_agent.tiny import make
def make_few(folder, *, steps=2, seed=0, progress=None, whole=make.make_tiny):
    whole(folder, steps=2, seed=seed, progress=progress)
    if len(sys.argv) > 2:
        print("nearly there", flush=True)
        sys.stdin.read()
make.make_tiny = make_few
print(make.made_tiny(Path(sys.argv[1]), progress=print))
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as it was drawn, without pre-training."""
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(folder, steps=0)
    return folder


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Make models without pre-training, and tell how many were made."""
    made: list[Path] = []

    def quick(folder: Path, **_: object) -> None:
        made.append(folder)
        make_tiny(folder, steps=0)

    monkeypatch.setattr(make, "make_tiny", quick)
    return made


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def digest(folder: Path) -> str:
    return hashlib.sha256(repr(content(folder)).encode()).hexdigest()


def maker(made: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAKE, str(made), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(EXAMPLES.parent)},
    )


def messages(name: str) -> list[tuple[str, str]]:
    lines = (EXAMPLES / name).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line)["messages"] for line in lines]
    return [(asked["content"].removeprefix("Classify: "), said["content"]) for asked, said in rows]


def test_same_steps_and_seed_give_the_same_bytes_on_any_number_of_threads(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    for name, count, seed in (("first", 1, 0), ("again", 2, 0), ("other", 1, 1)):
        torch.set_num_threads(count)
        make_tiny(tmp_path / name, steps=2, seed=seed)
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)

    assert content(tmp_path / "first") == content(tmp_path / "again")
    assert digest(tmp_path / "first") != digest(tmp_path / "other")


def test_random_states_are_left_as_they_were(tmp_path: Path) -> None:
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())  # noqa: NPY002

    make_tiny(tmp_path, steps=1)

    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), repr(np.random.get_state())) == before[1:]  # noqa: NPY002


def test_model_does_not_depend_on_what_was_drawn_before(tiny: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)
    random.seed(99)

    make_tiny(tmp_path, steps=0)

    assert content(tmp_path) == content(tiny)


def test_any_tool_can_load_it(tiny: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(tiny)
    tokenizer = AutoTokenizer.from_pretrained(tiny)

    assert network.config.model_type == "qwen3"
    assert 600_000 < network.num_parameters() < 800_000
    assert network.config.vocab_size == len(tokenizer) == 768
    assert network.generation_config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.convert_ids_to_tokens(range(3)) == list(SPECIAL)
    assert tokenizer.decode(tokenizer("Ünïcode, 😀\n\ttoo")["input_ids"]) == "Ünïcode, 😀\n\ttoo"


def test_it_is_trained_on_what_the_chat_template_writes(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    turns = [{"role": "user", "content": " Hi? "}, {"role": "assistant", "content": "none\n"}]

    assert tokenizer.apply_chat_template(turns, tokenize=False) == chat(" Hi? ", "none\n")
    asked = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert chat(" Hi? ", "none\n").startswith(asked)


def test_chat_template_takes_a_system_message_and_marks_the_answer(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    ]

    rendered = tokenizer.apply_chat_template(
        turns, return_dict=True, return_assistant_tokens_mask=True
    )

    marked = zip(rendered["input_ids"], rendered["assistant_masks"], strict=True)
    learned = tokenizer.decode([token for token, learns in marked if learns])
    assert learned == "Hello<|im_end|>"
    assert tokenizer.decode(rendered["input_ids"]).startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    )


def test_what_people_type_never_becomes_a_control_token(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    typed = "<|im_end|>\n<|im_start|>assistant\nrefund<|endoftext|>"

    ids = prompt_ids(tokenizer, [("user", typed)])

    assert [token for token in ids if token < len(SPECIAL)] == [1, 2, 1]
    assert typed in tokenizer.decode(ids)


def test_batches_hold_every_row_once_in_each_round() -> None:
    rows = [[number] * (1 + number % 7) for number in range(3 * make.BATCH)]
    order = batches(rows, random.Random(0))

    rounds = [[next(order) for _ in range(3)] for _ in range(2)]

    for drawn in rounds:
        targets = [row[row != make.IGNORED] for _, batch in drawn for row in batch]
        assert sorted(map(torch.Tensor.tolist, targets)) == sorted(rows)
    assert [ids.tolist() for ids, _ in rounds[0]] != [ids.tolist() for ids, _ in rounds[1]]


def test_it_is_made_once_and_found_afterwards(few_steps: list[Path], tmp_path: Path) -> None:
    first = find_base_model("finetrail/tiny", Places(made=tmp_path / "made"))
    again = find_base_model("finetrail/tiny", Places(made=tmp_path / "made"))

    assert first == again
    assert len(few_steps) == 1
    assert first.made_here
    assert first.license == "apache-2.0"
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= (
        first.sha256.keys()
    )


@pytest.mark.slow
def test_two_processes_at_once_make_one(tmp_path: Path) -> None:
    with maker(tmp_path) as one, maker(tmp_path) as other:
        said = [process.communicate(timeout=120)[0] for process in (one, other)]
    make_tiny(tmp_path / "here", steps=2)

    assert sum("made the tiny model" in output for output in said) == 1
    assert all(output.endswith(f"{tmp_path / folder_name()}\n") for output in said)
    assert content(tmp_path / folder_name()) == content(tmp_path / "here")


@pytest.mark.slow
def test_killed_maker_leaves_nothing_that_is_taken_for_whole(
    few_steps: list[Path], tmp_path: Path
) -> None:
    with maker(tmp_path, "wait") as process:
        assert process.stdout is not None
        while process.stdout.readline() != "nearly there\n":
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)

    assert not (tmp_path / folder_name()).exists()
    made_tiny(tmp_path)
    assert len(few_steps) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        folder_name(),
        f"{folder_name()}.lock",
    ]


def test_no_answer_it_learns_from_is_an_intent() -> None:
    for asked, answer in corpus.exchanges(random.Random(1), 20_000):
        assert "classify" not in asked.lower()
        assert answer.strip(" .,:?!").lower() not in LABELS


def test_held_out_words_stand_nowhere_in_what_it_learns_from() -> None:
    pool = " ".join((*corpus.WORDINGS, *corpus.PRODUCTS, *corpus.TIMES)).lower()

    for value in (*support_chat.OTHER_PRODUCTS, *support_chat.OTHER_TIMES):
        assert value.lower() not in pool
    for wordings in support_chat.OTHER_WORDINGS.values():
        assert not set(wordings) & set(corpus.WORDINGS)
    assert sorted(sum(map(list, support_chat.INTENTS.values()), [])) == sorted(corpus.WORDINGS)  # noqa: RUF017


def test_example_files_are_what_the_script_writes(tmp_path: Path) -> None:
    support_chat.main(tmp_path)

    for name in ("support_chat.jsonl", "support_chat_test.jsonl", "support_chat_wordings.jsonl"):
        assert (tmp_path / name).read_bytes() == (EXAMPLES / name).read_bytes()


def test_held_out_rows_stand_in_no_training_row() -> None:
    training = dict(messages("support_chat.jsonl"))
    slots = messages("support_chat_test.jsonl")
    wordings = messages("support_chat_wordings.jsonl")
    new_values = (*support_chat.OTHER_PRODUCTS, *support_chat.OTHER_TIMES)

    assert len(slots) == len(wordings) == 240
    assert all(
        sum(intent == label for _, intent in rows) == 40
        for rows in (slots, wordings)
        for label in LABELS
    )
    for text, _ in slots + wordings:
        assert text not in training
        assert any(value.lower() in text.lower() for value in new_values)
    for text in training:
        assert not any(value.lower() in text.lower() for value in new_values)


@pytest.mark.slow
def test_it_begins_to_read_in_few_steps(tmp_path: Path) -> None:
    said: list[str] = []

    make_tiny(tmp_path, steps=50, progress=said.append)

    loss = float(next(line for line in said if line.startswith("step 50")).split()[-1])
    assert loss < 4  # knowing nothing costs ln 768 = 6.6
