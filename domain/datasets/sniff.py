"""What a file is, told by its first bytes, its name and its declared type."""

from typing import Literal

from domain.datasets.checks import LABEL_NAMES, TEXT_NAMES
from domain.datasets.problems import Problems

Format = Literal["csv", "jsonl", "json", "parquet", "text"]
Compression = Literal["gzip"]
DELIMITERS = (",", ";", "\t")  # of CSV, told apart by the header
GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
_NAMES = {*TEXT_NAMES, *LABEL_NAMES, "instruction", "completion", "chosen", "rejected"}
_BOM = b"\xef\xbb\xbf"

_EXPORT = "CSV, JSON Lines, JSON or Parquet; export or convert it to one of these"
_UNPACK = "the unpacked file; unpack it and upload what is inside"
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a ZIP archive", _UNPACK),
    (b"PK\x05\x06", "an empty ZIP archive", _UNPACK),
    (GZIP, "a gzip file inside a gzip file", _UNPACK),
    (b"BZh", "a bzip2 file", _UNPACK),
    (b"\xfd7zXZ\x00", "an xz file", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (PARQUET, "a Parquet file", "the format parquet, or none said: it is told by the content"),
    (b"ARROW1", "an Arrow file", _EXPORT),
    (b"\x89HDF", "an HDF5 file", _EXPORT),
    (b"\x93NUMPY", "a NumPy array", _EXPORT),
    (b"SQLite format 3\x00", "an SQLite database", _EXPORT),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "an old Excel workbook",
        "Excel's “Save as”, “CSV UTF-8”",
    ),
    (b"%PDF", "a PDF document", _EXPORT),
    (b"\x89PNG", "a PNG image", _EXPORT),
    (b"\xff\xd8\xff", "a JPEG image", _EXPORT),
    *((bytes([0x80, protocol]), "a Python pickle", _EXPORT) for protocol in range(2, 6)),
)
_WIDE = ((b"\xff\xfe\x00\x00", "UTF-32"), (b"\x00\x00\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))  # fmt: skip
_EXTENSIONS: dict[str, Format] = {
    "csv": "csv",
    "tsv": "csv",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "jsonl",
    "parquet": "parquet",
    "pq": "parquet",
}
_TYPES: dict[str, Format] = {
    "text/csv": "csv",
    "text/tab-separated-values": "csv",
    "application/csv": "csv",
    "application/jsonl": "jsonl",
    "application/json": "jsonl",
    "application/json-lines": "jsonl",
    "application/jsonlines": "jsonl",
    "application/x-jsonlines": "jsonl",
    "application/x-ndjson": "jsonl",
    "application/ndjson": "jsonl",
    "application/vnd.apache.parquet": "parquet",
}


def detect_format(
    filename: str | None, content_type: str | None, head: bytes, kind: str | None = None
) -> tuple[Format, str]:
    """Tell what a file is, and why: the content decides where it can, then the name, then the type."""
    start = head.removeprefix(_BOM).lstrip()[:1]
    if head.startswith(PARQUET):
        return "parquet", "it begins with PAR1"
    if start == b"[":
        return "json", "it begins with ["
    if start == b"{":
        return "jsonl", "it begins with {"
    name = (filename or "").lower().removesuffix(".gz")
    extension = name.rpartition(".")[2]
    declared = (content_type or "").partition(";")[0].strip().lower()
    if extension == "txt" and kind in {None, "text"} and not _names_columns(head):
        return "text", "its name ends with .txt, and its first line names no columns"
    if found := _EXTENSIONS.get(extension):
        return found, f"its name ends with .{extension}"
    if found := _TYPES.get(declared):
        return found, f"its type is {declared}"
    return "csv", "nothing says that it is anything else"


def _names_columns(head: bytes) -> bool:
    """Whether the first line that is not blank may be the header of a CSV file."""
    first = next((line for line in head.removeprefix(_BOM).splitlines() if line.strip()), b"")
    text = first.decode("utf-8", "replace")
    return any(
        name.strip(' "').casefold() in _NAMES
        for delimiter in DELIMITERS
        if delimiter in text
        for name in text.split(delimiter)
    )


def refuse_unreadable(head: bytes, format: Format | None, problems: Problems) -> None:  # noqa: A002
    """Stop at a file that is not UTF-8 text at all, nor Parquet where that may be."""
    if head.startswith(PARQUET) and format in {None, "parquet"}:
        return
    for mark, name in _WIDE:
        if head.startswith(mark):
            problems.stop(1, "wrong_encoding", f"the file is {name}", _utf8_advice())
            return
    if looks_like := _binary(head):
        kind, instead = looks_like
        problems.stop(1, "binary_content", f"the file looks like {kind}", instead)
    elif head.count(0) * 4 > len(head):  # every other byte of Latin text in UTF-16
        problems.stop(
            1,
            "binary_content",
            "the file is full of NUL bytes; it is binary, or UTF-16 without a byte-order mark",
            _utf8_advice(),
        )


def _binary(head: bytes) -> tuple[str, str] | None:
    if head.startswith(b"PK\x03\x04") and b"xl/" in head:
        return "an Excel workbook", "a CSV file: Excel's “Save as”, “CSV UTF-8”"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:9].lower() in (b"<!doctype", b"<html"):
        return "a web page", "the data file itself; use the page's download or “raw” link"
    if head[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    found = [(kind, instead) for magic, kind, instead in _MAGIC if head.startswith(magic)]
    return found[0] if found else None


def _utf8_advice() -> str:
    return "UTF-8 text; save it again as UTF-8 (in Excel: “CSV UTF-8”)"
