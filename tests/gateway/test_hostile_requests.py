"""Whatever is asked breaks nothing, leaves the store nowhere, and is told no secret.

`make test-fuzz` asks the same of a real stack, more often.
"""

import base64
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.harness import wait_for
from tests.fuzz import hostile, properties
from tests.fuzz.leaks import Leaks
from tests.fuzz.properties import Target
from tests.fuzz.served_world import CANARY, Served, served_world

EXAMPLES = 120
CODE = {".py", ".pyc", ".so"}  # which a traceback quotes, or a first use loads


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Target]]:
    with served_world(tmp_path_factory.mktemp("served"), EXAMPLES) as both:
        yield both


@pytest.mark.parametrize("property_", properties.ALL, ids=lambda one: one.__name__)
def test_every_answer_is_one_that_the_gateway_means(
    served: tuple[Served, Target], property_: Callable[[Target], None]
) -> None:
    property_(served[1])


def test_nothing_outside_the_store_was_read_or_written(served: tuple[Served, Target]) -> None:
    world, target = served
    target.ask("GET", f"/api/v1/datasets/{target.real['dataset_id']}/content")
    properties.no_upload_is_called_a_path(target)

    touched = world.touched.paths
    changed = {path for _, path, changes in touched if changes}
    assert any(path.is_relative_to(world.folder) for path in changed)
    assert [path for path in changed if not path.is_relative_to(world.folder)] == []
    read = {path for _, path, changes in touched if not changes and path.suffix not in CODE}
    assert any(path.is_relative_to(world.folder) for path in read)
    assert [path for path in read if not path.resolve().is_relative_to(world.folder)] == []
    assert world.canary.read_bytes() == CANARY
    assert {path.name for path in world.folder.parent.iterdir()} == {"data", hostile.CANARY}


def test_no_line_of_the_log_holds_a_secret(served: tuple[Served, Target]) -> None:
    world, target = served
    told = len(world.lines)
    target.ask("GET", f"/api/v1/jobs?key={target.wire.key}")
    wait_for("the line of the request", lambda: len(world.lines) > told, within_s=5)

    assert [line for line in world.lines if target.leaks.in_text(line.encode())] == []


def test_a_secret_is_found_in_whatever_form_it_gets_out() -> None:
    leaks = Leaks({"a text": "a pepper for tests", "a key": "ab" * 32})
    raw = bytes.fromhex("ab" * 32)
    forms = [b"a pepper for tests", b"a pepper for tests".hex().encode(), base64.b64encode(raw)]
    forms += [raw.hex().encode(), base64.urlsafe_b64encode(raw).rstrip(b"=")]

    assert [leaks.in_text(b"said: " + form + b".") for form in forms] == [
        *[["a text"]] * 2,
        *[["a key"]] * 3,
    ]
    assert leaks.in_text(b"Traceback (most recent call last):") == ["a traceback"]
    assert leaks.in_text(b"SELECT name FROM model WHERE id = $1") == ["an SQL statement"]
    assert leaks.in_text(b"select one from the list, and mind the pepper") == []
