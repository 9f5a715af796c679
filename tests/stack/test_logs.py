"""What a process logs: both forms, the ids that come along, and the secrets that never do."""

import base64
import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import SecretStr

from domain.context import Context, working_on
from finetrail.logs import LogFormat, formatter, log_to_stderr
from finetrail.redaction import Redaction, Redactor, secrets_of
from finetrail.settings import NatsSettings, NatsUser, PostgresSettings, Settings
from gateway.api_keys import new_key
from gateway.join_tokens import new_token

FORMS: tuple[LogFormat, ...] = ("text", "json")
BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
URL_SAFE = st.text("ABCabc0189_-", min_size=20, max_size=60)
AROUND = st.text(max_size=40)


def new_join_token(agent_id: UUID) -> str:
    return new_token(b"pepper", agent_id)


class Said:
    """A logger of its own whose lines end here."""

    def __init__(self, form: LogFormat, known: list[str] | None = None) -> None:
        self._stream = io.StringIO()
        handler = logging.StreamHandler(self._stream)
        handler.setFormatter(formatter("gateway", form))
        handler.addFilter(Redaction(Redactor(known or [])))
        self.logger = logging.getLogger("tests.said")
        self.logger.handlers = [handler]
        self.logger.propagate = False
        self.logger.setLevel(logging.INFO)

    @property
    def text(self) -> str:
        return self._stream.getvalue()


def token_of(payload: str, signature: str) -> str:
    body = base64.urlsafe_b64encode(json.dumps({"sha256": payload}).encode()).decode().rstrip("=")
    return f"{body}.{signature}"


SECRETS = st.one_of(
    st.text(max_size=20).map(lambda seed: new_key(b"pepper", seed).text).map(
        lambda key: (key, key.split("_", 2)[2])
    ),
    st.uuids().map(new_join_token).map(lambda text: (text, text.split("_")[2])),
    st.builds(
        lambda kind, rest: (f"S{kind}{rest}",) * 2,
        st.sampled_from("AUOCNX"),
        st.text(BASE32, min_size=56, max_size=56),
    ),
    URL_SAFE.map(lambda secret: (f"nats://gateway:{secret}@10.0.0.1:4222", secret)),
    URL_SAFE.map(lambda secret: (f"postgresql://me:{secret}/x@db:5432/a?b=c", secret)),
    URL_SAFE.map(lambda secret: (f"nats://{secret}@10.0.0.1", secret)),
    URL_SAFE.map(lambda secret: (f"Authorization: Basic {secret}", secret)),
    URL_SAFE.map(lambda secret: (f"{{'authorization': 'Bearer {secret}'}}", secret)),
    URL_SAFE.map(lambda secret: (f"(b'authorization', b'Bearer {secret}')", secret)),
    URL_SAFE.map(lambda secret: (f"Bearer {secret}", secret)),
    URL_SAFE.map(lambda secret: (f'{{"password": "{secret}"}}', secret)),
    URL_SAFE.map(lambda secret: (f"{{'pepper': b'{secret}'}}", secret)),
    URL_SAFE.map(lambda secret: (f"{{'token_hmac': '{secret}'}}", secret)),
    URL_SAFE.map(lambda secret: (f"secret_key={secret}", secret)),
    URL_SAFE.map(lambda secret: (f"/b?X-Amz-Signature={secret}&x=1", secret)),
    st.builds(token_of, st.text(min_size=4), URL_SAFE).map(lambda text: (f"/blobs/{text}", text)),
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@given(secret=SECRETS, before=AROUND, after=AROUND)
def test_no_secret_reaches_a_line_by_any_way(
    form: LogFormat, secret: tuple[str, str], before: str, after: str
) -> None:
    written, hidden = secret
    assume(hidden not in before + after)
    said = Said(form)
    text = f"{before} {written} {after}"

    said.logger.info(text.replace("%", "%%"))
    said.logger.info("it said %s", text)
    said.logger.info("%s", "again", extra={"fields": {"path": text}})
    error = RuntimeError("no connection")
    error.__cause__ = ConnectionError(text)
    said.logger.error("failed", exc_info=error)

    assert hidden not in said.text


@given(secret=st.text(min_size=8).filter(str.isprintable), before=AROUND, after=AROUND)
def test_a_secret_of_the_settings_is_hidden_whatever_it_looks_like(
    secret: str, before: str, after: str
) -> None:
    redacted = Redactor([secret])(f"{before}{secret}{after}")

    assert secret not in redacted.replace("***", "\n")


@pytest.mark.parametrize(
    "line",
    [
        "handlers serve workspace default at nats://127.0.0.1:4222",
        "https://example.org/a?to=me@example.org answers",
        "nats: 'Authorization Violation'",
        "1,024 tokens of at most 2,048",
        "unexpected token at line 3",
        "GET /api/v1/blobs/{ticket} 200",
        "key 3f9a2c1b is revoked",
    ],
)
def test_an_ordinary_line_stays_readable(line: str) -> None:
    assert Redactor()(line) == line


def test_what_is_left_of_a_secret_still_says_whose_it_was() -> None:
    key = new_key(b"pepper", "somebody")

    assert Redactor()(f"{key.text} is refused") == f"fpk_{key.key_id}_*** is refused"
    assert Redactor()("nats://gateway:a/b@c@10.0.0.1:4222") == "nats://gateway:***@10.0.0.1:4222"


def test_every_secret_of_the_settings_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(
        nats=NatsSettings(gateway=NatsUser(password=SecretStr("one secret"))),
        postgres=PostgresSettings(dsn=SecretStr("postgresql://a:b@c/d")),
    )

    assert {"one secret", "postgresql://a:b@c/d"} <= set(secrets_of(settings))


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = before
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_carry_what_a_machine_looks_for(logged: io.StringIO) -> None:
    context = Context("018f-1", "018f-2", "default", f"00-{'a' * 32}-{'b' * 16}-01")
    log_to_stderr("handlers", Settings(log_format="json"), logged)

    with working_on(context):
        logging.getLogger("handlers.settle").warning("tried again\nafter %d", 2)
    logging.getLogger("finetrail").error("it broke", exc_info=ValueError("one\ntwo"))

    first, second = lines(logged)
    assert first["level"] == "WARNING"
    assert first["process"] == "handlers"
    assert first["logger"] == "handlers.settle"
    assert first["message"] == "tried again\nafter 2"
    assert (first["correlation_id"], first["message_id"]) == ("018f-1", "018f-2")
    assert (first["workspace"], first["trace_id"]) == ("default", "a" * 32)
    assert datetime.fromisoformat(first["time"]).utcoffset() is not None
    assert "ValueError: one\ntwo" in second["exception"]
    assert "correlation_id" not in second


def test_text_lines_are_the_default(logged: io.StringIO) -> None:
    log_to_stderr("agent", Settings(log_level="INFO"), logged)

    logging.getLogger("gpu_agent.agent").info("ready to serve")
    logging.getLogger("httpx").info("HTTP Request: GET http://127.0.0.1/")

    assert logged.getvalue().endswith("Z INFO agent gpu_agent.agent: ready to serve\n")


def test_a_line_whose_arguments_do_not_fit_is_logged_all_the_same() -> None:
    said = Said("text")

    said.logger.info("%d steps", "many")

    assert "%d steps ('many',)" in said.text
