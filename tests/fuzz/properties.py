"""What holds of every answer, whatever was asked; and what is asked to see that it does."""

import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import hostile
from tests.fuzz.leaks import Leaks
from tests.fuzz.wire import Answer, Headers, Wire

JSON: Final = (("Content-Type", "application/json"),)
STREAM: Final = (("Accept", "text/event-stream"),)
STREAM_S: Final = 1.0  # of a stream in which nothing happens
INFERENCE: Final = re.compile(r"/api/v1/models/[^/]*/predict|/v1/(chat/)?completions")
# What the server itself says of bytes that are no request; no route is reached.
NO_REQUEST: Final = b"Invalid HTTP request received."
# As dots and slashes stand there before anything is decoded for the last time.
_PATH: Final = re.compile(r"(^|[/\\])\.{1,2}([/\\]|$)|^[/\\]|^[A-Za-z]:|\\|[\x00-\x1f]")


@dataclass
class Target:
    """A gateway, what is secret about it, and ids of what is there."""

    wire: Wire
    leaks: Leaks
    canary: bytes  # what is in the file that no request may reach
    real: Mapping[str, str]
    examples: int
    seed: int = 0

    def whatever(self, *drawn: Any) -> Callable[[Callable[..., None]], Callable[[], None]]:
        """As `given`, with as many examples as this gateway is asked."""
        how = settings(
            max_examples=self.examples,
            deadline=None,  # of a request on a busy machine
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )

        def around(asked: Callable[..., None]) -> Callable[[], None]:
            seeded: Callable[[], None] = seed(self.seed)(how(given(*drawn)(asked)))  # type: ignore[no-untyped-call]
            return seeded

        return around

    def ask(self, method: str, target: str, body: bytes = b"", headers: Headers = ()) -> Answer:
        answer = self.wire.ask(method, target, body, headers)
        self.check(target, answer)
        return answer

    def check(self, target: str, answer: Answer) -> None:
        """Nothing is broken, nothing gets out, and what is refused is refused in words."""
        said = (answer.status, answer.body[:500])
        away = answer.status == 503 and INFERENCE.match(target)
        assert answer.status < 500 or away, said
        assert self.leaks.in_answer(answer.headers, answer.body) == [], said
        assert self.canary not in answer.body, said
        if answer.status >= 400 and answer.body:
            assert message_of(answer), said


def message_of(answer: Answer) -> str:
    """What an error says to people."""
    if answer.body.startswith(NO_REQUEST):
        return NO_REQUEST.decode()
    said: dict[str, Any] = json.loads(answer.body)
    if "error" in said:
        return str(said["error"]["message"])
    assert answer.header("content-type").startswith("application/problem+json"), answer
    assert {"type", "title", "status", "detail", "instance", "code"} <= set(said), said
    return str(said["detail"])


def no_path_leads_anywhere(target: Target) -> None:
    @target.whatever(hostile.targets(dict(target.real)))
    def ask(request: tuple[str, str]) -> None:
        method, address = request
        if (method, unquote(address)) in _spared(target):
            return
        answer = target.ask(method, address, b"{}" if method == "POST" else b"", JSON)
        if answer.status < 400:  # nothing but slashes: the list that the name would be in
            assert answer.header("content-type").startswith("application/json"), request

    ask()


def _spared(target: Target) -> set[tuple[str, str]]:
    """What is there is not to be ended by chance."""
    return {("DELETE", f"/api/v1/datasets/{target.real.get('dataset_id')}")}


def no_upload_is_called_a_path(target: Target) -> None:
    content = b"text,label\n" + b"".join(b"row %d,%d\n" % (n, n % 2) for n in range(12))

    @target.whatever(hostile.names, st.sampled_from(("filename", "name", "form", "form name")))
    def upload(name: str, where: str) -> None:
        address, body = "/api/v1/datasets", content
        headers: Headers = (("Content-Type", "text/csv"),)
        if where.startswith("form"):
            body, headers = _form(where, name, content)
        else:
            address += f"?{where}={quote(name, safe='')}"
        answer = target.ask("POST", address, body, headers)
        assert answer.status in {201, 400, 413, 422}, answer
        if answer.status == 201:
            dataset = json.loads(answer.body)
            assert dataset["name"], dataset
            assert dataset["name"].isprintable(), dataset
            assert not {"/", "\\"} & set(dataset["name"]), dataset
            got = target.ask("GET", f"/api/v1/datasets/{dataset['id']}/content")
            assert got.body == content
            called = unquote(got.header("content-disposition").partition("''")[2])
            assert called.startswith(dataset["name"].replace(":", "_")), got.headers
            assert _PATH.search(called) is None, called

    upload()


def _form(where: str, name: str, content: bytes) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    text = name.encode(errors="replace")
    field, file = (text, b"a.csv") if where == "form name" else (b"a name", text)
    body = (
        b'--edge\r\nContent-Disposition: form-data; name="name"\r\n\r\n' + field + b"\r\n"
        b'--edge\r\nContent-Disposition: form-data; name="file"; filename="' + file + b'"\r\n'
        b"Content-Type: text/csv\r\n\r\n" + content + b"\r\n--edge--\r\n"
    )
    return body, (("Content-Type", "multipart/form-data; boundary=edge"),)


