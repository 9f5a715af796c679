"""Compared and rated answers and plain texts, from a packed upload to an evaluated version, on a real stack."""

import gzip
import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.harness import Stack

pytestmark = [pytest.mark.infra, pytest.mark.slow, pytest.mark.timeout(600)]

SHORT = {"epochs": 1, "batch_size": 8, "max_length": 64}


def rows(kind: str) -> Iterator[dict[str, Any]]:
    for at in range(40):
        asked = [{"role": "user", "content": f"Where is parcel {at}?"}]
        answers = [{"role": "assistant", "content": said} for said in ("On its way.", "No idea.")]
        match kind:
            case "preference":
                yield {
                    "input": {"messages": asked},
                    "preferred_output": answers[:1],
                    "non_preferred_output": answers[1:],
                }
            case "kto":
                yield {"prompt": asked, "completion": [answers[at % 2]], "label": at % 2 == 0}
            case _:
                yield {"text": f"Parcel {at} is on its way."}


def parquet(kind: str) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows(kind))), out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("kind", "name", "content", "method"),
    [
        ("preference", "answers.parquet", parquet("preference"), "dpo"),
        (
            "kto",
            "rated.json.gz",
            gzip.compress(json.dumps(list(rows("kto"))).encode(), mtime=0),
            "kto",
        ),
        ("text", "notes.txt", "\n\n".join(row["text"] for row in rows("text")).encode(), "sft"),
    ],
)
def test_a_file_becomes_a_version_by_the_method_that_suits_its_rows(
    stack: Stack, kind: str, name: str, content: bytes, method: str
) -> None:
    dataset = stack.upload(content, name)
    body = {"model": f"by-{kind}", "dataset_id": dataset["id"], "hyperparameters": SHORT}
    job = stack.post("/jobs", body)
    ended = stack.job_until(job["id"], lambda job: job["ended_at"] is not None)
    evaluation = stack.evaluation_until_done(job["id"])
    shown = stack.get(f"/datasets/{dataset['id']}/rows")["items"]
    kept = stack.http.get(f"/api/v1/datasets/{dataset['id']}/content").content

    assert (dataset["kind"], dataset["rows"], dataset["status"]) == (kind, 40, "valid")
    assert dataset["why"].startswith(f"{kind}, because")
    assert kept == content
    assert (ended["status"], ended["method"]) == ("succeeded", method), ended["error"]
    assert evaluation["status"] == "completed", evaluation
    assert evaluation["summary"]["rows"] > 0
    learned = {"preference": "chosen", "kto": "completion", "text": "messages"}
    assert shown[0][learned[kind]]
