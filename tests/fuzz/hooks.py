"""What schemathesis is told beyond the description: checks of our own, and what is not asked as it was made.

It is loaded by `st`, in a process of its own, which finds what it needs in the file that `FUZZ_FACTS`
names and leaves what it has counted beside it.
"""

import atexit
import json
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Final

import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, CheckContext, HookContext, Response

from gateway.access_matrix import ACCESS, RANK
from gateway.uploads import MEDIA_TYPES
from tests.fuzz.leaks import Leaks
from tests.fuzz.properties import INFERENCE

CLOSED: Final = frozenset({401, 403, 404, 405})
NOBODY: Final = "00000000"
NOTHING: Final = "00000000-0000-0000-0000-000000000000"

_facts_file = Path(os.environ["FUZZ_FACTS"])
_facts: dict[str, Any] = json.loads(_facts_file.read_text())
_role: str = _facts["role"]
_leaks = Leaks(_facts["secrets"])
_answers: defaultdict[str, Counter[int]] = defaultdict(Counter)

# Left out of the run, all of it: what would end the run itself. The routes are asked, with another id.
# The keys that ask, the one agent that computes, the dataset that all other routes read.
SPARED: Final = {
    ("DELETE", "/api/v1/keys/{key_id}"): ("key_id", frozenset(_facts["key_ids"]), NOBODY),
    ("POST", "/api/v1/agents/{agent_id}/revoke"): ("agent_id", frozenset(_facts["agents"]), NOTHING),
    ("POST", "/api/v1/agents/{agent_id}/drain"): ("agent_id", frozenset(_facts["agents"]), NOTHING),
    ("DELETE", "/api/v1/datasets/{dataset_id}"): (
        "dataset_id",
        frozenset(_facts["datasets"]),
        NOTHING,
    ),
}  # fmt: skip
STREAMS: Final = frozenset(
    {"/api/v1/events", "/api/v1/jobs/{job_id}/events", "/api/v1/jobs/{job_id}/logs"}
)

_ROWS: Final = st.integers(0, 30).map(lambda rows: [b"row %d,%d" % (n, n % 3) for n in range(rows)])
_LINES: Final = st.lists(
    st.sampled_from((b'{"text": "a", "label": "b"}', b'{"prompt": "a", "completion": "b"}', b"{"))
)
# A file that can be read is in no schema; any bytes would hardly ever be one.
FILES: Final = st.one_of(
    st.binary(max_size=200),
    _ROWS.map(lambda rows: b"\n".join([b"text,label", *rows])),
    _LINES.map(b"\n".join),
)
# The others have examples that are no bytes.
for _media_type in MEDIA_TYPES - {"application/json", "text/csv", "application/octet-stream"}:
    schemathesis.openapi.media_type(_media_type, FILES)
    schemathesis.serializer.alias(_media_type, "application/octet-stream")


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    if spared := SPARED.get((case.method, case.path)):
        name, kept, other = spared
        if str(case.path_parameters.get(name)).lower() in kept:
            case.path_parameters[name] = other
    # Every other one is asked as a stream; of one that does not end, the first frames are read.
    if case.path in STREAMS and case.method == "GET" and sum(_of(case).values()) % 2:
        case.headers["Accept"] = "text/event-stream"


@schemathesis.hook
def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
    _of(case)[response.status_code] += 1


def _of(case: Case[Any]) -> Counter[int]:
    return _answers[f"{case.operation.method.upper()} {case.path}"]


@schemathesis.check
def nothing_is_broken(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """Only an agent may be away: one that is busy, or trains, does not serve."""
    away = response.status_code == 503 and INFERENCE.match(case.path)
    assert response.status_code < 500 or away, response.text[:500]


@schemathesis.check
def nothing_leaks(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    headers = [(name, value) for name, values in response.headers.items() for value in values]
    found = _leaks.in_answer(headers, response.content)
    assert not found, f"the answer holds {', '.join(found)}"


@schemathesis.check
def the_role_is_kept(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """What a role may not do is refused before anything else is said, in words that tell nothing."""
    needed = ACCESS.get((case.method, case.path))
    if needed in {None, "public"} or RANK[_role] >= RANK[str(needed)]:
        return
    assert response.status_code in CLOSED, f"{_role}: {response.status_code}"
    if response.status_code == 403:
        said = response.json().get("detail")
        assert said == f"A key with the role {_role} may not.", said


@atexit.register
def _leave_counts() -> None:
    counted = {route: dict(statuses) for route, statuses in _answers.items()}
    _facts_file.with_suffix(".counts.json").write_text(json.dumps(counted))
