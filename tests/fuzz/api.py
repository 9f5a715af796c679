"""Asks a real stack whatever its OpenAPI document allows, and what it does not, as each role.

    python -m tests.fuzz.api [--examples N] [--seed S]

Schemathesis makes requests out of the document; Hypothesis makes paths, names, bodies and positions of
streams that no document allows. No answer may be a 5xx (but 503 where no agent serves), differ from
what the document says of it, take what the document forbids, or hold what is secret. The last line is
one JSON object; the exit status is 1 if anything was found.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.access_matrix import ACCESS
from tests.e2e.harness import ROOT, Stack, running_stack
from tests.fuzz import hostile, properties
from tests.fuzz.furnishing import ROLES, furnish
from tests.fuzz.leaks import Leaks
from tests.fuzz.properties import Target
from tests.fuzz.wire import Wire

CHECKS: Final = (
    "nothing_is_broken",
    "nothing_leaks",
    "the_role_is_kept",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "ignored_auth",
)
REQUEST_S: Final = 20  # a command is answered within ten seconds, whatever happens
STREAM_S: Final = 1  # of a stream in which nothing happens
CANARY: Final = b"whoever reads this has left the data directory"
# What other people's servers write of themselves stays on the machine that they run on.
SERVERS: Final = frozenset({"nats", "postgres"})
FOREIGN: Final = {"the data directory", "an SQL statement"}
# Of what a route asks for, half is what is there: by chance nobody would meet it.
SETTINGS: Final = """
hooks = "tests.fuzz.hooks"
request-timeout = {request_s}

{dictionaries}
[parameters]
{parameters}

[generation]
max-examples = {examples}
database = "none"

[phases.stateful]
generation.max-examples = {stateful}

[checks.negative_data_rejection]
expected-statuses = ["4xx"]

[[operations]]
include-path-regex = "^/api/v1/(events|jobs/\\\\{{job_id\\\\}}/(events|logs))$"
include-method = "GET"
max-stream-events = 3
request-timeout = {stream_s}
"""


@dataclass
class Found:
    """What the run has counted, and what was wrong."""

    requests: dict[str, int] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    asked: set[str] = field(default_factory=set)
    succeeded: set[str] = field(default_factory=set)
    findings: list[str] = field(default_factory=list)

    def count(self, role: str, counts: Mapping[str, Mapping[str, int]]) -> None:
        self.requests[role] = sum(sum(statuses.values()) for statuses in counts.values())
        for route, statuses in counts.items():
            self.asked.add(route)
            for status, times in statuses.items():
                self.answers[f"{status[0]}xx"] += times
                if status.startswith(("2", "3")):
                    self.succeeded.add(route)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=50, help="of each route, for each role")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--roles", default=",".join(ROLES))
    asked = parser.parse_args()
    began, found = time.monotonic(), Found()
    with tempfile.TemporaryDirectory(prefix="finetrail-fuzz-") as name:
        folder = Path(name)
        (folder / hostile.CANARY).write_bytes(CANARY)
        with running_stack(folder / "data") as stack:
            around = sorted(path.name for path in folder.iterdir())
            facts = furnish(stack)
            for role in asked.roles.split(","):
                found.findings += fuzz(stack, facts, role, asked, found)
            found.findings += ask_what_no_document_allows(stack, facts, asked, found)
        found.findings += look_around(folder, around, Leaks(facts["secrets"]))
    report(found, asked, time.monotonic() - began)
    return 1 if found.findings else 0


def settings_of(facts: Mapping[str, Any], examples: int) -> str:
    bound = {f"path.{name}": (name, 0.5) for name in facts["real"]}
    bound |= {
        "body.dataset_id": ("submitted", 0.2),  # each of them is trained on
        "body.model": ("model_id", 0.5),
        "body.version": ("version", 0.5),
    }
    words = {**facts["real"], "submitted": facts["real"]["dataset_id"][1:2], "version": [1]}
    parameters = "\n".join(
        f'"{place}" = {{ dictionary = "{name}", probability = {share} }}'
        for place, (name, share) in bound.items()
    )
    dictionaries = "\n".join(
        f"[dictionaries.{name}]\nvalues = {json.dumps(values)}\n" for name, values in words.items()
    )
    return SETTINGS.format(
        request_s=REQUEST_S,
        stream_s=STREAM_S,
        examples=examples,
        stateful=max(examples // 4, 5),
        dictionaries=dictionaries,
        parameters=parameters,
    )


def fuzz(
    stack: Stack, facts: Mapping[str, Any], role: str, asked: argparse.Namespace, found: Found
) -> list[str]:
    """Run schemathesis as one role; what it has found."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told, report_file = folder / "facts.json", folder / "report.json"
        told.write_text(json.dumps({**facts, "role": role}))
        (folder / "schemathesis.toml").write_text(settings_of(facts, asked.examples))
        began = time.monotonic()
        ran = subprocess.run(
            [
                str(Path(sys.executable).with_name("st")),
                *("--config-file", str(folder / "schemathesis.toml"), "--no-color", "run"),
                f"{stack.url}/schema/openapi.json",
                *("--header", f"Authorization: Bearer {facts['keys'][role]}"),
                *("--checks", ",".join(CHECKS)),
                *("--seed", str(asked.seed)),
                *("--suppress-health-check", "all"),
                *("--warnings", "off"),
                *("--report-json-path", str(report_file)),
                "--continue-on-failure",
            ],
            cwd=ROOT,
            env={**os.environ, "FUZZ_FACTS": str(told), "PYTHONPATH": str(ROOT)},
            check=False,
        )
        print(f"{role}: exit status {ran.returncode}, {time.monotonic() - began:.0f} s", flush=True)
        if not report_file.exists():
            return [f"{role}: schemathesis did not run"]
        found.count(role, json.loads(told.with_suffix(".counts.json").read_text()))
        said = json.loads(report_file.read_text())
    findings = [
        f"{role}: {failure['title']}: {', '.join(failure['operations'])}"
        for failure in said["failures"]
    ]
    findings += [f"{role}: {error['title']}" for error in said["errors"]]
    return findings or ([f"{role}: exit status {ran.returncode}"] if ran.returncode else [])


