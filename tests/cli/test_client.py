"""The client against a server that misbehaves."""

import io
import zipfile
from pathlib import Path

import pytest

from finetrail.client import (
    Client,
    Conflict,
    DownloadFailed,
    FinetrailError,
    Forbidden,
    Invalid,
    NotFound,
    ServerUnreachable,
    Unauthorized,
    Unavailable,
    WaitTimeout,
)
from tests.cli import answers
from tests.cli.answers import JOB_ID
from tests.cli.fake_server import Asked, Drop, FakeServer, Reply, log, problem, sse

JOB = f"/api/v1/jobs/{JOB_ID}"
LOGS = f"{JOB}/logs"
DOWNLOAD = "/api/v1/models/intents/versions/1/download"
END = ("end", {"status": "succeeded"})


def test_the_key_goes_with_every_request(server: FakeServer, client: Client) -> None:
    server.on("GET", JOB, Reply(json=answers.job()))

    job = client.job(JOB_ID)

    assert job.progress.percent == 36.0
    assert server.asked[0].headers["authorization"] == "Bearer fpk_key"


def test_a_read_is_asked_again_after_a_dropped_connection(
    server: FakeServer, client: Client
) -> None:
    server.on("GET", JOB, Drop, Drop, Reply(json=answers.job()))

    assert client.job(JOB_ID).id == JOB_ID
    assert len(server.asked) == 3


def test_a_write_is_sent_again_with_the_same_idempotency_key(
    server: FakeServer, client: Client
) -> None:
    server.on("POST", "/api/v1/jobs", Drop, Reply(202, answers.job()))

    client.submit_job("intents", "d1", seed=3)

    first, second = server.requests("POST", "/api/v1/jobs")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert second.json == {"model": "intents", "dataset_id": "d1", "seed": 3}


def test_two_writes_have_two_idempotency_keys(server: FakeServer, client: Client) -> None:
    server.on("POST", "/api/v1/jobs", Reply(202, answers.job()))

    client.submit_job("intents", "d1")
    client.submit_job("intents", "d1")

    keys = {each.headers["idempotency-key"] for each in server.asked}
    assert len(keys) == 2


def test_a_deletion_is_not_repeated_when_nobody_knows_if_it_was_done(
    server: FakeServer, client: Client
) -> None:
    server.on("DELETE", "/api/v1/datasets/d1", Drop)

    with pytest.raises(ServerUnreachable):
        client.delete_dataset("d1")

    assert len(server.asked) == 1


def test_a_server_that_is_not_ready_yet_is_asked_again(server: FakeServer, client: Client) -> None:
    server.on("GET", JOB, problem(503, "log_unavailable", "later"), Reply(json=answers.job()))

    assert client.job(JOB_ID).id == JOB_ID


def test_a_server_that_stays_unready_is_an_error_in_the_end(
    server: FakeServer, client: Client
) -> None:
    server.on("GET", JOB, problem(503, "log_unavailable", "later"))

    with pytest.raises(Unavailable) as raised:
        client.job(JOB_ID)

    assert raised.value.code == "log_unavailable"
    assert len(server.asked) > 2


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, Invalid),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (413, Invalid),
        (422, Invalid),
    ],
)
def test_a_refusal_is_an_exception_with_its_code_and_is_not_repeated(
    server: FakeServer, client: Client, status: int, error: type[Exception]
) -> None:
    server.on("GET", JOB, problem(status, "some_code", "Because."))

    with pytest.raises(error, match="Because") as raised:
        client.job(JOB_ID)

    assert getattr(raised.value, "code") == "some_code"  # noqa: B009 - of any of the classes
    assert len(server.asked) == 1


def test_an_error_page_of_a_proxy_is_an_error_too(server: FakeServer, client: Client) -> None:
    page = Reply(500, headers={"Content-Type": "text/html"}, chunks=[b"<html>oops</html>"])
    server.on("GET", JOB, page)

    with pytest.raises(Exception, match="http_500"):
        client.job(JOB_ID)


def test_nobody_listening_is_said_with_the_url() -> None:
    with (
        Client("http://127.0.0.1:1", patience_s=0) as client,
        pytest.raises(ServerUnreachable, match="nothing listens"),
    ):
        client.job(JOB_ID)


