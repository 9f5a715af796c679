"""Ends of work that are outcomes and not crashes: each becomes a ``Failed`` fact with a stable code."""

from domain.work import Failed


class WorkFailed(Exception):
    """The same inputs would fail in the same way again, so trying again does not help."""

    code = "work_failed"

    def fact(self) -> Failed:
        return Failed(code=self.code, message=str(self), retryable=False)


class StopAsked(Exception):
    """Thrown into the work between two facts: leave a training checkpoint where there is one to leave, and end."""


class BaseModelRefused(WorkFailed):
    """The base model is unknown, unpinned, altered, or holds something that could run as code."""

    code = "base_model_refused"


class DataUnreadable(WorkFailed):
    """The rows cannot be read as the job describes them, or are too few to be split."""

    code = "data_unreadable"


class CheckpointUnreadable(WorkFailed):
    """A training checkpoint or an adapter does not fit the model it is meant for."""

    code = "checkpoint_unreadable"


def out_of_memory(error: BaseException) -> bool:
    """Recognise torch's and Python's ways of saying so, without loading torch to do it."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )
