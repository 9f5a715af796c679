"""What the description of the API says of ranges, entity tags and tickets: the framework sees none of them."""

from typing import Any, Final

Json = dict[str, Any]

_VERSION: Final = "/api/v1/models/{name}/versions/{number}"
RANGED: Final = frozenset(
    {
        f"{_VERSION}/download",
        f"{_VERSION}/files/{{path}}",
        "/api/v1/datasets/{dataset_id}/content",
        "/api/v1/blobs/{ticket}",
        "/api/v1/archives/{ticket}",
    }
)
TAGGED: Final = frozenset(
    {
        "/api/v1/datasets/{dataset_id}",
        "/api/v1/jobs/{job_id}",
        "/api/v1/models/{name}",
        _VERSION,
        "/api/v1/evaluations/{evaluation_id}",
        "/api/v1/agents/{agent_id}",
        "/api/v1/keys/{key_id}",
        "/api/v1/webhooks/{webhook_id}",
        "/api/v1/people/{person_id}",
        "/api/v1/queue/policy",
    }
)
GUARDED: Final = frozenset(
    {
        ("/api/v1/datasets/{dataset_id}", "delete"),
        ("/api/v1/jobs/{job_id}/cancel", "post"),
        ("/api/v1/jobs/{job_id}/priority", "post"),
        ("/api/v1/queue/policy", "put"),
        ("/api/v1/models/{name}/activate", "post"),
        ("/api/v1/evaluations/{evaluation_id}/cancel", "post"),
        ("/api/v1/agents/{agent_id}/drain", "post"),
        ("/api/v1/webhooks/{webhook_id}", "patch"),
    }
)
_KNOWN: Final[Json] = {"description": "What `If-None-Match` names; nothing of it is sent."}
_HEADERS: Final = {
    "If-None-Match": "Tags that the client holds; 304 if one of them is right.",
    "If-Match": "Tags that are wanted; 412 if none of them is right.",
    "Range": "One range of bytes, as `bytes=100-`; several are answered with the whole.",
    "If-Range": "A range only of the bytes with this tag; the whole of any others.",
}


def conditional_errors(path: str, method: str) -> set[str]:
    """The statuses of problems that come of conditions."""
    if path in RANGED and method != "put":
        ranged = {"412"} | ({"416"} if method == "get" else set())
        return ranged | ({"403", "404"} if "{ticket}" in path else set())
    return {"412"} if (path, method) in GUARDED else set()


def describe_conditions(path: str, method: str, operation: Json) -> None:
    """Add headers, 206 and 304 to a route that knows them."""
    responses: Json = operation["responses"]
    if path in RANGED and method in {"get", "head"}:
        responses["304"] = _KNOWN
        names = list(_HEADERS)[: None if method == "get" else 2]
        if method == "get":
            part = {
                "description": "The bytes of the range.",
                "content": responses["200"]["content"],
            }
            responses["206"] = part
    elif path in TAGGED and method == "get":
        responses["304"] = _KNOWN
        names = ["If-None-Match"]
    else:
        return
    operation.setdefault("parameters", []).extend(
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": _HEADERS[name],
            "schema": {"type": "string"},
        }
        for name in names
    )
