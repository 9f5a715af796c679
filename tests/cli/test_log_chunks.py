"""`finetrail log-chunks`: a folder of another kernel's log is handed in file by file."""

import json
from pathlib import Path

from finetrail.cli.exits import Exit
from tests.cli.conftest import Cli
from tests.cli.fake_server import FakeServer, Reply, problem

JOBS = "019369c2-7c5e-7b3a-9f10-5d2a8c4e6b71", "019369c2-7c5e-7b3a-9f10-5d2a8c4e6b72"
TAKEN = {"name": "log_1.jsonl.gz", "sha256": "ab" * 32, "lines": 2, "known": False}
KEPT = TAKEN | {"source": "brought", "size": 40, "first": None, "last": None, "sequence": 9}


def path(job: str) -> str:
    return f"/api/v1/jobs/{job}/logs/chunks"


def a_folder(root: Path) -> Path:
    for job in JOBS:
        (root / job).mkdir(parents=True)
        for number in (1, 2):
            (root / job / f"log_{number}.jsonl.gz").write_bytes(f"{job} {number}".encode())
        (root / job / "notes.txt").write_text("no chunk")
    return root


def test_every_chunk_of_every_job_is_brought_in_order(
    server: FakeServer, cli: Cli, tmp_path: Path
) -> None:
    for job in JOBS:
        server.on("POST", path(job), Reply(201, json=TAKEN))

    done = cli("log-chunks", "bring", str(a_folder(tmp_path / "logs")), "--json")

    assert done.exit_code == Exit.OK
    assert [each["job"] for each in json.loads(done.stdout)] == [JOBS[0], JOBS[0], *2 * [JOBS[1]]]
    for job in JOBS:
        first, second = server.requests("POST", path(job))
        assert (first.body, second.body) == (f"{job} 1".encode(), f"{job} 2".encode())
        assert [each.query["name"] for each in (first, second)] == [
            "log_1.jsonl.gz",
            "log_2.jsonl.gz",
        ]


def test_what_is_refused_is_named_and_the_others_are_taken_in(
    server: FakeServer, cli: Cli, tmp_path: Path
) -> None:
    folder = a_folder(tmp_path / "logs")
    server.on("POST", path(JOBS[0]), problem(409, "log_chunk_differs", "Another one was taken in."))
    server.on("POST", path(JOBS[1]), Reply(201, json=TAKEN))

    done = cli("log-chunks", "bring", str(folder))

    assert done.exit_code == Exit.FAILED
    assert "2 of 4 were refused" in done.stderr
    assert f"{JOBS[0]}/log_1.jsonl.gz" in done.stderr
    assert len(server.requests("POST", path(JOBS[1]))) == 2


def test_the_folder_of_one_job_is_brought_by_its_id(
    server: FakeServer, cli: Cli, tmp_path: Path
) -> None:
    folder = a_folder(tmp_path / "logs") / JOBS[0]
    server.on("POST", path(JOBS[1]), Reply(201, json=TAKEN))

    assert cli("log-chunks", "bring", str(folder), "--job", JOBS[1]).exit_code == Exit.OK
    assert len(server.requests("POST", path(JOBS[1]))) == 2
    nothing = cli("log-chunks", "bring", str(folder))
    assert nothing.exit_code == Exit.USAGE
    assert "no log_*.jsonl.gz" in nothing.stderr


def test_the_chunks_of_a_job_are_listed_whole(server: FakeServer, cli: Cli) -> None:
    first = Reply(json={"items": [KEPT | {"time": "t"}], "next": "9"})
    second = Reply(json={"items": [KEPT | {"time": "u"}], "next": None})
    server.on("GET", path(JOBS[0]), first, second)

    done = cli("log-chunks", "list", JOBS[0], "--json")

    assert [each["time"] for each in json.loads(done.stdout)] == ["t", "u"]
