"""The order of the files: the longest first, so that none of them runs on alone at the end."""

from typing import Final

import pytest

LONGEST: Final = (
    "tests/e2e/test_crashes.py",
    "tests/e2e/test_language_model.py",
    "tests/e2e/test_main_job.py",
    "tests/crash/test_matrix.py",
    "tests/e2e/test_replay.py",
    "tests/gpu_agent/test_child.py",
    "tests/e2e/test_two_agents.py",
    "tests/e2e/test_streams.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort files; within a file the order stays.

    Raises:
        UsageError: A file named here is not there any more.
    """
    gone = [name for name in LONGEST if not (config.rootpath / name).is_file()]
    if gone:
        raise pytest.UsageError(f"{__name__} names files that are not there: {', '.join(gone)}")
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))
