"""Downloads by client and command: resumed, checked, and never half there."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest

from finetrail.cli import app
from finetrail.client import Client, DownloadFailed, ServerUnreachable
from tests.cli.conftest import Cli
from tests.cli.fake_server import Asked, FakeServer, Reply

ZIP = "/api/v1/models/intents/versions/1/download"
DATASET = "019369c1-0a44-7d51-8c0e-2f6b9d1e3a58"
CONTENT = f"/api/v1/datasets/{DATASET}/content"
LINK = {
    "id": DATASET,
    "url": "http://127.0.0.1:8420/api/v1/archives/abc.def",
    "expires_at": "2026-11-20T18:00:00Z",
    "sequence": 9,
}


def archive(text: str = "x" * 5000) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        made.writestr("README.md", text)
    return content.getvalue()


class Shelf:
    """Serves bytes as the gateway does, and breaks off after ``breaks`` bytes as often as told."""

    def __init__(self, content: bytes, *, breaks: int = 0, times: int = 0) -> None:
        self.content = content
        self.breaks = breaks
        self.times = times
        self.sent = 0

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()}"'

    def __call__(self, asked: Asked) -> Reply:
        begin, total = 0, len(self.content)
        if asked.headers.get("if-range") == self.etag:
            begin = int(asked.headers["range"].removeprefix("bytes=").removesuffix("-"))
        body = self.content[begin:]
        headers = {"ETag": self.etag, "Content-Length": str(len(body))}
        if begin >= total:
            return Reply(416, {"code": "range_not_satisfiable"})
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{total - 1}/{total}"
        if self.times:
            self.times -= 1
            body = body[: self.breaks]
        self.sent += len(body)
        return Reply(206 if begin else 200, headers=headers, chunks=[body])


def test_a_broken_download_goes_on_in_the_same_call(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    shelf = Shelf(archive(), breaks=1000, times=3)
    server.on("GET", ZIP, shelf)
    target = tmp_path / "model.zip"
    seen: list[tuple[int, int]] = []

    client.download("intents", 1, target, on_progress=lambda *step: seen.append(step))

    assert target.read_bytes() == shelf.content
    assert shelf.sent == len(shelf.content)
    assert seen[-1] == (len(shelf.content), len(shelf.content))
    assert list(tmp_path.iterdir()) == [target]


def test_a_broken_download_goes_on_in_a_later_call(server: FakeServer, tmp_path: Path) -> None:
    shelf = Shelf(archive(), breaks=2000, times=1)
    server.on("GET", ZIP, shelf)
    target = tmp_path / "model.zip"

    with Client(server.url, patience_s=0) as hasty:
        with pytest.raises(ServerUnreachable):
            hasty.download("intents", 1, target)
        assert not target.exists()
        hasty.download("intents", 1, target)

    assert target.read_bytes() == shelf.content
    assert shelf.sent == len(shelf.content)
    assert list(tmp_path.iterdir()) == [target]


def test_bytes_of_another_content_are_never_joined(server: FakeServer, tmp_path: Path) -> None:
    old, new = Shelf(archive("old" * 999), breaks=700, times=1), Shelf(archive("new" * 999))
    server.on("GET", ZIP, old, new)
    target = tmp_path / "model.zip"

    with Client(server.url, patience_s=0) as hasty:
        with pytest.raises(ServerUnreachable):
            hasty.download("intents", 1, target)
        hasty.download("intents", 1, target)

    assert target.read_bytes() == new.content
    assert list(tmp_path.iterdir()) == [target]


def test_what_was_whole_but_not_yet_in_its_place_is_put_there(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    shelf = Shelf(archive())
    server.on("GET", ZIP, shelf)
    tag = shelf.etag.strip('"')
    (tmp_path / f".model.zip.{tag}.part").write_bytes(shelf.content)

    client.download("intents", 1, tmp_path / "model.zip")

    assert (tmp_path / "model.zip").read_bytes() == shelf.content
    assert shelf.sent == 0


def test_a_part_that_was_changed_is_found_out_and_thrown_away(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    shelf = Shelf(archive())
    server.on("GET", ZIP, shelf)
    part = tmp_path / f".model.zip.{shelf.etag.strip(chr(34))}.part"
    part.write_bytes(b"?" * 2500)

    with pytest.raises(DownloadFailed):
        client.download("intents", 1, tmp_path / "model.zip")
    assert list(tmp_path.iterdir()) == []
    client.download("intents", 1, tmp_path / "model.zip")

    assert (tmp_path / "model.zip").read_bytes() == shelf.content


def test_a_dataset_is_saved_under_its_name_and_checked_by_its_hash(
    server: FakeServer, cli: Cli, tmp_path: Path
) -> None:
    shelf = Shelf(b"text,label\na,b\n")
    server.on("GET", CONTENT, shelf)
    known = {"id": DATASET, "name": "../tickets", "status": "valid", "sha256": "", "size": 15}
    known |= {"format": "csv", "text_column": "text", "label_column": "label"}
    server.on("GET", f"/api/v1/datasets/{DATASET}", Reply(json=known | {"rows": 1, "labels": {}}))

    done = cli("datasets", "download", DATASET, "--json")

    assert json.loads(done.stdout) == {"file": "tickets.csv", "bytes": 15}
    assert (tmp_path / "tickets.csv").read_bytes() == shelf.content


def test_bytes_with_another_hash_than_announced_are_refused(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    other = {"ETag": f'"{"0" * 64}"', "Content-Length": "3"}
    server.on("GET", CONTENT, Reply(headers=other, chunks=[b"a,b"]))

    with pytest.raises(DownloadFailed, match="SHA-256"):
        client.download_dataset(DATASET, tmp_path / "rows.csv")
    assert list(tmp_path.iterdir()) == []


def test_one_file_of_a_version_is_saved(server: FakeServer, cli: Cli, tmp_path: Path) -> None:
    shelf = Shelf(b"{}")
    server.on("GET", "/api/v1/models/intents/versions/1/files/lora_adapters/a.json", shelf)

    done = cli("download", "intents", "1", "--file", "lora_adapters/a.json")

    assert done.exit_code == 0
    assert (tmp_path / "a.json").read_bytes() == b"{}"


def test_a_link_is_made_for_the_version_in_service_or_another(server: FakeServer, cli: Cli) -> None:
    active = {"number": 3, "version_id": DATASET}
    model = {"id": DATASET, "name": "intents", "base_model": "b", "active": active}
    server.on("GET", "/api/v1/models/intents", Reply(json=model))
    for number in (2, 3):
        path = f"/api/v1/models/intents/versions/{number}/links"
        server.on("POST", path, Reply(201, LINK))

    plain = cli("link", "intents")
    chosen = cli("link", "intents", "2", "--file", "README.md", "--minutes", "60", "--json")

    assert LINK["url"] in plain.stdout
    assert json.loads(chosen.stdout)["url"] == LINK["url"]
    posted = [each for each in server.asked if each.method == "POST"]
    assert [each.path.split("/")[-2] for each in posted] == ["3", "2"]
    assert [each.json for each in posted] == [{}, {"path": "README.md", "minutes": 60}]


def test_a_model_without_a_version_in_service_has_no_link_by_itself(
    server: FakeServer, cli: Cli
) -> None:
    model = {"id": DATASET, "name": "intents", "base_model": "b", "active": None}
    server.on("GET", "/api/v1/models/intents", Reply(json=model))

    done = cli("link", "intents")

    assert done.exit_code == 2
    assert "no version of intents is in service" in done.stderr


def test_a_dataset_is_linked(server: FakeServer, cli: Cli) -> None:
    server.on("POST", f"/api/v1/datasets/{DATASET}/links", Reply(201, LINK))

    done = cli("datasets", "link", DATASET, "--minutes", "5")

    assert LINK["url"] in done.stdout
    assert server.asked[-1].json == {"minutes": 5}


def test_models_are_chosen(server: FakeServer, cli: Cli) -> None:
    server.on("GET", "/api/v1/models", Reply(json={"items": [], "next": None}))

    cli("models", "--status", "active", "--base-model", "b", "--from", "2026-11-20")

    asked = server.asked[-1].query
    assert asked == {"status": "active", "base_model": "b", "date_from": "2026-11-20", "limit": "100"}  # fmt: skip


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell: str) -> None:
    from typer.testing import CliRunner

    asking = {
        "_FINETRAIL_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "finetrail datasets dow",
        "COMP_CWORD": "2",
        "_TYPER_COMPLETE_ARGS": "finetrail datasets dow",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    said = CliRunner().invoke(app, [], env=asking, prog_name="finetrail").stdout

    assert "download" in said
    assert "delete" not in said


def test_the_script_for_a_shell_is_shown() -> None:
    from typer.testing import CliRunner

    said = CliRunner().invoke(app, ["--show-completion", "bash"], prog_name="finetrail")

    assert said.exit_code == 0
    assert "complete -o default -F _finetrail_completion finetrail" in said.stdout
