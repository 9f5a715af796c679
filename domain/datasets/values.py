"""The values of a row: a string where one is wanted, or a clear word about what stands there."""

from collections.abc import Mapping

from domain.datasets.lines import NOT_TEXT
from domain.datasets.problems import Problems, shown

MAX_FIELD_CHARS = 100_000  # far more than any model reads; longer is a quote that was never closed


class Number(str):
    """A number as it was spelled, so that 007 cannot become 7 and no digit is lost."""

    __slots__ = ()


class ValueChecks:
    """Looks into one object after the other; ``at`` is where it stands in its row."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems

    def text(
        self, values: Mapping[str, object], key: str, line: int, *, at: str = ""
    ) -> str | None:
        value = values.get(key)
        if type(value) is str:  # as nearly every one is
            return self.encodable(value, line, at + key)
        value = self.present(values, key, line, "a string", at=at)
        return None if value is None else self.as_text(value, line, at + key)

    def filled(
        self, values: Mapping[str, object], key: str, line: int, *, at: str = ""
    ) -> str | None:
        """A string with something in it, as it stands."""
        value = self.text(values, key, line, at=at)
        return None if value is None else self.not_empty(value, line, at + key)

    def optional(self, values: Mapping[str, object], key: str, line: int) -> str | None:
        """A string, or an empty one where there is none or null."""
        value = values.get(key)
        text = "" if value is None else self.as_text(value, line, key)
        return None if text is None or not self.fits(text, line, key) else text

    def present(
        self, values: Mapping[str, object], key: str, line: int, expected: str, *, at: str = ""
    ) -> object:
        if key not in values:
            keys = ", ".join(map(shown, list(values)[:20])) or "none"
            self._problems.add(
                line,
                "missing_key",
                f"the key {shown(key)} is missing; the keys are {keys}",
                f"the key {shown(key)} with {expected}",
                field=at + key,
            )
            return None
        if values[key] is None:
            self.wrong_type(None, line, at + key, expected)
        return values[key]

    def as_text(self, value: object, line: int, field: str) -> str | None:
        if type(value) is not str:
            self.wrong_type(value, line, field, "a string in double quotes")
            return None
        return self.encodable(value, line, field)

    def not_empty(self, value: str, line: int, field: str) -> str | None:
        if not value.strip():
            self._problems.add(line, "empty_text", "the text is empty", "some text", field=field)
            return None
        return value if self.fits(value, line, field) else None

    def fits(self, value: str, line: int, field: str) -> bool:
        if len(value) > MAX_FIELD_CHARS:
            too_long_field(self._problems, line, field, len(value))
            return False
        return True

    def wrong_type(self, value: object, line: int, field: str, expected: str) -> None:
        self._problems.add(
            line, "wrong_type", f"the value is {kind_of(value)}", expected, field=field
        )

    def encodable(self, value: str, line: int, field: str) -> str | None:
        if (value.isascii() and "\0" not in value) or not (bad := NOT_TEXT.search(value)):
            return value
        self._problems.add(
            line,
            "invalid_character",
            f"the value holds the escape \\u{ord(bad[0]):04x}, which is no character of a text",
            "characters only; a surrogate comes in pairs and NUL cannot be stored",
            field=field,
        )
        return None


def too_long_field(problems: Problems, line: int, field: str | None, length: int) -> None:
    problems.add(
        line,
        "field_too_long",
        f"the field has {length:,} characters",
        f"at most {MAX_FIELD_CHARS:,} characters; a quote that is never closed looks like this too",
        field=field,
    )


def kind_of(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case Number():
            return f"the number {shown(value)[1:-1]}"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
