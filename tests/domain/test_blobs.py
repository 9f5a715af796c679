"""Names in manifests lead nowhere but below the folder that they are unpacked into."""

from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.blobs import BlobRef, FileEntry

BLOB = BlobRef(sha256="0" * 64, size=1, crc32=0)
PIECES = ("..", ".", "/", "\\", "a", " ", "C:", "\x00", "\u202e", "lora_adapters", "…")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "../a",
        "a/../../b",
        "a/./b",
        "a//b",
        "a/",
        "..\\a",
        "C:a",
        "C:/a",
        "a/.. /b",
        "a\x00b",
        "a\nb",
        "\udc80",
        "a" * 501,
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="below a folder"):
        FileEntry(path=path, blob=BLOB)


@pytest.mark.parametrize(
    "path", ["lora_adapters/adapter_model.safetensors", "a", ".gitattributes", "größe/modell v1..2"]
)
def test_names_that_people_give_are_taken(path: str) -> None:
    assert FileEntry(path=path, blob=BLOB).path == path


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_what_is_taken_lies_below_its_folder_on_every_system(path: str) -> None:
    try:
        entry = FileEntry(path=path, blob=BLOB)
    except ValidationError:
        return
    below = Path("/store/folder")
    assert (below / entry.path).resolve().is_relative_to(below)
    windows = PureWindowsPath(entry.path)
    assert (windows.anchor, ".." in windows.parts) == ("", False)
