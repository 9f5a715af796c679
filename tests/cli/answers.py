"""Answers as the server gives them."""

from typing import Any

JOB_ID = "0192f0c1-0000-7000-8000-000000000001"


def dataset(**changes: Any) -> dict[str, Any]:
    return {
        "id": "0192f0c1-0000-7000-8000-00000000000d",
        "name": "messages",
        "status": "valid",
        "sha256": "0" * 64,
        "size": 2048,
        "format": "csv",
        "text_column": "text",
        "label_column": "intent",
        "rows": 200,
        "labels": {"refund": 90, "track": 110},
        "duplicate_rows": 0,
        "conflicting_texts": 0,
        "message": None,
        "created_at": "2026-11-20T18:00:00Z",
        "sequence": 2,
        "of_a_newer_server": True,
        **changes,
    }


def job(**changes: Any) -> dict[str, Any]:
    return {
        "id": JOB_ID,
        "model": "intents",
        "base_model": "finetrail/minilm",
        "method": "sequence_classification",
        "status": "running",
        "attempt": 1,
        "agent_id": "0192f0c1-0000-7000-8000-00000000000a",
        "progress": {
            "epoch": 2,
            "epochs": 3,
            "step": 40,
            "steps": 111,
            "percent": 36.0,
            "eta_s": 8.1,
        },
        "loss": 0.312,
        "tokens_per_s": 4100.0,
        "dataset_id": dataset()["id"],
        "test_dataset_id": None,
        "spec": {},
        "epochs": [{"epoch": 1, "validation_accuracy": 0.91}],
        "error": None,
        "version": None,
        "evaluation_id": None,
        "created_at": "2026-11-20T18:00:00Z",
        "started_at": None,
        "ended_at": None,
        "sequence": 5,
        **changes,
    }


def language_job(**changes: Any) -> dict[str, Any]:
    """Of a language model that has started."""
    return job(
        base_model="finetrail/tiny",
        method="sft",
        base_model_record={
            "id": "finetrail/tiny",
            "revision": None,
            "license": "apache-2.0",
            "parameters": 700_000,
            "sha256": {"config.json": "1" * 64, "model.safetensors": "0" * 64},
            "stored": True,
        },
        supervision={
            "rows": 360,
            "tokens": 9000,
            "supervised_tokens": 900,
            "truncated_rows": 2,
            "dropped_rows": 1,
            "longest_row": 64,
            "padding_share": 0.4,
            "example": [
                {"text": "user: money\x1b back\nassistant: ", "supervised": False},
                {"text": "refund", "supervised": True},
            ],
        },
        **changes,
    )


def succeeded() -> dict[str, Any]:
    return job(
        status="succeeded",
        version={"model": "intents", "number": 1, "id": "v1"},
        evaluation_id="e1",
    )


def model(**changes: Any) -> dict[str, Any]:
    active = {"number": 1, "version_id": "v1", "activated_at": None, "activated_by": "key:abcd"}
    return {
        "id": "m1",
        "name": "intents",
        "base_model": "finetrail/minilm",
        "versions": 1,
        "latest": 1,
        "active": active,
        "created_at": None,
        "sequence": 9,
        **changes,
    }


def version(**changes: Any) -> dict[str, Any]:
    return {
        "id": "v1",
        "model": "intents",
        "number": 1,
        "label": "20261120-180500",
        "status": "ready",
        "job_id": JOB_ID,
        "base_model": "finetrail/minilm",
        "labels": ["refund", "track"],
        "files": [],
        "size": 300_000,
        "lineage": {},
        "training": {"tokens": 9000, "seconds": 10.0},
        "evaluation": {"status": "completed", "verdict": "better", "fine_tuned": scores(0.98)},
        "created_at": None,
        **changes,
    }


def scores(accuracy: float) -> dict[str, Any]:
    return {
        "accuracy": accuracy,
        "f1": accuracy,
        "precision": accuracy,
        "recall": accuracy,
        "latency_ms_p50": None,
        "latency_ms_mean": None,
    }


def evaluation(**changes: Any) -> dict[str, Any]:
    summary = {
        "rows": 171,
        "base": scores(0.9),
        "untrained": scores(0.12),
        "fine_tuned": scores(0.98),
        "accuracy_delta": 0.08,
        "accuracy_delta_relative": 0.089,
        "f1_delta": 0.08,
        "p_value": 0.0005,
        "ci95": [0.04, 0.12],
        "only_base_right": 1,
        "only_fine_tuned_right": 15,
        "verdict": "better",
        "examples": [],
        "seconds": 4.0,
    }
    return {
        "id": "e1",
        "model": "intents",
        "version": 1,
        "status": "completed",
        "summary": summary,
        "error": None,
        "created_at": None,
        "ended_at": None,
        **changes,
    }


def language_scores(accuracy: float, bits_per_byte: float, f1: float | None) -> dict[str, Any]:
    return {
        **scores(accuracy),
        "f1": f1,
        "precision": f1,
        "recall": f1,
        "latency_ms_p50": 4.2,
        "exact_match": accuracy - 0.01,
        "perplexity": 3.5,
        "bits_per_byte": bits_per_byte,
    }


def language_summary(**changes: Any) -> dict[str, Any]:
    """Of a language model whose answers are labels."""
    return {
        **evaluation()["summary"],
        "metric": "accuracy",
        "base": language_scores(0.18, 2.5, f1=0.1),
        "untrained": None,
        "fine_tuned": language_scores(0.74, 0.25, f1=0.7),
        "accuracy_delta": 0.56,
        "f1_delta": 0.6,
        "ci95": [0.49, 0.63],
        "bits_per_byte_delta": -2.25,
        "generated_rows": 171,
        **changes,
    }


def free_text_summary(**changes: Any) -> dict[str, Any]:
    """Of a language model whose answers are no labels."""
    return language_summary(
        metric="bits_per_byte",
        base=language_scores(0.01, 2.5, f1=None) | {"exact_match": 0.01},
        fine_tuned=language_scores(0.02, 2.25, f1=None) | {"exact_match": 0.02},
        accuracy_delta=0.01,
        f1_delta=None,
        p_value=1.0,
        ci95=[-0.31, -0.19],
        bits_per_byte_delta=-0.25,
        generated_rows=100,
        **changes,
    )


def event(sequence: int, type_: str = "JobSubmitted") -> dict[str, Any]:
    return {
        "sequence": sequence,
        "id": f"event-{sequence}",
        "type": type_,
        "aggregate": "job",
        "aggregate_id": JOB_ID,
        "actor": "key:abcd",
        "source": "gateway",
        "correlation_id": None,
        "causation_id": None,
        "time": "2026-11-20T18:00:00Z",
        "data": {},
    }


def page(*items: dict[str, Any], after: str | None = None) -> dict[str, Any]:
    return {"items": list(items), "next": after}
