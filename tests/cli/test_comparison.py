"""How an evaluation is shown: which figures, and what may be concluded from them."""

import json

from finetrail.cli import views
from finetrail.cli.comparison import comparison
from finetrail.client import Evaluation, EvaluationSummary, Model, Version
from tests.cli import answers
from tests.cli.conftest import Cli
from tests.cli.fake_server import FakeServer, Reply


def test_a_classifier_is_shown_beside_its_untrained_self() -> None:
    summary = EvaluationSummary.model_validate(answers.evaluation()["summary"])

    table = comparison(summary, "intents 1")

    assert [row[0] for row in table.rows] == ["untrained", "base", "fine-tuned", "difference"]
    assert table.rows[-1][:3] == ("difference", "+8.0", "+8.0")
    assert "+4.0 to +12.0 points, p = 0.0005: better" in table.note
    assert "logistic regression" in table.note


def test_a_language_model_with_labels_is_judged_by_right_answers() -> None:
    summary = EvaluationSummary.model_validate(answers.language_summary())

    table = comparison(summary, "support 1")

    assert table.headings == (
        "", "accuracy", "F1", "exact answers", "perplexity", "bits a byte", "first token"
    )  # fmt: skip
    assert [row[0] for row in table.rows] == ["base", "fine-tuned", "difference"]
    assert table.rows[1] == ("fine-tuned", "74.0 %", "0.700", "73.0 %", "3.50", "0.250", "4.2 ms")
    assert table.rows[2] == ("difference", "+56.0", "+0.600", "+56.0", "", "-2.250", "")
    assert table.title == "support 1, on 171 held-out rows"
    assert "+49.0 to +63.0 points, p = 0.0005: better" in table.note
    assert "same model without the adapter" in table.note


def test_a_language_model_without_labels_is_judged_by_bits_a_byte() -> None:
    summary = EvaluationSummary.model_validate(answers.free_text_summary())

    table = comparison(summary, "support 1")

    assert table.headings == ("", "exact answers", "perplexity", "bits a byte", "first token")
    assert table.title == "support 1, on 171 held-out rows; 100 of them answered"
    assert "-0.310 to -0.190 bits a byte, less is better: better" in table.note
    assert "p = 1" in table.note


def test_lists_show_what_the_verdict_is_about() -> None:
    by_bits = Evaluation.model_validate(answers.evaluation(summary=answers.free_text_summary()))
    by_accuracy = Evaluation.model_validate(answers.evaluation())
    version = Version.model_validate(answers.version(evaluation=answers.free_text_summary()))
    waiting = Version.model_validate(answers.version(evaluation={"status": "running"}))

    rows = views.evaluations([by_bits, by_accuracy]).rows
    of_versions = views.versions([version, waiting], Model.model_validate(answers.model())).rows

    assert [row[4] for row in rows] == ["2.250 bits a byte", "98.0 % right"]
    assert [row[4] for row in of_versions] == ["2.250 bits a byte", ""]


def test_the_commands_show_an_evaluation_of_a_language_model(server: FakeServer, cli: Cli) -> None:
    measured = answers.evaluation(summary=answers.language_summary())
    server.on("GET", "/api/v1/evaluations/e1", Reply(json=measured))

    told = cli("evaluations", "e1").stdout
    as_json = json.loads(cli("evaluations", "e1", "--json").stdout)

    assert "bits a byte" in told
    assert "same model without the adapter" in told
    assert as_json["summary"]["untrained"] is None
    assert as_json["summary"]["fine_tuned"]["bits_per_byte"] == 0.25
