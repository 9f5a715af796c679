"""Who may call which route: the one list that opens anything at all. What is not here is refused."""

from types import MappingProxyType
from typing import Final, Literal

from domain.access.events import Role

Access = Role | Literal["public"]

RANK: Final = MappingProxyType({"viewer": 0, "editor": 1, "admin": 2})

_API = "/api/v1"
ACCESS: Final = MappingProxyType[tuple[str, str], Access](
    {
        ("GET", "/health/live"): "public",
        ("GET", "/health/ready"): "public",
        ("GET", "/metrics"): "viewer",
        ("GET", "/schema/openapi.json"): "public",
        ("GET", "/asyncapi"): "public",
        ("GET", "/schema/events"): "public",
        ("GET", "/schema/events/{type}/{file}"): "public",
        ("GET", f"{_API}/datasets"): "viewer",
        ("POST", f"{_API}/datasets"): "editor",
        ("GET", f"{_API}/datasets/{{dataset_id}}"): "viewer",
        ("DELETE", f"{_API}/datasets/{{dataset_id}}"): "admin",
        ("GET", f"{_API}/datasets/{{dataset_id}}/rows"): "viewer",
        ("GET", f"{_API}/datasets/{{dataset_id}}/content"): "viewer",
        ("HEAD", f"{_API}/datasets/{{dataset_id}}/content"): "viewer",
        ("POST", f"{_API}/datasets/{{dataset_id}}/links"): "viewer",
        ("GET", f"{_API}/jobs"): "viewer",
        ("POST", f"{_API}/jobs"): "editor",
        ("GET", f"{_API}/jobs/{{job_id}}"): "viewer",
        ("POST", f"{_API}/jobs/{{job_id}}/cancel"): "editor",
        ("POST", f"{_API}/jobs/{{job_id}}/priority"): "editor",
        ("GET", f"{_API}/jobs/{{job_id}}/logs"): "viewer",
        ("POST", f"{_API}/jobs/{{job_id}}/logs"): "editor",
        ("GET", f"{_API}/jobs/{{job_id}}/logs/chunks"): "viewer",
        ("POST", f"{_API}/jobs/{{job_id}}/logs/chunks"): "editor",
        ("GET", f"{_API}/jobs/{{job_id}}/metrics"): "viewer",
        ("GET", f"{_API}/jobs/{{job_id}}/events"): "viewer",
        ("GET", f"{_API}/models"): "viewer",
        ("GET", f"{_API}/models/{{name}}"): "viewer",
        ("GET", f"{_API}/models/{{name}}/activations"): "viewer",
        ("GET", f"{_API}/models/{{name}}/versions"): "viewer",
        ("GET", f"{_API}/models/{{name}}/versions/{{number}}"): "viewer",
        ("GET", f"{_API}/models/{{name}}/versions/{{number}}/download"): "viewer",
        ("HEAD", f"{_API}/models/{{name}}/versions/{{number}}/download"): "viewer",
        ("GET", f"{_API}/models/{{name}}/versions/{{number}}/files/{{path}}"): "viewer",
        ("HEAD", f"{_API}/models/{{name}}/versions/{{number}}/files/{{path}}"): "viewer",
        ("POST", f"{_API}/models/{{name}}/versions/{{number}}/links"): "viewer",
        # The ticket in the path is the authority.
        ("GET", f"{_API}/blobs/{{ticket}}"): "public",
        ("HEAD", f"{_API}/blobs/{{ticket}}"): "public",
        ("PUT", f"{_API}/blobs/{{ticket}}"): "public",
        ("GET", f"{_API}/archives/{{ticket}}"): "public",
        ("HEAD", f"{_API}/archives/{{ticket}}"): "public",
        ("POST", f"{_API}/models/{{name}}/activate"): "admin",
        ("POST", f"{_API}/models/{{name}}/predict"): "viewer",
        ("GET", f"{_API}/evaluations"): "viewer",
        ("POST", f"{_API}/evaluations"): "editor",
        ("GET", f"{_API}/evaluations/{{evaluation_id}}"): "viewer",
        ("GET", f"{_API}/evaluations/{{evaluation_id}}/examples"): "viewer",
        ("POST", f"{_API}/evaluations/{{evaluation_id}}/cancel"): "editor",
        ("GET", f"{_API}/events"): "viewer",
        ("GET", f"{_API}/events/diff"): "viewer",
        ("GET", f"{_API}/events/{{event}}/why"): "viewer",
        ("GET", f"{_API}/keys"): "admin",
        ("GET", f"{_API}/keys/{{key_id}}"): "admin",
        ("POST", f"{_API}/keys"): "admin",
        ("DELETE", f"{_API}/keys/{{key_id}}"): "admin",
        ("GET", f"{_API}/people"): "admin",
        ("POST", f"{_API}/people"): "admin",
        ("GET", f"{_API}/people/{{person_id}}"): "admin",
        ("POST", f"{_API}/people/{{person_id}}/forget"): "admin",
        ("GET", f"{_API}/agents"): "viewer",
        ("GET", f"{_API}/agents/{{agent_id}}"): "viewer",
        ("POST", f"{_API}/agents/join-tokens"): "admin",
        ("POST", f"{_API}/agents/join"): "public",  # with a token that is good once
        ("POST", f"{_API}/agents/{{agent_id}}/drain"): "admin",
        ("POST", f"{_API}/agents/{{agent_id}}/revoke"): "admin",
        ("GET", f"{_API}/queue"): "viewer",
        ("GET", f"{_API}/queue/policy"): "viewer",
        ("PUT", f"{_API}/queue/policy"): "admin",
        ("GET", f"{_API}/dead-letters"): "admin",
        ("GET", f"{_API}/dead-letters/{{sequence}}"): "admin",
        ("POST", f"{_API}/dead-letters/{{sequence}}/retry"): "admin",
        ("POST", f"{_API}/dead-letters/{{sequence}}/discard"): "admin",
        ("GET", f"{_API}/notifications"): "viewer",
        ("POST", f"{_API}/notifications/read"): "viewer",
        ("GET", f"{_API}/webhooks"): "viewer",
        ("POST", f"{_API}/webhooks"): "admin",
        ("GET", f"{_API}/webhooks/event-types"): "viewer",
        ("GET", f"{_API}/webhooks/{{webhook_id}}"): "viewer",
        ("PATCH", f"{_API}/webhooks/{{webhook_id}}"): "admin",
        ("DELETE", f"{_API}/webhooks/{{webhook_id}}"): "admin",
        ("POST", f"{_API}/webhooks/{{webhook_id}}/disable"): "admin",
        ("POST", f"{_API}/webhooks/{{webhook_id}}/enable"): "admin",
        ("POST", f"{_API}/webhooks/{{webhook_id}}/rotate-secret"): "admin",
        ("POST", f"{_API}/webhooks/{{webhook_id}}/test"): "admin",
        ("GET", f"{_API}/webhooks/{{webhook_id}}/deliveries"): "editor",
        ("POST", f"{_API}/webhooks/{{webhook_id}}/replay"): "admin",
        ("GET", f"{_API}/admin/requests"): "admin",
        ("GET", "/v1/models"): "viewer",
        ("GET", "/v1/models/{model_id}"): "viewer",
        ("POST", "/v1/chat/completions"): "viewer",
        ("POST", "/v1/completions"): "viewer",
    }
)


def may_call(role: Role, method: str, template: str) -> bool:
    """Whether a key of this role may call the route; a route without an entry is closed to all."""
    needed = ACCESS.get((method, template))
    return needed is not None and (needed == "public" or RANK[role] >= RANK[needed])
