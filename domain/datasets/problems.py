"""What is wrong with a file, by line and field, and what would be right."""

from pydantic import BaseModel, ConfigDict

MAX_PROBLEMS = 100  # kept in full; more help nobody to find the cause, so the rest is counted
MAX_COUNTED = 100_000  # with so many this is not the file somebody meant; counting costs time
MAX_NAME_CHARS = 200  # of a column or key; a longer one is a text where names should be
_SHOWN_CHARS = 80  # of a value quoted in a message


class LineProblem(BaseModel):
    """One thing to mend. What concerns the file as a whole stands at line 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line: int  # physical line of the file, from 1
    column: int | None = None  # character of that line, from 1
    field: str | None = None  # name of the column or key
    code: str
    message: str  # what is wrong
    expected: str  # what would be right


class Problems:
    """Problems in the order they were met: the first hundred in full, all of them counted."""

    def __init__(self) -> None:
        self.first: list[LineProblem] = []
        self.count = 0
        self._stopped = False

    def add(
        self,
        line: int,
        code: str,
        message: str,
        expected: str,
        *,
        column: int | None = None,
        field: str | None = None,
    ) -> None:
        self.count += 1
        if len(self.first) < MAX_PROBLEMS:
            self.first.append(
                LineProblem(
                    line=line,
                    column=column,
                    field=field if field is None or is_name(field) else None,
                    code=code,
                    message=message,
                    expected=expected,
                )
            )
        if self.count == MAX_COUNTED:
            self.stop(
                line,
                "too_many_problems",
                f"there are {MAX_COUNTED:,} problems up to here; the rest was not read",
                "a file of rows with one text and one label each",
            )

    def stop(
        self,
        line: int,
        code: str,
        message: str,
        expected: str,
        *,
        column: int | None = None,
        field: str | None = None,
    ) -> None:
        """Add a problem that makes the rest of the file pointless to read; it is always shown."""
        self.give_up()
        del self.first[MAX_PROBLEMS - 1 :]
        self.add(line, code, message, expected, column=column, field=field)

    def give_up(self) -> None:
        self._stopped = True

    def full(self) -> bool:
        """Whether a further problem would only be counted, so that its details need no work."""
        return self.count >= MAX_PROBLEMS

    def stopped(self) -> bool:
        """Whether the rest of the file is pointless to read."""
        return self._stopped


def is_name(value: str) -> bool:
    """Whether this can name a column in an event, a message or a URL."""
    return 0 < len(value) <= MAX_NAME_CHARS and value.isprintable()


def shown(value: str) -> str:
    """A value as a message quotes it: on one line, printable, not too long."""
    cut = value if len(value) <= _SHOWN_CHARS else value[: _SHOWN_CHARS - 1] + "…"
    return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut) + '"'
