"""What a file is, told by its first bytes, its name and its declared type."""

from typing import Literal

from domain.datasets.problems import Problems

Format = Literal["csv", "jsonl"]

_EXPORT = "a CSV or JSON Lines file in UTF-8; export or convert it to one of these"
_UNPACK = "the unpacked file; unpack it and upload what is inside"
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a ZIP archive", _UNPACK),
    (b"PK\x05\x06", "an empty ZIP archive", _UNPACK),
    (b"\x1f\x8b", "a gzip file", _UNPACK),
    (b"BZh", "a bzip2 file", _UNPACK),
    (b"\xfd7zXZ\x00", "an xz file", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"PAR1", "a Parquet file", _EXPORT),
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
    "txt": "csv",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "jsonl",
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
}


def detect_format(filename: str | None, content_type: str | None, head: bytes) -> Format:
    """Tell CSV from JSON Lines: the content decides where it can, then the name, then the type."""
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        return "jsonl"
    extension = (filename or "").rpartition(".")[2].lower()
    declared = (content_type or "").partition(";")[0].strip().lower()
    return _EXTENSIONS.get(extension) or _TYPES.get(declared) or "csv"


def refuse_unreadable(head: bytes, problems: Problems) -> None:
    """Stop at a file that is not UTF-8 text at all."""
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
