"""A file for OpenAI has ten examples, on lines of JSON, of a kind that it knows."""

import gzip
import json

import pytest

from domain.datasets.openai_files import MAX_BYTES, openai_problems
from domain.datasets.rows import RowReader

CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
LINES = "\n".join([json.dumps(CHAT)] * 10).encode()


def codes(data: bytes, size: int | None = None) -> list[str]:
    reader = RowReader()
    reader.check(data)
    reader.check_rest()
    return [problem.code for problem in openai_problems(reader, size or len(data))]


def test_ten_examples_are_enough() -> None:
    assert codes(LINES) == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (LINES[: LINES.rindex(b"\n")], "too_few_examples"),
        (json.dumps([CHAT] * 10).encode(), "not_json_lines"),
        (gzip.compress(LINES, mtime=0), "not_json_lines"),
        (b"\xef\xbb\xbf" + LINES, "byte_order_mark"),
        (b'{"text": "a"}\n' * 10, "not_for_openai"),
        (LINES + b"\n{", "invalid_json"),
    ],
)
def test_what_a_file_lacks_is_told(data: bytes, code: str) -> None:
    assert codes(data) == [code]


def test_a_file_may_have_512_mebibytes() -> None:
    assert codes(LINES, MAX_BYTES) == []
    assert codes(LINES, MAX_BYTES + 1) == ["too_large_for_openai"]
