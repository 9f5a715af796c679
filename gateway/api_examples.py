"""Examples of requests and answers for the API's description; a test reads each into its type."""

from types import MappingProxyType
from typing import Any, Final

_ID: Final = "019369c2-7c5e-7b3a-9f10-5d2a8c4e6b71"
_DATASET_ID: Final = "019369c1-0a44-7d51-8c0e-2f6b9d1e3a58"
_VERSION_ID: Final = "3b1f6d0e-52a7-5c1b-9a64-7f0d2e8c4b19"
_EVALUATION_ID: Final = "8d2c4e6f-1b3a-5f7e-8c9d-0a1b2c3d4e5f"
_AGENT_ID: Final = "019369b0-11aa-7c4d-b5e6-f70819a2b3c4"
_PERSON_ID: Final = "2f7a1c3e-9d40-5b6a-8e21-0c5d7f9b3a64"
_SHA256: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_TIME: Final = "2026-11-20T17:43:05Z"
_HYPERPARAMETERS: Final = {
    "epochs": 3,
    "batch_size": 16,
    "learning_rate": 0.002,
    "warmup_ratio": 0.06,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "max_length": 128,
    "checkpoint_every": 20,
    "lora": {
        "rank": 8,
        "alpha": 16.0,
        "dropout": 0.0,
        "target_modules": ["query", "value"],
    },
}
_SPLIT: Final = {"seed": 0, "validation_fraction": 0.1, "test_fraction": 0.2}
_SCORES: Final = {
    "accuracy": 0.975,
    "f1": 0.974,
    "precision": 0.976,
    "recall": 0.974,
    "latency_ms_p50": 8.1,
    "latency_ms_mean": 8.4,
}
_SUMMARY: Final = {
    "rows": 160,
    "base": _SCORES | {"accuracy": 0.925, "f1": 0.924},
    "untrained": _SCORES | {"accuracy": 0.125, "f1": 0.03},
    "fine_tuned": _SCORES,
    "accuracy_delta": 0.05,
    "accuracy_delta_relative": 0.054,
    "f1_delta": 0.05,
    "p_value": 0.0215,
    "ci95": [0.0125, 0.0938],
    "only_base_right": 1,
    "only_fine_tuned_right": 9,
    "verdict": "better",
    "seconds": 6.2,
}
_DATASET: Final = {
    "id": _DATASET_ID,
    "name": "messages",
    "status": "valid",
    "sha256": _SHA256,
    "size": 41236,
    "format": "csv",
    "kind": "classification",
    "text_column": "text",
    "label_column": "label",
    "rows": 800,
    "labels": {"delivery": 420, "refund": 380},
    "duplicate_rows": 0,
    "conflicting_texts": 0,
    "messages": 0,
    "supervised_messages": 0,
    "example": [],
    "table_schema": None,
    "table_report": None,
    "compression": None,
    "why": "classification, because the header has the keys of no other kind; CSV, because its "
    "name ends with .csv",
    "message": None,
    "created_at": _TIME,
    "person_id": None,
    "forgotten": False,
    "sequence": 12,
}
_PERSON: Final = {
    "id": _PERSON_ID,
    "name": "Ana Díaz",
    "forgotten": False,
    "forgotten_at": None,
    "forgotten_by": None,
    "reason": None,
    "created_at": _TIME,
    "created_by": "key:9k2LmQ0x",
    "sequence": 61,
}
_BASE_MODEL: Final = {
    "id": "finetrail/minilm",
    "revision": None,
    "license": "apache-2.0",
    "parameters": 22_713_728,
    "sha256": {"config.json": _SHA256, "model.safetensors": _SHA256},
    "stored": False,
}
_JOB: Final = {
    "id": _ID,
    "model": "support",
    "base_model": "finetrail/minilm",
    "base_model_record": _BASE_MODEL,
    "method": "sequence_classification",
    "status": "running",
    "attempt": 1,
    "agent_id": _AGENT_ID,
    "progress": {
        "epoch": 2,
        "epochs": 3,
        "step": 57,
        "steps": 105,
        "percent": 54.3,
        "eta_s": 6.1,
    },
    "loss": 0.214,
    "tokens_per_s": 2350.0,
    "dataset_id": _DATASET_ID,
    "test_dataset_id": None,
    "spec": {"seed": 0, "split": _SPLIT, "hyperparameters": _HYPERPARAMETERS},
    "submitted_by": "key:3f9a2c1b",
    "priority": 50,
    "pool": None,
    "needs": {"accelerator": None, "memory_bytes": None},
    "waiting": None,
    "supervision": None,
    "epochs": [
        {
            "epoch": 1,
            "step": 35,
            "attempt": 1,
            "train_loss": 0.91,
            "validation_loss": 0.32,
            "validation_accuracy": 0.91,
            "seconds": 4.6,
            "time": _TIME,
        }
    ],
    "error": None,
    "version": None,
    "evaluation_id": None,
    "created_at": _TIME,
    "started_at": _TIME,
    "ended_at": None,
    "sequence": 21,
}
_SHARES: Final = {
    "patience": 100,
    "memory": 50,
    "evaluations_first": True,
    "everyone": {"weight": 1, "running": 2, "queued": 50},
    "users": {"key:3f9a2c1b": {"weight": 2, "running": 4, "queued": None}},
}
_POLICY: Final = _SHARES | {
    "number": 1,
    "set_at": _TIME,
    "set_by": "key:Ab3dEf7h",
    "sequence": 21,
}
_MODEL: Final = {
    "id": "b8a1a9b0-6c1d-5e2f-8a3b-4c5d6e7f8091",
    "name": "support",
    "base_model": "finetrail/minilm",
    "versions": 2,
    "latest": 2,
    "active": {
        "number": 1,
        "version_id": _VERSION_ID,
        "activated_at": _TIME,
        "activated_by": "key:3f9a2c1b",
    },
    "created_at": _TIME,
    "sequence": 44,
}
_VERSION: Final = {
    "id": _VERSION_ID,
    "model": "support",
    "number": 1,
    "label": "20261120-174305",
    "status": "ready",
    "message": None,
    "job_id": _ID,
    "method": "sequence_classification",
    "base_model": "finetrail/minilm",
    "labels": ["delivery", "refund"],
    "files": [
        {
            "path": "lora_adapters/adapter_model.safetensors",
            "size": 960512,
            "sha256": _SHA256,
        }
    ],
    "size": 960512,
    "lineage": {
        "dataset_id": _DATASET_ID,
        "dataset_sha256": _SHA256,
        "test_dataset_id": None,
        "test_sha256": None,
        "seed": 0,
        "split": _SPLIT,
        "base_model_record": _BASE_MODEL,
        "code": "0.1.0",
        "packages": {"torch": "2.13.0"},
        "device": "cpu",
        "threads": 2,
    },
    "training": {
        "rows": 560,
        "tokens": 31080,
        "steps": 105,
        "seconds": 13.9,
        "final_loss": 0.047,
        "validation_accuracy": 0.9625,
    },
    "evaluation": _SUMMARY | {"id": _EVALUATION_ID, "status": "completed"},
    "created_at": _TIME,
    "sequence": 39,
}
_EVALUATION: Final = {
    "id": _EVALUATION_ID,
    "model": "support",
    "version": 1,
    "status": "completed",
    "summary": _SUMMARY,
    "error": None,
    "created_at": _TIME,
    "ended_at": _TIME,
    "sequence": 43,
}
_EVENT: Final = {
    "sequence": 44,
    "id": "5f0c7a5e-90d1-5b7c-8e8e-9d3f3b0c6a12",
    "type": "ModelActivated",
    "aggregate": "model",
    "aggregate_id": "b8a1a9b0-6c1d-5e2f-8a3b-4c5d6e7f8091",
    "actor": "key:3f9a2c1b",
    "source": "gateway",
    "correlation_id": "019369c3-5a5a-7e0b-a1b2-c3d4e5f60718",
    "causation_id": "019369c3-5a5b-7222-8333-444455556666",
    "time": _TIME,
    "data": {"version_id": _VERSION_ID, "number": 1, "previous_version_id": None},
}
_AGENT: Final = {
    "id": _AGENT_ID,
    "name": "workstation",
    "status": "active",
    "accelerator": "cpu",
    "memory_bytes": 16_000_000_000,
    "methods": ["sequence_classification"],
    "created_at": _TIME,
    "invited_by": "key:Ab3dEf7h",
    "expires_at": _TIME,
    "joined_at": _TIME,
    "connected": True,
    "last_seen": _TIME,
    "slots": 1,
    "pool": "default",
    "holds": [{"work_id": _ID, "attempt": 1}],
    "serving": "ready",
    "sequence": 3,
}
_STEP: Final = {
    "step": 57,
    "epoch": 1.63,
    "loss": 0.214,
    "learning_rate": 0.0011,
    "grad_norm": 0.83,
    "tokens_per_s": 2350.0,
    "eta_s": 6.1,
    "attempt": 1,
    "time": _TIME,
}
_LINE: Final = {
    "sequence": 310,
    "time": _TIME,
    "level": "INFO",
    "message": "step 57/105, loss 0.214",
    "source": "worker",
    "text": "[17:43:05] [INFO] step 57/105, loss 0.214",
    "attempt": 1,
}


