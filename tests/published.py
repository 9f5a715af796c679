"""Published datasets that some tests read, where they lie beside the checkout; they are not ours to ship."""

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("FINETRAIL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def published(name: str) -> Path:
    """The file of this name, or a skipped test."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{name} does not lie in FINETRAIL_TEST_DATA ({FOLDER})")
    return path