def ask_what_no_document_allows(
    stack: Stack, facts: Mapping[str, Any], asked: argparse.Namespace, found: Found
) -> list[str]:
    """Paths, names, bodies and streams; what they have found."""
    leaks = Leaks(facts["secrets"])
    real = {name: str(values[0]) for name, values in facts["real"].items()}
    findings = []
    for property_ in properties.ALL:
        with closing(Wire(stack.url, facts["keys"]["admin"])) as wire:
            name, began = property_.__name__, time.monotonic()
            try:
                property_(Target(wire, leaks, CANARY, real, asked.examples * 10, asked.seed))
            except Exception as error:
                findings.append(f"{name}: {error}"[:2000])
            found.requests[name] = wire.asked
            print(f"{name}: {wire.asked} requests, {time.monotonic() - began:.0f} s", flush=True)
    return findings


def look_around(folder: Path, around: list[str], leaks: Leaks) -> list[str]:
    """What lies beside the data directory, and what the logs say."""
    findings = []
    now = sorted(path.name for path in folder.iterdir())
    if now != around or (folder / hostile.CANARY).read_bytes() != CANARY:
        findings.append(f"something was written outside of the data directory: {now}")
    for log in sorted((folder / "data" / "logs").glob("*.log")):
        for number, line in enumerate(log.read_bytes().splitlines(), 1):
            said = set(leaks.in_text(line)) - (FOREIGN if log.stem in SERVERS else set())
            if said:
                findings.append(f"{log.name}, line {number}, holds {', '.join(sorted(said))}")
    return findings


def report(found: Found, asked: argparse.Namespace, seconds: float) -> None:
    documented = {f"{method} {path}" for method, path in ACCESS} - {"GET /schema/openapi.json"}
    for finding in found.findings:
        print(f"found: {finding}")
    print(
        json.dumps(
            {
                "seed": asked.seed,
                "examples": asked.examples,
                "seconds": round(seconds),
                "requests": found.requests,
                "routes": {
                    "all": len(documented),
                    "asked": len(found.asked & documented),
                    "succeeded": len(found.succeeded & documented),
                    "never_succeeded": sorted(documented - found.succeeded),
                },
                "answers": dict(sorted(found.answers.items())),
                "findings": found.findings,
            }
        )
    )


if __name__ == "__main__":
    sys.exit(main())
