"""A version as a ZIP archive: laid out ahead, exact in length, readable by everybody."""

import io
import json
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.blobs import BlobRef
from gateway import zip_layout
from gateway.zip_layout import ZipEntry, ZipLayout
from tests.gateway.world import World

URL = "/api/v1/models/support/versions/1/download"


def entry(path: str, content: bytes) -> ZipEntry:
    return ZipEntry(path, content, len(content), zlib.crc32(content))


async def no_blobs(*_: object) -> AsyncIterator[bytes]:
    raise AssertionError("no entry is a blob")
    yield b""


async def built(entries: list[ZipEntry]) -> bytes:
    layout = ZipLayout(entries)
    archive = b"".join([part async for part in layout.read(no_blobs)])
    assert len(archive) == layout.size
    return archive


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).filter(
            lambda name: "/" not in name and "\\" not in name
        ),
        st.binary(max_size=300),
        max_size=8,
    )
)
async def test_any_files_come_out_as_they_went_in(files: dict[str, bytes]) -> None:
    archive = zipfile.ZipFile(io.BytesIO(await built([entry(*item) for item in files.items()])))

    assert archive.testzip() is None
    assert {name: archive.read(name) for name in archive.namelist()} == files


async def test_large_numbers_go_into_the_wide_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_layout, "_MAX32", 1000)
    real_pack = zip_layout.struct.pack
    monkeypatch.setattr(
        zip_layout.struct,
        "pack",
        lambda form, *numbers: real_pack(form, *(0xFFFFFFFF if n == 1000 and "I" in form else n for n in numbers)),
    )  # fmt: skip
    files = {"small": b"x", "large": b"y" * 5000, "behind it": b"z"}

    archive = zipfile.ZipFile(io.BytesIO(await built([entry(*item) for item in files.items()])))

    assert archive.testzip() is None
    assert {name: archive.read(name) for name in archive.namelist()} == files


def test_an_archive_of_many_gigabytes_has_its_length_before_it_is_read() -> None:
    blob = BlobRef(sha256="0" * 64, size=6 * 1024**3, crc32=1)
    layout = ZipLayout([ZipEntry(f"{n}.safetensors", blob, blob.size, 1) for n in range(3)])

    assert 18 * 1024**3 < layout.size < 18 * 1024**3 + 2000


async def test_a_version_is_downloaded_whole_with_its_exact_length(
    world: World, tmp_path: Path
) -> None:
    await world.trained()
    async with world.client("viewer") as client:
        head = await client.head(URL)
        answer = await client.get(URL)
        again = await client.get(URL)

    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    assert archive.namelist() == [
        "lora_adapters/adapter_config.json",
        "lora_adapters/labels.json",
        "README.md",
        "metrics.json",
    ]
    assert archive.read("lora_adapters/labels.json") == b'["a", "b"]'
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.content == again.content
    assert head.status_code == 200
    assert head.content == b""
    for name in ("content-length", "etag", "content-type", "content-disposition"):
        assert head.headers[name] == answer.headers[name]
    assert answer.headers["content-type"] == "application/zip"
    if shutil.which("unzip"):
        (tmp_path / "model.zip").write_bytes(answer.content)
        subprocess.run(["unzip", "-tq", str(tmp_path / "model.zip")], check=True)


async def test_the_card_and_the_figures_tell_what_the_version_is(world: World) -> None:
    job = await world.trained()
    async with world.client("viewer") as client:
        archive = zipfile.ZipFile(io.BytesIO((await client.get(URL)).content))

    card = archive.read("README.md").decode()
    figures = json.loads(archive.read("metrics.json"))
    assert card.startswith("# support, version 1\n")
    for said in (
        "`finetrail/minilm`",
        "40",
        "0.9000",
        "[-0.0500, +0.2500]",
        "p = 0.5",
        "inconclusive",
    ):
        assert said in card
    assert job["id"] in card
    assert "PeftModel.from_pretrained" in card
    assert "learning_rate" in card
    assert figures["training"]["steps"] == 30
    assert figures["evaluation"]["p_value"] == 0.5
    assert figures["lineage"]["dataset_id"] == job["dataset_id"]


async def test_names_cannot_become_markup_in_the_card(world: World) -> None:
    content = b"text,label\n" + b"".join(
        f"row {n},{'`| <img src=x> |`' if n % 2 else 'b'}\n".encode() for n in range(40)
    )
    await world.uploaded(content, "`|<b>.csv")
    from gateway.markdown import code

    assert code("a`|b\n# c") == "`aʼ¦b # c`"


async def test_an_archive_that_is_known_is_not_sent_again(world: World) -> None:
    await world.trained()
    async with world.client("viewer") as client:
        etag = (await client.head(URL)).headers["etag"]
        known = await client.get(URL, headers={"If-None-Match": etag})
        other = await client.get(URL, headers={"If-None-Match": '"other"'})

    assert (known.status_code, known.content) == (304, b"")
    assert known.headers["etag"] == etag
    assert other.status_code == 200


async def test_new_figures_make_another_archive(world: World) -> None:
    await world.trained()
    async with world.client("admin") as client:
        before = (await client.head(URL)).headers["etag"]
        await client.post("/api/v1/evaluations", json={"model": "support", "version": 1})
        after = (await client.head(URL)).headers["etag"]

    assert before != after
