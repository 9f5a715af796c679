"""What people call things: names without paths, control characters or tricks of the eye."""

from pathlib import PurePosixPath
from typing import Final

from gateway.problems import invalid

MAX_CHARS: Final = 200


def dataset_name(name: str | None, filename: str | None) -> str:
    """The name asked for, or the file's own without its ending.

    Raises:
        Problem: The name asked for is empty, too long or cannot be printed.
    """
    if name is None:
        stem = PurePosixPath(base_name(filename) or "dataset").stem
        return stem[:MAX_CHARS] or "dataset"
    cleaned = base_name(name)
    if not 1 <= len(cleaned) <= MAX_CHARS or not cleaned.isprintable():
        raise invalid("name", f"1 to {MAX_CHARS} printable characters")
    return cleaned


def person_name(name: str) -> str:
    """A person's or a key's name as it is kept.

    Raises:
        Problem: Nothing of it can be printed.
    """
    cleaned = name.strip()
    if not cleaned or not cleaned.isprintable():
        raise invalid("name", "printable characters", "body")
    return cleaned


def base_name(path: str | None) -> str:
    """The last part of a path of any system, with nothing in it that does not print."""
    last = (path or "").replace("\\", "/").rpartition("/")[2]
    return "".join(char for char in last if char.isprintable()).strip()
