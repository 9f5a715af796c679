"""The description of the API: OpenAPI 3.1 as JSON, without a page that would load scripts."""

import re
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final

import msgspec
from litestar import Controller, Litestar, Response, get
from litestar.di import NamedDependency
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from pydantic import BaseModel

from gateway.access_matrix import ACCESS
from gateway.api_examples import REQUESTS, RESPONSES
from gateway.openai_api.errors import speaks_openai
from gateway.openapi_conditions import conditional_errors, describe_conditions
from gateway.problems import PROBLEM_JSON
from gateway.uploads import FIELDS, MEDIA_TYPES, MULTIPART

Json = dict[str, Any]

_DESCRIPTION: Final = """\
Upload data, fine-tune, watch it live, compare, put into service, predict.

Every request but those under `/health` and `/schema` carries an API key:
`Authorization: Bearer fpk_…`. Every error is a problem (RFC 9457) with a stable `code`, but under `/v1`,
where OpenAI's clients talk to language models and get OpenAI's errors. Commands are answered with `sequence`, the position in the event log after which their effect can be read; where that takes
longer than usual, the answer has a `note`. Lists are pages of `items` with a cursor in `next`.
"""
_PROBLEM: Final[Json] = {
    "type": "object",
    "description": "RFC 9457. Some problems say more: `errors` by field, `problems` by line.",
    "required": ["type", "title", "status", "detail", "instance", "code"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:finetrail:problem:not_found"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "The request, as in `X-Request-Id`."},
        "code": {"type": "string", "description": "Stable; branch on this."},
    },
    "additionalProperties": True,
}
# Of each event, as a reader of streams gives it out.
_STREAM_EVENT: Final[Json] = {
    "type": "object",
    "description": "One event of the stream.",
    "required": ["data"],
    "properties": {
        "id": {"type": "string", "description": "Its position: what `Last-Event-ID` may name."},
        "event": {"type": "string"},
        "data": {"type": "string", "description": "JSON, or `[DONE]` where OpenAI's streams end."},
    },
}
_OPENAI_ERROR: Final[Json] = {
    "type": "object",
    "description": "An error as OpenAI's clients know it.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string", "examples": ["invalid_request_error"]},
                "param": {"type": ["string", "null"], "description": "What was wrong with."},
                "code": {"type": ["string", "null"], "examples": ["model_not_found"]},
            },
        }
    },
}
_MEANINGS: Final = {
    "400": "The request is malformed; `errors` names the fields.",
    "401": "No valid API key.",
    "403": "The key's role may not do this.",
    "404": "There is no such thing.",
    "409": "The rules refuse it in the present state.",
    "412": "It is not what `If-Match` names.",
    "413": "The body is too large; `limit` says how large it may be.",
    "415": "The media type is not taken; `supported` lists those that are.",
    "416": "`Range` begins behind the end; `Content-Range` says how many bytes there are.",
    "422": "The file cannot be read; `problems` says where and what would be right.",
    "429": "The model is busy; `Retry-After` says when to ask again.",
    "500": "Our mistake; the log of the gateway has it under the id in `instance`.",
    "503": "Something that is needed is away; `Retry-After` says when to ask again.",
    "507": "There is no space to store it; nothing of it is kept.",
}
_PAGE_NAME: Final = re.compile(rb"Page_gateway\.\w+\.(\w+)_")  # a generic type's generated name
_WRITES: Final = ("409", "413", "415")
_ASKS: Final = ("413", "415", "429")
# A token or a ticket is refused, where no key is asked for.
_PUBLIC: Final = {
    ("/api/v1/agents/join", "post"): ("403", "409", "413", "415"),
    ("/api/v1/blobs/{ticket}", "put"): ("403", "404", "409", "413", "422", "507"),
    ("/schema/events/{type}/{file}", "get"): ("404",),
}
# Answers that are no JSON of ours, with what they are.
_MEDIA_TYPES: Final = {
    ("/asyncapi", "get"): "application/vnd.aai.asyncapi+json",
    ("/schema/events/{type}/{file}", "get"): "application/schema+json",
    ("/metrics", "get"): "text/plain",
}
_UPLOAD: Final = ("/api/v1/datasets", "post")
_STREAMS: Final = (
    ("/api/v1/jobs/{job_id}/logs", "get"),
    ("/api/v1/jobs/{job_id}/events", "get"),
    ("/api/v1/events", "get"),
    ("/api/v1/notifications", "get"),
    ("/v1/chat/completions", "post"),
    ("/v1/completions", "post"),
)