def test_an_upload_is_streamed_with_its_size_and_told_as_it_goes(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "messages.csv"
    file.write_bytes(b"text,intent\n" + b"a,b\n" * 200_000)
    server.on("POST", "/api/v1/datasets", Drop, Reply(201, answers.dataset()))
    told: list[tuple[int, int]] = []

    client.upload_dataset(file, text_column="text", on_progress=lambda *each: told.append(each))

    whole = server.asked[-1]
    assert whole.body == file.read_bytes()
    assert whole.headers["content-type"] == "text/csv"
    assert whole.headers["content-length"] == str(file.stat().st_size)
    assert "transfer-encoding" not in whole.headers
    assert whole.query == {"name": "messages", "filename": "messages.csv", "text_column": "text"}
    assert told[-1] == (file.stat().st_size, file.stat().st_size)
    assert len(told) > 2


def test_a_refused_file_names_its_lines(server: FakeServer, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("text,intent\n,b\n")
    wrong = {
        "line": 2,
        "column": 1,
        "field": "text",
        "code": "empty",
        "message": "m",
        "expected": "e",
    }
    server.on(
        "POST",
        "/api/v1/datasets",
        problem(422, "unreadable_dataset", "One line.", problems=[wrong]),
    )

    with pytest.raises(Invalid) as raised:
        client.upload_dataset(file)

    assert raised.value.line_problems[0].line == 2
    assert raised.value.line_problems[0].field == "text"


def test_a_list_is_read_page_by_page(server: FakeServer, client: Client) -> None:
    def pages(asked: Asked) -> Reply:
        if "cursor" not in asked.query:
            return Reply(json=answers.page(answers.job(id="1"), answers.job(id="2"), after="c"))
        return Reply(json=answers.page(answers.job(id="3"), after="d"))

    server.on("GET", "/api/v1/jobs", pages)

    assert [job.id for job in client.jobs(limit=3)] == ["1", "2", "3"]
    assert [asked.query["limit"] for asked in server.asked] == ["3", "1"]


def test_a_dropped_log_stream_goes_on_after_the_last_whole_message(
    server: FakeServer, client: Client
) -> None:
    server.on(
        "GET",
        LOGS,
        sse(log("one", "two"), log("three"), first=7, cut=True),
        Drop,
        sse(log("four"), END, first=9),
    )

    lines = list(client.follow_logs(JOB_ID))

    assert [line.message for line in lines] == ["one", "two", "three", "four"]
    assert [line.sequence for line in lines] == [7, 7, 8, 9]
    first, *later = server.requests("GET", LOGS)
    assert "last-event-id" not in first.headers
    assert {asked.headers["last-event-id"] for asked in later} == {"8"}


def test_a_message_that_is_cut_in_the_middle_is_asked_for_again(
    server: FakeServer, client: Client
) -> None:
    whole = sse(log("one"), log("two"), first=1)
    assert isinstance(whole.chunks, list)
    cut = Reply(headers=whole.headers, chunks=[*whole.chunks[:-1], whole.chunks[-1][:40]])
    server.on("GET", LOGS, cut, sse(log("two"), END, first=2))

    assert [line.message for line in client.follow_logs(JOB_ID)] == ["one", "two"]


def test_a_log_stream_can_start_behind_a_position(server: FakeServer, client: Client) -> None:
    server.on("GET", LOGS, sse(END))

    assert list(client.follow_logs(JOB_ID, after=41)) == []
    assert server.asked[0].headers["last-event-id"] == "41"


def test_a_gap_is_told_as_a_warning(server: FakeServer, client: Client) -> None:
    server.on("GET", LOGS, sse(("gap", {"after": 3, "first": 9}), END))

    (line,) = client.follow_logs(JOB_ID)

    assert (line.level, line.source) == ("WARNING", "system")


def test_following_the_log_of_an_unknown_job_is_refused_at_once(
    server: FakeServer, client: Client
) -> None:
    with pytest.raises(NotFound):
        list(client.follow_logs(JOB_ID))

    assert len(server.asked) == 1


def test_a_server_that_sends_no_stream_is_not_asked_again(
    server: FakeServer, client: Client
) -> None:
    server.on("GET", LOGS, Reply(json={"items": []}))

    with pytest.raises(FinetrailError, match="no event stream"):
        list(client.follow_logs(JOB_ID))

    assert len(server.asked) == 1


def test_following_gives_up_when_nobody_is_there_any_more(client: Client) -> None:
    with (
        Client("http://127.0.0.1:1") as lonely,
        pytest.raises(ServerUnreachable),
    ):
        list(lonely.follow_logs(JOB_ID, patience_s=0))


def test_waiting_survives_a_server_that_is_restarted(server: FakeServer) -> None:
    server.on("GET", JOB, Reply(json=answers.job()), Drop, Drop, Reply(json=answers.succeeded()))
    seen: list[str] = []

    with Client(server.url, patience_s=0) as hasty:
        job = hasty.wait(JOB_ID, lambda job: seen.append(job.status), poll_s=0.01)

    assert job.status == "succeeded"
    assert seen == ["running", "succeeded"]


def test_waiting_can_have_an_end(server: FakeServer, client: Client) -> None:
    server.on("GET", JOB, Reply(json=answers.job()))

    with pytest.raises(WaitTimeout):
        client.wait(JOB_ID, timeout_s=0.05, poll_s=0.01)


def test_a_download_appears_whole_or_not_at_all(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    good = _zip()
    short = Reply(headers={"Content-Length": str(len(good))}, chunks=[good[:50]])
    server.on("GET", DOWNLOAD, short, Reply(chunks=[good]))
    target = tmp_path / "model.zip"

    client.download("intents", 1, target)

    assert target.read_bytes() == good
    assert list(tmp_path.iterdir()) == [target]


def test_a_damaged_download_leaves_the_old_file_alone(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    damaged = bytearray(_zip())
    damaged[45] ^= 0xFF
    server.on("GET", DOWNLOAD, Reply(chunks=[bytes(damaged)]))
    target = tmp_path / "model.zip"
    target.write_text("old")

    with pytest.raises(DownloadFailed):
        client.download("intents", 1, target)

    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_events_are_followed_across_a_dropped_connection(
    server: FakeServer, client: Client
) -> None:
    server.on(
        "GET",
        "/api/v1/events",
        sse(("JobSubmitted", answers.event(4)), first=4, cut=True),
        sse(("JobClaimed", answers.event(5, "JobClaimed")), first=5),
    )

    following = client.follow_events(type="job", after=3)

    assert [next(following).sequence, next(following).sequence] == [4, 5]
    assert [asked.headers["last-event-id"] for asked in server.asked] == ["3", "4"]


def _zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("README.md", "a model card\n" * 20)
    return content.getvalue()