_LETTER: Final = {
    "sequence": 7,
    "status": "open",
    "kind": "commands",
    "subject": f"commands.reaction.default.queue.{_ID}",
    "type": "Enqueue",
    "message_id": "5f0c0f0e-7f0f-5d8e-9a43-6b5b8f0c3a11",
    "reason": "RuntimeError: the rules broke",
    "put_aside_at": _TIME,
    "size": 142,
    "retry_of": None,
}


def _page(*items: object) -> dict[str, Any]:
    return {"items": list(items), "next": None}


_API: Final = "/api/v1"
_LANGUAGE_MODEL: Final = {
    "id": "support",
    "object": "model",
    "created": 1795196585,
    "owned_by": "default",
    "root": "support:1",
    "parent": "finetrail/tiny",
}
Operation = tuple[str, str]

_LINK: Final = {
    "id": "019369c4-2b1d-7c3e-8a6f-9b0c1d2e3f4a",
    "url": "https://finetrail.example.org/api/v1/blobs/eyJ2ZXJiIjoiR0VUIn0.c2lnbmF0dXJl",
    "expires_at": "2026-11-20T18:43:05Z",
    "sequence": 412,
}
REQUESTS: Final = MappingProxyType[Operation, Any](
    {
        ("/v1/chat/completions", "post"): {
            "model": "support",
            "messages": [{"role": "user", "content": "Classify: where is my parcel?"}],
            "temperature": 0,
        },
        ("/v1/completions", "post"): {"model": "finetrail/tiny", "prompt": "Once upon a time"},
        (f"{_API}/jobs", "post"): {
            "model": "support",
            "dataset_id": _DATASET_ID,
            "hyperparameters": {"epochs": 3, "lora": {"rank": 8}},
            "seed": 0,
        },
        (f"{_API}/jobs/{{job_id}}/logs", "post"): {
            "lines": [{"level": "WARNING", "message": "the room is getting warm"}]
        },
        (f"{_API}/jobs/{{job_id}}/priority", "post"): {"priority": 80},
        (f"{_API}/queue/policy", "put"): _SHARES,
        (f"{_API}/models/{{name}}/activate", "post"): {"version": 1},
        (f"{_API}/models/{{name}}/predict", "post"): {"texts": ["where is my parcel?"]},
        (f"{_API}/models/{{name}}/versions/{{number}}/links", "post"): {
            "path": "lora_adapters/adapter_model.safetensors",
            "minutes": 60,
        },
        (f"{_API}/datasets/{{dataset_id}}/links", "post"): {"minutes": 60},
        (f"{_API}/evaluations", "post"): {"model": "support", "version": 1},
        (f"{_API}/keys", "post"): {"name": "nightly training", "role": "editor"},
    }
)