class SchemaController(Controller):
    path = "/schema"
    include_in_schema = False

    @get("/openapi.json")
    async def schema(self, description: NamedDependency[bytes]) -> Response[bytes]:
        """The description that you are looking for."""
        return Response(description, media_type="application/vnd.oai.openapi+json")


def openapi_config() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Finetrail",
        version=version("finetrail"),
        description=_DESCRIPTION,
        use_handler_docstrings=True,
        security=[{"key": []}],
        components=Components(
            security_schemes={
                "key": SecurityScheme(type="http", scheme="bearer", bearer_format="fpk_…")
            }
        ),
    )


def description_of(build: Callable[[], Litestar]) -> bytes:
    """What an application says of itself, and what it cannot say: problems, streams, examples."""
    schema = build().openapi_schema.to_schema()
    schemas = schema["components"].setdefault("schemas", {})
    schemas |= {"Problem": _PROBLEM, "OpenAIError": _OPENAI_ERROR}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            _complete(path, method, operation)
    return _PAGE_NAME.sub(rb"\1Page", msgspec.json.encode(schema, enc_hook=_plain))


def _plain(value: object) -> object:
    """Defaults that are models of the domain."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise NotImplementedError


def _complete(path: str, method: str, operation: Json) -> None:
    responses: Json = operation["responses"]
    success = next((code for code in responses if code.startswith("2")), None)
    responses.pop("400", None)  # the framework's own form of it
    media_type, error = PROBLEM_JSON, "Problem"
    if speaks_openai(path):
        media_type, error = "application/json", "OpenAIError"
    describe_conditions(path, method, operation)
    for code in sorted({*_errors(path, method), *conditional_errors(path, method)}):
        responses[code] = {
            "description": _MEANINGS[code],
            "content": {media_type: {"schema": {"$ref": f"#/components/schemas/{error}"}}},
        }
    role = ACCESS.get((method.upper(), path))
    operation["x-role"] = role
    if role == "public":
        operation["security"] = []
    if (path, method) in _STREAMS and success:
        content: Json = responses[success]["content"]
        page = next(one for one in content["application/json"]["schema"]["oneOf"] if one)
        content["application/json"]["schema"] = page
        content["text/event-stream"] = {"schema": _STREAM_EVENT}
    if success and (media := _MEDIA_TYPES.get((path, method))):
        schema = {"type": "string"} if media == "text/plain" else {"type": "object"}
        responses[success]["content"] = {media: {"schema": schema}}
    if (path, method) == _UPLOAD:
        operation["requestBody"] = _upload_body()
    _add_examples(path, method, operation, responses.get(success or ""))


def _add_examples(path: str, method: str, operation: Json, success: Json | None) -> None:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body and (path, method) in REQUESTS:
        body["example"] = REQUESTS[path, method]
    answer = (success or {}).get("content", {}).get("application/json")
    if answer and (path, method) in RESPONSES:
        answer["example"] = RESPONSES[path, method]


def _errors(path: str, method: str) -> list[str]:
    if ACCESS.get((method.upper(), path)) == "public":
        return ["400", "500", "503", *_PUBLIC.get((path, method), ())]
    codes = ["400", "401", "403", "500", "503"]
    if "{" in path or path.endswith(("/evaluations", "/jobs")):
        codes.append("404")
    if speaks_openai(path):
        return sorted({*codes, "404", *(_ASKS if method == "post" else ())})
    if method in {"post", "delete"} or path.endswith("/download"):
        codes += _WRITES
    if (path, method) == _UPLOAD:
        codes += ["422", "507"]
    return sorted(codes)


def _upload_body() -> Json:
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {"type": "string", "contentMediaType": "application/octet-stream"},
            **{name: {"type": "string"} for name in FIELDS},
        },
        "additionalProperties": False,
    }
    raw = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    content: Json = dict.fromkeys(sorted(MEDIA_TYPES), raw)
    content["text/csv"] = raw | {"example": "text,label\nwhere is my parcel?,delivery\n"}
    return {"required": True, "content": content | {MULTIPART: {"schema": form}}}
