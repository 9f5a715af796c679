"""What OpenAI asks of a file to fine-tune on, beyond what rows of its kind must hold anyway."""

from domain.datasets.problems import LineProblem
from domain.datasets.rows import RowReader

MIN_EXAMPLES = 10
MAX_BYTES = 512 * 1024 * 1024
KINDS = ("chat", "preference", "prompt_completion")


def openai_problems(reader: RowReader, size: int) -> list[LineProblem]:
    """What is wrong with a file that was read to its end; roles and answers the reader has judged.

    A file for OpenAI is JSON Lines, not packed, of at least ten examples and at most 512 MB, and
    without a byte-order mark.
    """
    if reader.problems:
        return reader.problems
    found = []
    if reader.format != "jsonl" or reader.compression is not None:
        what = f"the file is {reader.format}{', packed' if reader.compression else ''}"
        found.append(_of_file("not_json_lines", what, "JSON Lines: an object on each line"))
    if reader.encoding == "utf-8-sig":
        what = "the file begins with a byte-order mark"
        found.append(_of_file("byte_order_mark", what, "UTF-8 without one"))
    if reader.kind not in KINDS:
        what = f"the rows are of the kind {reader.kind}"
        found.append(_of_file("not_for_openai", what, f"one of {', '.join(KINDS)}"))
    if reader.row_count < MIN_EXAMPLES:
        what = f"the file has {reader.row_count} examples"
        found.append(_of_file("too_few_examples", what, f"at least {MIN_EXAMPLES}"))
    if size > MAX_BYTES:
        what = f"the file has {size:,} bytes"
        found.append(_of_file("too_large_for_openai", what, f"at most {MAX_BYTES:,} bytes"))
    return found


def _of_file(code: str, message: str, expected: str) -> LineProblem:
    return LineProblem(line=1, code=code, message=message, expected=expected)
