"""Progress on a terminal and elsewhere."""

import io

import pytest

from finetrail.client import Job
from finetrail.live import live_job, position
from finetrail.render import Table, plain_lines, write_table
from tests.cli import answers


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def job() -> Job:
    return Job.model_validate(answers.job())


def test_all_is_said_where_there_is_room(job: Job) -> None:
    assert position(job) == (
        "epoch 2/3  step 40/111  loss 0.312  validation accuracy 91.0 %  4,100 tokens/s  8.1 s left"
    )


def test_what_is_least_wanted_goes_first_where_there_is_not(job: Job) -> None:
    assert position(job, 50) == "epoch 2/3  step 40/111  loss 0.312  8.1 s left"
    assert position(job, 5) == "step 40/111"


def test_a_job_that_has_not_started_has_no_position() -> None:
    waiting = answers.job(status="queued", progress={"epochs": 3, "steps": 0})

    assert position(Job.model_validate(waiting)) == ""


def test_elsewhere_a_line_is_written_only_when_there_is_something_new(job: Job) -> None:
    stream = io.StringIO()

    with live_job(stream) as live:
        live.update(job)
        live.update(job)
        live.line("a log line \x1b[31m")

    first, second = stream.getvalue().splitlines()
    assert first.startswith("running  epoch 2/3")
    assert second == r"a log line \x1b[31m"


def test_on_a_terminal_lines_stay_and_the_bar_goes(job: Job) -> None:
    stream = Terminal()

    with live_job(stream) as live:
        live.update(job)
        live.line("a log line")

    assert "a log line\n" in stream.getvalue()
    assert "step 40/111" in stream.getvalue()


def test_plain_columns_are_aligned_and_never_cut() -> None:
    table = Table(("id", "name"), [("1", "x" * 200), ("1000", "y")])

    assert plain_lines(table) == ["id    name", "1     " + "x" * 200, "1000  y"]


def test_a_table_on_a_terminal_shows_text_as_it_is() -> None:
    stream = Terminal()

    write_table(Table(("text",), [("[red]not markup[/red]",)], note="below"), stream)

    assert "[red]not markup[/red]" in stream.getvalue()
    assert stream.getvalue().endswith("below\n")
