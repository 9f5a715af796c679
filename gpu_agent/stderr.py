"""What libraries print to standard error, as log lines: levels guessed, progress bars left out."""

import re
from typing import Final

from domain.telemetry import Level

MAX_LINES: Final = 5_000  # of one attempt: a library in a loop must not fill the log

# A bar of tqdm's kind, redrawn with carriage returns: "Loading weights:  45%|████▌     | 93/206 [00:01<…"
_BAR: Final = re.compile(r"\d+%\|.*\||\d+(\.\d+)?(it|s|B|kB|MB)/(s|it)\b")
_ERROR: Final = re.compile(
    r"\b(ERROR|CRITICAL|FATAL)\b|\berror:|^Traceback \(|^\w[\w.]*(Error|Exception)\b"
)
_WARNING: Final = re.compile(r"\bWARN(ING)?\b|\b\w*Warning\b|\bwarning:")


def read_line(raw: bytes) -> tuple[Level, str] | None:
    """Give level and text of a line, or None where it says nothing."""
    text = raw.decode(errors="replace").rstrip().rpartition("\r")[2].rstrip()
    if not text or _BAR.search(text):
        return None
    if _ERROR.search(text):
        return "ERROR", text
    return ("WARNING" if _WARNING.search(text) else "INFO"), text
