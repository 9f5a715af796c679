"""What people wrote, cut so that an event can hold it; the blobs have it whole."""

from typing import Final

from domain.jobs.commands import RecordStart
from domain.work import EvaluationSummary, Segment, Supervision

EXAMPLE_TEXTS: Final = (500, 200, 80)  # characters; shorter ones where the longer do not fit
MAX_RESULT: Final = 48 * 1024  # bytes; an event holds 64 KiB, and there is more in it than this
SEGMENT_TEXTS: Final = (4000, 1000, 100)  # characters, likewise
MAX_SEGMENTS: Final = 100  # of a conversation, its last ones; they are what it was about
MAX_SUPERVISION: Final = 24 * 1024  # bytes; packages and files of a base model stand beside it


def shortened_summary(summary: EvaluationSummary) -> EvaluationSummary:
    """Cut the examples' texts; the blob of outputs has them whole."""
    short = summary
    for limit in EXAMPLE_TEXTS:
        examples = tuple(
            example.model_copy(
                update={
                    name: _cut(getattr(example, name), limit)
                    for name in ("text", "expected", "base", "fine_tuned")
                }
            )
            for example in summary.examples
        )
        short = summary.model_copy(update={"examples": examples})
        if len(short.model_dump_json().encode()) <= MAX_RESULT:
            break
    return short


def shortened_start(report: RecordStart) -> RecordStart:
    """Cut the rendered example."""
    if report.supervision is None:
        return report
    return report.model_copy(update={"supervision": _shortened(report.supervision)})


def _shortened(supervision: Supervision) -> Supervision:
    short = supervision
    for limit in SEGMENT_TEXTS:
        if len(short.model_dump_json().encode()) <= MAX_SUPERVISION:
            break
        example = tuple(
            Segment(text=_cut(segment.text, limit), supervised=segment.supervised)
            for segment in supervision.example[-MAX_SEGMENTS:]
        )
        short = supervision.model_copy(update={"example": example})
    return short


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
