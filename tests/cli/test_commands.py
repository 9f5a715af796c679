"""The command line: what it prints, and the code it ends with."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from finetrail.cli.exits import Exit
from tests.cli import answers
from tests.cli.answers import JOB_ID
from tests.cli.conftest import Cli
from tests.cli.fake_server import Drop, FakeServer, Reply, log, problem, sse

JOB = f"/api/v1/jobs/{JOB_ID}"
END = ("end", {"status": "succeeded"})


def test_jobs_are_a_table_without_control_characters(server: FakeServer, cli: Cli) -> None:
    server.on("GET", "/api/v1/jobs", Reply(json=answers.page(answers.job())))

    shown = cli("jobs")

    assert shown.exit_code == Exit.OK
    heading, row = shown.stdout.splitlines()
    assert heading.split() == ["id", "model", "status", "done", "loss", "version"]
    assert row.split() == [JOB_ID, "intents", "running", "36", "%", "0.312"]
    assert "\x1b" not in shown.output


def test_json_is_one_array_on_standard_output(server: FakeServer, cli: Cli) -> None:
    server.on("GET", "/api/v1/jobs", Reply(json=answers.page(answers.job())))

    (line,) = cli("jobs", "--json").stdout.splitlines()

    assert json.loads(line)[0]["progress"]["eta_s"] == 8.1


def test_last_means_the_newest_job(server: FakeServer, cli: Cli) -> None:
    server.on("GET", "/api/v1/jobs", Reply(json=answers.page(answers.job())))
    server.on("GET", JOB, Reply(json=answers.job()))

    assert json.loads(cli("jobs", "last", "--json").stdout)["id"] == JOB_ID


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (problem(404, "not_found", "There is no job."), Exit.NOT_FOUND),
        (problem(401, "unauthenticated", "No key."), Exit.REFUSED),
        (problem(403, "forbidden", "Not a viewer's."), Exit.REFUSED),
        (problem(409, "stale_attempt", "It has ended."), Exit.REFUSED),
        (problem(500, "internal_error", "Oops."), Exit.FAILED),
    ],
)
def test_the_exit_code_says_what_kind_of_error_it_was(
    server: FakeServer, cli: Cli, reply: Reply, code: Exit
) -> None:
    server.on("POST", f"{JOB}/cancel", reply)

    done = cli("cancel", JOB_ID)

    assert done.exit_code == code
    assert isinstance(reply.json, dict)
    assert f"error: {reply.json['detail']}" in done.stderr
    assert done.stdout == ""


def test_a_server_that_is_away_has_its_own_exit_code(cli: Cli) -> None:
    done = cli("jobs", "--url", "http://127.0.0.1:1")

    assert done.exit_code == Exit.UNREACHABLE
    assert "finetrail up" in done.stderr


def test_without_a_server_or_a_stack_the_exit_code_is_unreachable(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FINETRAIL_URL")
    monkeypatch.delenv("FINETRAIL_API_KEY")

    done = cli("jobs")

    assert done.exit_code == Exit.UNREACHABLE
    assert not Path(".finetrail").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "x.csv"),
        ("jobz",),
        ("activate", "intents", "no-number"),
        ("train", "no-such-file.csv", "--model", "intents"),
        ("jobs", "--url", "not a url"),
        ("demo", "--test", "x.csv"),
        ("demo", "--data", "no-such-file.csv"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(cli: Cli, arguments: tuple[str, ...]) -> None:
    assert cli(*arguments).exit_code == Exit.USAGE


def test_an_error_is_an_object_when_json_is_asked_for(server: FakeServer, cli: Cli) -> None:
    server.on("GET", JOB, problem(404, "not_found", "There is no job."))

    done = cli("jobs", JOB_ID, "--json")

    error = json.loads(done.stdout)["error"]
    assert (error["code"], error["status"], error["exit_code"]) == ("not_found", 404, 3)


def test_a_refused_upload_shows_every_line_and_what_would_be_right(
    server: FakeServer, cli: Cli, tmp_path: Path
) -> None:
    wrong = {
        "line": 12,
        "column": None,
        "field": "intent",
        "code": "empty",
        "message": "the label is empty\x1b[31m",
        "expected": "a label",
    }
    refusal = problem(422, "unreadable_dataset", "1 line is wrong.", problems=[wrong])
    server.on("POST", "/api/v1/datasets", refusal)
    (tmp_path / "bad.csv").write_text("text,intent\n")

    done = cli("datasets", "upload", "bad.csv")

    assert done.exit_code == Exit.REFUSED
    row = done.stderr.splitlines()[-1]
    assert row.split()[:2] == ["12", "intent"]
    assert row.endswith("a label")
    assert "\x1b" not in done.stderr


def test_training_on_a_file_uploads_it_and_submits_a_job(
    server: FakeServer, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("text,intent\na,b\n")
    server.on("POST", "/api/v1/datasets", Reply(201, answers.dataset()))
    server.on("POST", "/api/v1/jobs", Reply(202, answers.job(status="queued")))

    done = cli("train", "rows.csv", "--model", "intents", "--epochs", "2", "--seed", "7", "--json")

    assert json.loads(done.stdout)["status"] == "queued"
    assert server.asked[-1].json == {
        "model": "intents",
        "dataset_id": answers.dataset()["id"],
        "hyperparameters": {"epochs": 2},
        "split": {"seed": 7},
        "seed": 7,
    }


def test_what_is_chosen_of_a_language_model_is_sent_and_the_rest_is_left_to_the_server(
    server: FakeServer, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "chats.jsonl").write_text("{}\n")
    server.on("POST", "/api/v1/datasets", Reply(201, answers.dataset()))
    server.on("POST", "/api/v1/jobs", Reply(202, answers.job(status="queued")))
    tuned = ("--rank", "4", "--alpha", "8", "--dropout", "0", "--max-length", "512")
    chosen = ("--method", "sft", "--base-model", "qwen", "--kind", "chat", *tuned)

    done = cli("train", "chats.jsonl", "--model", "support", *chosen)

    assert done.exit_code == Exit.OK, done.output
    assert server.asked[0].query["kind"] == "chat"
    assert server.asked[-1].json == {
        "model": "support",
        "dataset_id": answers.dataset()["id"],
        "base_model": "qwen",
        "method": "sft",
        "hyperparameters": {
            "max_length": 512,
            "lora": {"rank": 4, "alpha": 8.0, "dropout": 0.0},
        },
    }


def test_a_job_shows_its_base_model_and_marks_what_is_learned(server: FakeServer, cli: Cli) -> None:
    server.on("GET", JOB, Reply(json=answers.language_job()))

    shown = cli("jobs", JOB_ID).stdout

    assert "finetrail/tiny (sft)" in shown
    assert "model.safetensors 000000000000" in shown
    assert "900 tokens, 10.0 %" in shown
    assert shown.endswith("user: money\\x1b back\nassistant: ⟦refund⟧\n")
    assert "\x1b" not in shown


def test_a_job_of_which_nothing_is_decided_yet_is_shown(server: FakeServer, cli: Cli) -> None:
    undecided = answers.job(status="queued", base_model=None, method=None, progress={})
    server.on("GET", JOB, Reply(json=undecided))

    assert "None" not in cli("jobs", JOB_ID).stdout


def test_training_on_a_dataset_uploads_nothing(server: FakeServer, cli: Cli) -> None:
    server.on("POST", "/api/v1/jobs", Reply(202, answers.job()))

    cli("train", answers.dataset()["id"], "--model", "intents")

    assert [asked.path for asked in server.asked] == ["/api/v1/jobs"]


def test_a_followed_job_shows_its_log_and_ends_with_its_evaluation(
    server: FakeServer, cli: Cli
) -> None:
    _serve_a_job_that_succeeds(server)

    done = cli("train", answers.dataset()["id"], "--model", "intents", "--follow", "--json")

    assert done.exit_code == Exit.OK, done.output
    assert "[18:00:00] [INFO] epoch 1" in done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == "succeeded"
    assert result["evaluation"]["summary"]["verdict"] == "better"


def test_a_followed_job_is_shown_with_what_may_be_concluded(server: FakeServer, cli: Cli) -> None:
    _serve_a_job_that_succeeds(server)

    done = cli("train", answers.dataset()["id"], "--model", "intents", "--follow")

    assert "epoch 2/3  step 40/111  loss 0.312  validation accuracy 91.0 %" in done.stderr
    assert "+4.0 to +12.0 points, p = 0.0005: better" in done.stdout


def test_a_followed_job_that_fails_ends_with_one(server: FakeServer, cli: Cli) -> None:
    failed = answers.job(status="failed", error={"code": "bad_loss", "message": "It is NaN."})
    server.on("POST", "/api/v1/jobs", Reply(202, answers.job()))
    server.on("GET", JOB, Reply(json=failed))
    server.on("GET", f"{JOB}/logs", sse(("end", {"status": "failed"})))

    done = cli("train", answers.dataset()["id"], "--model", "intents", "--follow")

    assert done.exit_code == Exit.FAILED
    assert "It is NaN. (bad_loss)" in done.stderr


def test_followed_logs_survive_a_dropped_line(server: FakeServer, cli: Cli) -> None:
    dropped = sse(log("one"), cut=True)
    server.on("GET", f"{JOB}/logs", dropped, Drop, sse(log("two"), END, first=2))

    done = cli("logs", "-f", JOB_ID)

    assert done.stdout.splitlines() == ["[18:00:00] [INFO] one", "[18:00:00] [INFO] two"]


def test_followed_logs_as_json_are_one_object_a_line(server: FakeServer, cli: Cli) -> None:
    server.on("GET", f"{JOB}/logs", sse(log("one", "two"), END))

    lines = cli("logs", "-f", JOB_ID, "--json").stdout.splitlines()

    assert [json.loads(line)["message"] for line in lines] == ["one", "two"]


def test_a_log_line_cannot_steer_the_terminal(server: FakeServer, cli: Cli) -> None:
    server.on("GET", f"{JOB}/logs", sse(log("\x1b]0;owned\x07"), END))

    shown = cli("logs", "-f", JOB_ID).stdout

    assert "\x1b" not in shown
    assert r"\x1b]0;owned\x07" in shown


def test_texts_to_predict_may_come_from_standard_input(server: FakeServer, cli: Cli) -> None:
    found = [{"label": "track", "scores": {"track": 0.9, "refund": 0.1}}] * 2
    server.on("POST", "/api/v1/models/intents/predict", Reply(json={"predictions": found}))

    done = cli("predict", "intents", "-", "--json", text="where is it?\n\nand the other?\n")

    assert server.asked[-1].json == {"texts": ["where is it?", "and the other?"]}
    first = json.loads(done.stdout)["predictions"][0]
    assert (first["text"], first["label"]) == ("where is it?", "track")


def test_a_version_is_downloaded_under_its_name(
    server: FakeServer, cli: Cli, tmp_path: Path
) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("README.md", "card")
    path = "/api/v1/models/intents/versions/1/download"
    server.on("GET", path, Reply(chunks=[content.getvalue()]))

    done = cli("download", "intents", "1", "--json")

    assert json.loads(done.stdout) == {"file": "intents-1.zip", "bytes": len(content.getvalue())}
    assert (tmp_path / "intents-1.zip").read_bytes() == content.getvalue()


def test_a_model_is_shown_with_its_versions(server: FakeServer, cli: Cli) -> None:
    server.on("GET", "/api/v1/models/intents", Reply(json=answers.model()))
    versions = answers.page(answers.version())
    server.on("GET", "/api/v1/models/intents/versions", Reply(json=versions))

    assert "yes" in cli("models", "intents").stdout.splitlines()[-1].split()


def test_activating_sends_the_number(server: FakeServer, cli: Cli) -> None:
    server.on("POST", "/api/v1/models/intents/activate", Reply(json=answers.model()))

    done = cli("activate", "intents", "1")

    assert server.asked[-1].json == {"version": 1}
    assert "version 1" in done.stdout


def test_events_are_filtered_by_the_server(server: FakeServer, cli: Cli) -> None:
    server.on("GET", "/api/v1/events", Reply(json=answers.page(answers.event(4))))

    done = cli("events", "--type", "JobSubmitted", "--after", "3")

    assert server.asked[-1].query == {"type": "JobSubmitted", "after": "3", "limit": "50"}
    assert done.stdout.splitlines()[-1].split()[0] == "4"


def test_an_evaluation_that_fails_ends_with_one(server: FakeServer, cli: Cli) -> None:
    failed = answers.evaluation(
        status="failed", summary=None, error={"code": "c", "message": "No rows."}
    )
    server.on("POST", "/api/v1/evaluations", Reply(202, answers.evaluation(status="queued")))
    server.on("GET", "/api/v1/evaluations/e1", Reply(json=failed))

    done = cli("evaluate", "intents", "1", "--follow")

    assert done.exit_code == Exit.FAILED
    assert "No rows." in done.stdout


def test_help_is_quick_because_it_loads_nothing_heavy() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from finetrail.cli import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; print(*sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    heavy = {"httpx", "pydantic", "nats", "sqlalchemy", "litestar", "torch", "finetrail.settings"}
    assert heavy & set(done.stdout.split()) == set()


def _serve_a_job_that_succeeds(server: FakeServer) -> None:
    server.on("POST", "/api/v1/jobs", Reply(202, answers.job(status="queued")))
    server.on("GET", JOB, Reply(json=answers.job()), Reply(json=answers.succeeded()))
    server.on("GET", f"{JOB}/logs", sse(log("epoch 1"), END))
    server.on("GET", "/api/v1/models/intents/versions/1", Reply(json=answers.version()))
    server.on("GET", "/api/v1/evaluations/e1", Reply(json=answers.evaluation()))
