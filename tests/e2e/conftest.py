"""One running stack shared by the stories that leave it as they found it."""

import csv
import io
from collections.abc import Iterator

import pytest

from tests.e2e.harness import ROOT, Stack, running_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("shared") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def few_rows() -> bytes:
    """Every label of the example with 30 rows each: enough to train on, quick to do so."""
    source = (ROOT / "examples" / "intents.csv").read_text().splitlines(keepends=True)
    rows = list(csv.reader(source))
    taken: dict[str, int] = {}
    kept = [rows[0]]
    for row in rows[1:]:
        if taken.get(row[1], 0) < 30:
            taken[row[1]] = taken.get(row[1], 0) + 1
            kept.append(row)
    text = io.StringIO()
    csv.writer(text).writerows(kept)
    return text.getvalue().encode()
