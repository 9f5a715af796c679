"""Files that are broken on purpose are refused with the line and the field, and nothing is left of them."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.gateway.conftest import world
from tests.gateway.test_uploads import refused
from tests.gateway.world import World

__all__ = ["world"]  # the fixture

BROKEN = Path(__file__).parent / "broken"
GOOD = b"text,label\nWhere is it?,track\nCancel it.,cancel\n"
Refusal = tuple[str, bytes, str, int | None, str | None]  # name, bytes, code, line, field


def written() -> list[Refusal]:
    told = json.loads((BROKEN / "refusals.json").read_text(encoding="utf-8"))
    return [
        (name, (BROKEN / name).read_bytes(), each["code"], each["line"], each["field"])
        for name, each in told.items()
    ]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def odd() -> list[Refusal]:
    """Those whose bytes no editor keeps."""
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    nameless: list[dict[str, Any]] = [*rows, {"text": "c", "label": None}]
    return [
        ("latin-1.csv", GOOD + "Café?,track\n".encode("latin-1"), "invalid_utf8", 4, None),
        ("nul.csv", GOOD + b"Wh\0re?,track\n", "nul_byte", 4, None),
        ("utf-16.csv", GOOD.decode().encode("utf-16"), "wrong_encoding", 1, None),
        ("book.csv", b"PK\x03\x04....xl/workbook.xml", "binary_content", 1, None),
        ("page.csv", b"<!DOCTYPE html><html>", "binary_content", 1, None),
        ("endless.csv.gz", gzip.compress(GOOD + b"x" * 2_200_000), "line_too_long", 4, None),
        ("cut-off.csv.gz", gzip.compress(GOOD)[:-10], "bad_gzip", 1, None),
        ("damaged.csv.gz", gzip.compress(GOOD)[:-6] + b"\0\0\0\0\0\0", "bad_gzip", 1, None),
        ("bomb.csv.gz", gzip.compress(b"\n" * 40_000_000), "unpacks_too_large", 1, None),
        ("cut-off.parquet", parquet(rows)[:-30], "bad_parquet", 1, None),
        ("no-label.parquet", parquet(nameless), "wrong_type", 3, "label"),
        ("one-label.parquet", parquet(rows[:1] * 3), "one_label", 1, "label"),
    ]


ALL = [*written(), *odd()]


@pytest.mark.parametrize(
    ("name", "content", "code", "line", "field"), ALL, ids=[each[0] for each in ALL]
)
async def test_a_broken_file_is_refused_where_it_is_broken_and_leaves_nothing(
    world: World,
    name: str,
    content: bytes,
    code: str,
    line: int | None,
    field: str | None,
) -> None:
    kind = {"kind": "tabular"} if name.startswith("table-") else {}
    headers = {"Content-Type": "application/octet-stream"}

    problem = await refused(world, content, headers, filename=name, **kind)

    assert (problem["status"], problem["code"]) == (422, "unreadable_dataset")
    first = problem["problems"][0]
    assert first["code"] == code
    assert line in {None, first["line"]}
    assert field in {None, first["field"]}
    assert first["message"]
    assert first["expected"]


def test_there_are_more_than_forty_of_them_and_none_is_forgotten() -> None:
    files = {path.name for path in BROKEN.iterdir()} - {"refusals.json"}

    assert files == {name for name, *_ in written()}
    assert len(ALL) > 40
    assert len({code for _, _, code, *_ in ALL}) > 30