RESPONSES: Final = MappingProxyType[Operation, Any](
    {
        ("/v1/models", "get"): {"object": "list", "data": [_LANGUAGE_MODEL]},
        ("/v1/models/{model_id}", "get"): _LANGUAGE_MODEL,
        ("/v1/chat/completions", "post"): {
            "id": "chatcmpl-019369c27c5e7b3a9f105d2a8c4e6b71",
            "object": "chat.completion",
            "created": 1795196585,
            "model": "support:1",
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": "delivery",
                        "refusal": None,
                        "annotations": [],
                    },
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 19, "completion_tokens": 2, "total_tokens": 21},
            "system_fingerprint": None,
        },
        (f"{_API}/datasets", "post"): _DATASET,
        (f"{_API}/datasets", "get"): _page(_DATASET),
        (f"{_API}/datasets/{{dataset_id}}", "get"): _DATASET,
        (f"{_API}/datasets/{{dataset_id}}", "delete"): _DATASET | {"status": "deleted"},
        (f"{_API}/datasets/{{dataset_id}}/rows", "get"): _page(
            {"line": 2, "text": "where is my parcel?", "label": "delivery"}
        ),
        (f"{_API}/jobs", "post"): _JOB | {"status": "queued", "agent_id": None},
        (f"{_API}/datasets/{{dataset_id}}/links", "post"): _LINK,
        (f"{_API}/models/{{name}}/versions/{{number}}/links", "post"): _LINK,
        (f"{_API}/jobs", "get"): _page(_JOB),
        (f"{_API}/jobs/{{job_id}}", "get"): _JOB,
        (f"{_API}/jobs/{{job_id}}/cancel", "post"): _JOB | {"status": "cancelling"},
        (f"{_API}/jobs/{{job_id}}/priority", "post"): _JOB | {"priority": 80},
        (f"{_API}/jobs/{{job_id}}/logs", "get"): _page(_LINE),
        (f"{_API}/jobs/{{job_id}}/logs", "post"): {"sequence": 311, "lines": 1},
        (f"{_API}/jobs/{{job_id}}/metrics", "get"): _page(_STEP),
        (f"{_API}/jobs/{{job_id}}/events", "get"): _page(_EVENT),
        (f"{_API}/models", "get"): _page(_MODEL),
        (f"{_API}/models/{{name}}", "get"): _MODEL,
        (f"{_API}/models/{{name}}/versions", "get"): _page(_VERSION),
        (f"{_API}/models/{{name}}/versions/{{number}}", "get"): _VERSION,
        (f"{_API}/models/{{name}}/activate", "post"): _MODEL,
        (f"{_API}/models/{{name}}/predict", "post"): {
            "model": "support",
            "version": 1,
            "predictions": [
                {
                    "label": "delivery",
                    "score": 0.991,
                    "scores": {"delivery": 0.991, "refund": 0.009},
                }
            ],
            "seconds": 0.009,
        },
        (f"{_API}/evaluations", "post"): _EVALUATION | {"status": "queued", "summary": None},
        (f"{_API}/evaluations", "get"): _page(_EVALUATION),
        (f"{_API}/evaluations/{{evaluation_id}}", "get"): _EVALUATION,
        (f"{_API}/evaluations/{{evaluation_id}}/cancel", "post"): _EVALUATION
        | {"status": "cancelled", "summary": None},
        (f"{_API}/evaluations/{{evaluation_id}}/examples", "get"): _page(
            {
                "text": "where is my parcel?",
                "expected": "delivery",
                "base": "refund",
                "fine_tuned": "delivery",
                "winner": "fine_tuned",
            }
        ),
        (f"{_API}/events", "get"): _page(_EVENT),
        (f"{_API}/keys", "get"): _page(
            {
                "key_id": "3f9a2c1b",
                "name": "nightly training",
                "role": "editor",
                "person_id": _PERSON_ID,
                "forgotten": False,
                "created_at": _TIME,
                "created_by": "operator:ana",
                "sequence": 2,
            }
        ),
        (f"{_API}/jobs/{{job_id}}/logs/chunks", "get"): _page(
            {
                "name": "log_20261120T160000Z.jsonl.gz",
                "source": "archived",
                "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "size": 4211,
                "lines": 96,
                "first": 118,
                "last": 131,
                "time": _TIME,
                "sequence": 57,
            }
        ),
        (f"{_API}/keys", "post"): {
            "key_id": "3f9a2c1b",
            "name": "nightly training",
            "role": "editor",
            "person_id": _PERSON_ID,
            "secret": "fpk_3f9a2c1b_…",
            "created_by": "key:9k2LmQ0x",
            "sequence": 2,
        },
        (f"{_API}/keys/{{key_id}}", "delete"): {
            "key_id": "3f9a2c1b",
            "status": "revoked",
            "sequence": 60,
        },
        (f"{_API}/agents", "get"): _page(_AGENT),
        (f"{_API}/agents/{{agent_id}}", "get"): _AGENT,
        (f"{_API}/agents/{{agent_id}}/drain", "post"): _AGENT | {"status": "draining"},
        (f"{_API}/agents/{{agent_id}}/revoke", "post"): _AGENT | {"status": "revoked"},
        (f"{_API}/agents/join-tokens", "post"): {
            "agent_id": _AGENT_ID,
            "name": "workstation",
            "token": "fjt_018f000000007000800000000000000a_…",
            "expires_at": _TIME,
            "sequence": 62,
        },
        (f"{_API}/agents/join", "post"): {
            "agent_id": _AGENT_ID,
            "workspace": "default",
            "nats_url": "nats://trainer.example.org:4222",
            "gateway_url": "http://trainer.example.org:8420",
        },
        (f"{_API}/dead-letters", "get"): _page(_LETTER),
        (f"{_API}/dead-letters/{{sequence}}", "get"): _LETTER
        | {
            "headers": {"ce-type": "Enqueue", "ce-actor": "reaction"},
            "body": {"type": "Enqueue", "work_id": _ID, "kind": "train", "attempt": 1},
            "text": None,
        },
        (f"{_API}/dead-letters/{{sequence}}/retry", "post"): {
            "sequence": 7,
            "status": "retried",
            "reason": "",
            "log_sequence": 61,
        },
        (f"{_API}/dead-letters/{{sequence}}/discard", "post"): {
            "sequence": 7,
            "status": "discarded",
            "reason": "sent by a script that is no longer used",
            "log_sequence": 61,
        },
        (f"{_API}/admin/requests", "get"): {
            "since": "2026-11-20T16:43:00Z",
            "until": _TIME,
            "step_s": 120,
            "items": [
                {
                    "time": "2026-11-20T17:41:00Z",
                    "method": "GET",
                    "route": f"{_API}/jobs/{{job_id}}",
                    "status": "2xx",
                    "count": 214,
                    "mean_ms": 3.1,
                    "p50_ms": 2.6,
                    "p95_ms": 8.4,
                    "max_ms": 41.9,
                }
            ],
        },
        (f"{_API}/queue/policy", "get"): _POLICY,
        (f"{_API}/queue/policy", "put"): _POLICY,
        (f"{_API}/queue", "get"): _page(
            {
                "work_id": _ID,
                "kind": "train",
                "method": "sequence_classification",
                "attempt": 1,
                "status": "waiting",
                "user": "key:3f9a2c1b",
                "priority": 50,
                "pool": None,
                "needs": {"accelerator": None, "memory_bytes": None},
                "position": 1,
                "waiting": {
                    "position": 1,
                    "code": "agents_busy",
                    "reason": f"the only agent that can run it is busy: box with job {_ID}",
                    "ahead": 0,
                    "estimated_start": _TIME,
                    "estimate": None,
                },
                "agent_id": None,
                "reason": None,
                "queued_at": _TIME,
                "assigned_at": None,
            }
        ),
    }
)
