"""Asks a real stack whatever its OpenAPI document allows, and what it does not, as each role.

    python -m tests.fuzz.api [--examples N] [--seed S]

Schemathesis makes the requests. No answer may be a 5xx (503 and 504 are answers: something that
the stack needs was away), differ from what the document says of it, or hold what is secret.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.harness import ROOT, Stack, running_stack

ROLES = ("viewer", "editor", "admin")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
# They would end what the later requests need, or last for ever.
LEFT_OUT = r"^/api/v1/(keys/\{key_id\}|events|jobs/\{job_id\}/(logs|events))$"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="finetrail-fuzz-") as folder,
        running_stack(Path(folder) / "data") as stack,
    ):
        furnish(stack)
        failed = [role for role in ROLES if not fuzz(stack, role, asked.examples, asked.seed)]
    print(f"failed as {', '.join(failed)}" if failed else "nothing found")
    return 1 if failed else 0


def furnish(stack: Stack) -> None:
    """Give the stack a dataset, a version in service and an evaluation, so that ids can be hit."""
    dataset = stack.upload((ROOT / "examples" / "intents.csv").read_bytes())
    training = {"epochs": 1, "max_length": 32}
    job = stack.post(
        "/jobs", {"model": "intents", "dataset_id": dataset["id"], "hyperparameters": training}
    )
    stack.evaluation_until_done(str(job["id"]))
    stack.post("/models/intents/activate", {"version": 1})


def fuzz(stack: Stack, role: str, examples: int, seed: int) -> bool:
    key = str(stack.post("/keys", {"name": f"fuzz {role}", "role": role})["secret"])
    began = time.monotonic()
    ran = subprocess.run(
        [
            str(Path(sys.executable).with_name("st")),
            "run",
            f"{stack.url}/schema/openapi.json",
            *("--header", f"Authorization: Bearer {key}"),
            *("--checks", ",".join(CHECKS)),
            *("--max-examples", str(examples)),
            *("--seed", str(seed)),
            *("--request-timeout", "20"),
            *("--generation-database", "none"),
            *("--exclude-path-regex", LEFT_OUT),
            "--no-color",
        ],
        check=False,
    )
    print(
        f"{role}: {'well' if ran.returncode == 0 else 'FAILED'}, {time.monotonic() - began:.0f} s"
    )
    return ran.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
