"""A table from its upload to a prediction, on a real stack."""

import io
import json
import zipfile
from typing import Any

import pytest

from tests.e2e.harness import ROOT, Stack
from tests.published import published

pytestmark = [pytest.mark.infra, pytest.mark.slow, pytest.mark.timeout(300)]

PATIENTS = ROOT / "examples" / "patients.csv"


def trained(stack: Stack, dataset: Any, model: str, **asked: Any) -> Any:
    body = {"model": model, "dataset_id": dataset["id"], **asked}
    job = stack.post("/jobs", body)
    job = stack.job_until(job["id"], lambda job: job["ended_at"] is not None, within_s=90)
    assert job["status"] == "succeeded", job["error"]
    evaluation = stack.evaluation_until_done(job["id"], within_s=90)
    assert evaluation["status"] == "completed", evaluation
    return evaluation["summary"]


def uploaded(stack: Stack, content: bytes, **fields: str) -> Any:
    answer = stack.http.post(
        "/api/v1/datasets",
        params={"filename": "patients.csv", "kind": "tabular", **fields},
        content=content,
        headers={"Content-Type": "text/csv"},
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_table_becomes_a_model_that_answers_rows(stack: Stack) -> None:
    dataset = uploaded(stack, PATIENTS.read_bytes(), target="risk", group="patient_id")
    summary = trained(stack, dataset, "risk", base_model="finetrail/mlp")
    stack.post("/models/risk/activate", {"version": 1})
    asked = [
        {"age": 80, "glucose": 9.5, "bmi": 36, "smoker": "YES", "sex": "male"},
        {"age": 25, "glucose": 4.2, "smoker": "pipe"},
    ]
    answer = stack.post("/models/risk/predict", {"rows": asked})
    wrong = {"rows": [{"age": 30}, {"age": "thirty", "weight": 80}]}
    refused = [
        stack.http.post("/api/v1/models/risk/predict", json=body).json()
        for body in (wrong, {"texts": ["x"]}, {})
    ]

    report = dataset["table_report"]
    assert (dataset["kind"], dataset["status"], dataset["rows"]) == ("tabular", "valid", 500)
    assert report["cleaned"] == len(report["first"]) == 10
    assert {"line": 13, "column": "sex", "was": "Female", "became": "female", "why": "spelling"} in report["first"]  # fmt: skip
    assert report["missing"] == {"bmi": 2, "glucose": 2, "smoker": 1}
    assert summary["majority"]["verdict"] == "better"
    assert {one["label"] for one in summary["by_class"]} == {"low", "medium", "high"}
    first, second = answer["predictions"]
    assert (first["label"], second["label"]) == ("high", "low")
    assert sum(first["scores"].values()) == pytest.approx(1)
    assert (first["missing"], second["missing"]) == ([], ["bmi", "smoker", "sex"])
    assert {one["code"] for one in refused} == {"invalid_request"}
    assert [[wrong["field"] for wrong in one["errors"]] for one in refused] == [
        ["rows[1].weight", "rows[1].age"],
        ["rows"],
        ["texts"],
    ]


def test_the_command_line_does_the_same_with_a_table(stack: Stack) -> None:
    dataset = stack.cli("datasets", "upload", str(PATIENTS), "--target", "risk")
    job = stack.cli("train", dataset["id"], "--model", "risk-by-cli", "--follow")
    answer = stack.cli(
        "predict", "risk-by-cli", "--version", "1", "--row", "age=80,glucose=9.5,bmi=36,smoker=yes"
    )
    archive = stack.http.get("/api/v1/models/risk-by-cli/versions/1/download").content
    files = zipfile.ZipFile(io.BytesIO(archive))

    assert job["status"] == "succeeded"
    assert answer["predictions"][0]["label"] == "high"
    assert answer["predictions"][0]["missing"] == ["sex"]
    assert {"README.md", "metrics.json", "model/schema.json", "model/model.safetensors"} <= set(
        files.namelist()
    )
    assert "10 values are read otherwise" in files.read("README.md").decode()
    assert json.loads(files.read("model/schema.json"))["target"] == "risk"


def test_the_published_file_trains_as_it_is(stack: Stack) -> None:
    content = published("diabetes/diabetes.csv").read_bytes()

    dataset = uploaded(stack, content)
    summary = trained(stack, dataset, "diabetes")

    report = dataset["table_report"]
    groups = [one["name"] for one in dataset["table_schema"]["columns"] if one["role"] == "group"]
    assert dataset["labels"] == {"N": 103, "P": 53, "Y": 844}
    assert report["by_reason"] == {"blanks": 5, "spelling": 1}
    assert [(one["line"], one["was"], one["became"]) for one in report["first"]][:2] == [
        (104, "N ", "N"),
        (993, "f", "F"),
    ]
    assert groups == ["ID", "No_Pation"]
    assert summary["fine_tuned"]["accuracy"] >= 0.94
    assert summary["majority"]["verdict"] == "better"