def an_archive_unpacks_below_its_folder(target: Target) -> None:
    address = f"/api/v1/models/{target.real['name']}/versions/{target.real['number']}"
    answer = target.ask("GET", f"{address}/download")
    with closing(io.BytesIO(answer.body)) as file, zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            assert _PATH.search(entry.filename) is None, entry
            assert entry.external_attr >> 28 in {0, 0o10}, entry  # no link to elsewhere


def no_body_breaks_anything(target: Target) -> None:
    routes = sorted(hostile.bodies())

    def address_of(template: str) -> str:
        values = {**hostile.BLANKS, **target.real}
        return re.sub(r"{(\w+)}", lambda match: values[match[1]], template)

    @target.whatever(st.sampled_from(routes), st.sampled_from(hostile.NO_JSON + hostile.NO_OBJECT))
    def ask_with_no_body(route: tuple[str, str], body: bytes) -> None:
        answer = target.ask(route[1].upper(), address_of(route[0]), body, JSON)
        optional = body == b"null" and route[0].endswith("/retry")
        assert 400 <= answer.status < 500 or optional, (route, body[:80], answer)

    @target.whatever(st.sampled_from(routes), st.sampled_from(hostile.MEDIA_TYPES))
    def ask_in_another_form(route: tuple[str, str], media_type: str) -> None:
        body = json.dumps(hostile.bodies()[route]).encode()
        headers = (("Content-Type", media_type),)
        answer = target.ask(route[1].upper(), address_of(route[0]), body, headers)
        assert answer.status in {404, 415}, (route, media_type, answer)

    @target.whatever(st.data(), st.sampled_from(routes))
    def ask_with_a_name_twice(data: st.DataObject, route: tuple[str, str]) -> None:
        body = hostile.bodies()[route]
        name = data.draw(st.sampled_from(sorted(body)))
        twice = json.dumps({name: body[name]})[:-1] + ", " + json.dumps(body)[1:]
        answer = target.ask(route[1].upper(), address_of(route[0]), twice.encode(), JSON)
        assert answer.status == 400, (route, twice, answer)

    @target.whatever(st.data(), st.sampled_from(routes))
    def ask_with_one_value_wrong(data: st.DataObject, route: tuple[str, str]) -> None:
        body = data.draw(hostile.twisted(hostile.bodies()[route]))
        target.ask(route[1].upper(), address_of(route[0]), body, JSON)

    ask_with_no_body()
    ask_in_another_form()
    ask_with_a_name_twice()
    ask_with_one_value_wrong()


def no_body_is_too_large(target: Target) -> None:
    """Refused before it is read, and also where nobody said how large it is."""
    large = b'{"texts": ["' + b"a" * (17 * 1024 * 1024) + b'"]}'
    address = f"/api/v1/models/{target.real['name']}/predict"
    answer = target.ask("POST", address, large, JSON)
    assert answer.status == 413, answer
    nested = b'{"lines": [' + b'{"message": "a"},' * 200_000 + b'{"message": "a"}]}'
    answer = target.ask("POST", f"/api/v1/jobs/{target.real['job_id']}/logs", nested, JSON)
    assert answer.status == 400, answer


def no_stream_breaks(target: Target) -> None:
    positions = st.one_of(
        st.integers(0, 60).map(str),
        st.integers(-(2**70), 2**70).map(str),
        st.sampled_from(("", "0", "1", "5", "1.1", "1.9", "\u0663", "1e3", " 7 ", "+1", "NaN")),
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=50),
    )
    streams = ("/api/v1/events", "/api/v1/jobs/{job_id}/events", "/api/v1/jobs/{job_id}/logs")
    queries = (
        "level=ERROR",
        "level=nothing",
        "limit=1",
        "limit=-1",
        "aggregate=job",
        "aggregate=..",
        "type=JobSubmitted",
        "actor=%00",
        "id=" + "0" * 36,
        "follow=true",
    )

    @target.whatever(
        st.sampled_from(streams),
        st.lists(st.sampled_from(queries), max_size=2),
        st.one_of(st.none(), positions),
        st.one_of(st.none(), positions),
    )
    def follow(template: str, query: list[str], after: str | None, last: str | None) -> None:
        given_ = [*query, *([] if after is None else [f"after={quote(after, safe='')}"])]
        address = f"{template.format(**target.real)}?{'&'.join(given_)}"
        headers: Headers = STREAM + (() if last is None else (("Last-Event-ID", last.encode()),))
        answer = target.wire.frames(address, headers, most=3, within_s=STREAM_S)
        target.check(address, answer)
        if answer.status == 200:
            assert answer.header("content-type").startswith("text/event-stream"), answer
            _frames_are_whole(answer.body)

    follow()


def _frames_are_whole(body: bytes) -> None:
    """Every frame but the one that was cut says what it is, and its data is JSON."""
    for frame in body.decode().split("\n\n")[:-1]:
        lines = frame.split("\n")
        assert all(re.match(r"(id|event|data|retry): |:", line) for line in lines), frame
        for line in lines:
            if line.startswith("data: "):
                json.loads(line.removeprefix("data: "))


ALL: Final = (
    no_path_leads_anywhere,
    no_upload_is_called_a_path,
    an_archive_unpacks_below_its_folder,
    no_body_breaks_anything,
    no_body_is_too_large,
    no_stream_breaks,
)
