"""What an event cannot hold is cut, and what it can hold is left as it is."""

from domain.jobs.commands import RecordStart
from domain.work import Segment, Supervision
from gpu_agent.shortening import MAX_SUPERVISION, shortened_start
from tests import samples
from tests.domain.test_job import start


def started_with(*texts: str) -> RecordStart:
    last = len(texts) - 1
    example = tuple(Segment(text=text, supervised=at == last) for at, text in enumerate(texts))
    supervision = samples.SUPERVISION.model_copy(update={"example": example})
    return start().model_copy(update={"supervision": supervision})


def supervision_of(report: RecordStart) -> Supervision:
    assert report.supervision is not None
    return report.supervision


def test_an_example_that_fits_is_left_as_it_is() -> None:
    report = started_with("a question", "an answer" * 1000)

    assert shortened_start(report) == report
    assert shortened_start(start()) == start()


def test_a_long_example_is_cut_segment_by_segment_so_that_its_end_is_seen() -> None:
    short = supervision_of(shortened_start(started_with("q" * 100_000, "the answer")))

    assert [segment.text[:3] for segment in short.example] == ["qqq", "the"]
    assert short.example[0].text.endswith("…")
    assert [segment.supervised for segment in short.example] == [False, True]


def test_of_an_endless_conversation_the_end_is_kept() -> None:
    texts = [f"{number} " + "ü" * 500 for number in range(3000)]

    short = supervision_of(shortened_start(started_with(*texts)))

    assert len(short.model_dump_json().encode()) <= MAX_SUPERVISION
    assert short.example[-1].text.startswith("2999 ")
