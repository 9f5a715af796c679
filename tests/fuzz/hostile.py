"""Names, paths and bodies that somebody would only write on purpose."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from hypothesis import strategies as st

from gateway.access_matrix import ACCESS
from gateway.api_examples import REQUESTS

CANARY: Final = "canary-outside-the-store"  # the name of a file that no request may reach
_PIECES: Final = (
    "..",
    ".",
    "...",
    "/",
    "//",
    "\\",
    "%2e%2e",
    "%2f",
    "%5c",
    "%00",
    "\x00",
    "~",
    "C:",
    "\\\\host\\share",
    "file://",
    "\u2024\u2024",  # one dot leader, twice
    "\u2215",  # division slash
    "\uff0e\uff0e\uff0f",  # full-width dots and slash
    "\u202e",  # what follows reads from right to left
    "\ufeff",
    "\r\n",
    ";",
    "?",
    "#",
    " ",
    "etc/passwd",
    "secrets.json",
    "lora_adapters",
    "README.md.",
    "intents.",
    CANARY,
    "a" * 300,
    "'",
    '"',
    "*",
    ">",
    "$(id)",
    "{name}",
    "-1",
    "0x1",
    "9" * 30,
)
# Sent as they stand, for no text is encoded so: dots in two bytes, half a letter, a cut escape.
_RAW: Final = (
    "%c0%ae%c0%ae%c0%af",
    "%ff%fe",
    "%e2%80",
    "%",
    "%zz",
    "%u002e%u002e",
    "..;/",
    "%252e%252e%252f",
)

_UUID: Final = "019369c1-0a44-7d51-8c0e-2f6b9d1e3a58"
BLANKS: Final[dict[str, str]] = {
    "name": "nothing",
    "model_id": "nothing",
    "number": "1",
    "path": "nothing",
    "key_id": "00000000",
    "sequence": "7",
    "ticket": "nothing",
    "type": "Nothing",
    "file": "1.json",
    **dict.fromkeys(("dataset_id", "job_id", "evaluation_id", "agent_id"), _UUID),
}

names = st.one_of(
    st.lists(st.sampled_from(_PIECES), min_size=1, max_size=6).map("".join),
    st.integers(1, 12).map(lambda depth: "../" * depth + CANARY),
    st.integers(1, 12).map(lambda depth: "..\\" * depth + CANARY),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
    st.integers(300, 8000).map(lambda length: "a" * length),
)  # fmt: skip


@st.composite
def encoded(draw: st.DrawFn, texts: st.SearchStrategy[str] = names) -> str:
    """A text on its way into an address: encoded once, twice, in part, or with what is no encoding."""
    text = draw(texts)
    form = draw(st.sampled_from(("all", "twice", "slashes stay", "dots too", "raw")))
    once = quote(text, safe="")
    if form == "twice":
        return quote(once, safe="")
    if form == "slashes stay":
        return quote(text, safe="/\\")
    if form == "dots too":
        return once.replace(".", "%2E")
    return draw(st.sampled_from(_RAW)) + once if form == "raw" else once


def templates() -> list[tuple[str, str, str]]:
    """Every route and parameter of its path that somebody may write anything into."""
    return [
        (method, template, parameter)
        for method, template in sorted(ACCESS)
        for parameter in re.findall(r"{(\w+)}", template)
    ]


@st.composite
def targets(draw: st.DrawFn, real: dict[str, str]) -> tuple[str, str]:
    """A method and an address with one parameter that is hostile, the others as `real` has them."""
    method, template, parameter = draw(st.sampled_from(templates()))
    values = {**BLANKS, **real, parameter: draw(encoded())}
    target = re.sub(r"{(\w+)}", lambda match: values[match[1]], template)
    query = draw(st.sampled_from(("", "", "?limit=1", "?cursor=..%2f..", "?after=%00", "?%ff=%ff")))
    return method, target + query


# Bodies that are no JSON, or none that anybody could mean.
NO_JSON: Final = (
    b"{",
    b"}",
    b"nul",
    b"{'a': 1}",
    b'{"a": 1,}',
    b"\xff\xfe{\x00}\x00",
    b'\xef\xbb\xbf{"a": 1}',
    b'{"a": "\xff"}',
    b'{"a": NaN}',
    b'{"a": Infinity}',
    b'{"a": -Infinity}',
    b'{"a": 0x10}',
    b'{"a": 01}',
    b'{"a": "\\ud800"}',
    b'{"a": "\x00"}',
    b'{"a": 1} {"b": 2}',
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"a": [' + b"[" * 2_000 + b"]" * 2_000 + b"]}",
    b"--x\r\n\r\n--x--",
    b"a=1&b=2",
    b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
)
NO_OBJECT: Final = (b"[]", b"1", b'"text"', b"true", b"null", b"[{}]", b"1e400", b"9" * 5_000)
MEDIA_TYPES: Final = (
    "text/plain",
    "application/xml",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "application/x-msgpack",
    "application/json, text/plain",
    "json",
    "*/*",
)
# Put in the place of one value of a body that is good.
_NUMBERS: Final = (
    b"1e400",
    b"-1",
    b"0",
    b"1.5",
    b"9223372036854775808",
    b"-9223372036854775809",
    b"1" + b"0" * 400,
    b"1e308",
    b"5e-324",
    b"NaN",
)
_TEXTS: Final = (
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\\u0000"',
    b'"a\\u0000b"',
    b'""',
    b'" "',
    b'"\\n"',
    b'"' + b"a" * 70_000 + b'"',
    b'"../../canary-outside-the-store"',
    b'"\xf0\x9f\x92\xa5"',
    b'"\\u202e"',
    b'"\xed\xa0\x80"',
)
_OTHERS: Final = (
    b"null",
    b"[]",
    b"{}",
    b"true",
    b"[[[[]]]]",
    b'{"a": {"b": 1}}',
    b'["a", 1, null]',
)
_MARK: Final = "\x01here\x01"


def bodies() -> dict[tuple[str, str], Any]:
    """A good body of every route that takes JSON."""
    more: dict[tuple[str, str], Any] = {
        ("/api/v1/agents/join-tokens", "post"): {"name": "box", "minutes": 10},
        ("/api/v1/agents/join", "post"): {
            "token": "fjt_nothing",
            "public_key": "U" + "A" * 55,
            "signature": "0" * 128,
            "name": "box",
        },
        ("/api/v1/dead-letters/{sequence}/discard", "post"): {"reason": "it is old"},
        ("/api/v1/dead-letters/{sequence}/retry", "post"): {"reason": "the disk was full"},
    }
    return {**REQUESTS, **more}


@st.composite
def twisted(draw: st.DrawFn, body: Any) -> bytes:
    """A good body in which one value is none that belongs there."""
    place = draw(st.sampled_from([*_places(body)]))
    values = st.one_of(*map(st.sampled_from, (_NUMBERS, _TEXTS, _OTHERS)))
    marked = json.dumps(_with(body, place, _MARK)).encode()
    value: bytes = draw(values)
    return marked.replace(json.dumps(_MARK).encode(), value)


def _places(body: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(body, dict | list):
        items = body.items() if isinstance(body, dict) else enumerate(body)
        for key, value in items:
            yield (*at, key)
            yield from _places(value, (*at, key))


def _with(body: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    copy = dict(body) if isinstance(body, dict) else list(body)
    copy[place[0]] = _with(body[place[0]], place[1:], value)
    return copy
