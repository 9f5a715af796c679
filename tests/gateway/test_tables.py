"""Tables over HTTP: uploaded with their columns' uses, and what of a row is refused by its field."""

from typing import Any

import pytest

from domain.datasets.tables import TableColumn, TableSchema
from gateway.problems import Problem
from gateway.table_choices import chosen, table_choice
from gateway.table_rows import checked_rows
from tests.gateway.world import World

SCHEMA = TableSchema(
    target="risk",
    target_why="chosen",
    classes=("high", "low"),
    columns=(
        TableColumn(name="patient", role="group", why="chosen"),
        TableColumn(name="age", role="numeric", why="chosen"),
        TableColumn(name="ward", role="categorical", why="chosen", categories=("1", "2b")),
        TableColumn(name="note", role="ignored", why="chosen"),
    ),
).model_dump(mode="json")


def table(rows: int = 40, delimiter: str = ",") -> bytes:
    lines = ["patient id;age;ward, floor;risk"]
    lines += [
        f"{at % 30};{20 + at};{'ab'[at % 2]};{'low' if at % 3 else 'High '}" for at in range(rows)
    ]
    quoted = [line.replace("ward, floor", '"ward, floor"') for line in lines]
    return "\n".join(quoted).replace(";", delimiter).encode()


async def upload(world: World, content: bytes, **query: str) -> Any:
    async with world.client("editor") as client:
        headers = {"Content-Type": "text/csv"}
        return await client.post("/api/v1/datasets", params=query, content=content, headers=headers)


async def test_a_table_is_uploaded_with_what_its_columns_are_for(world: World) -> None:
    answer = await upload(
        world, table(), target="risk", categorical='"ward, floor"', group="patient id"
    )

    made = answer.json()
    assert (answer.status_code, made["kind"]) == (201, "tabular")
    assert made["labels"] == {"High": 14, "low": 26}
    assert made["table_schema"]["target"] == "risk"
    assert {one["name"]: (one["role"], one["why"]) for one in made["table_schema"]["columns"]} == {
        "patient id": ("group", "chosen"),
        "age": ("numeric", "all of its values are numbers"),
        "ward, floor": ("categorical", "chosen"),
    }


async def test_a_form_says_the_same(world: World) -> None:
    fields = {"target": "risk", "ignored": "age", "numeric": "patient id"}
    async with world.client("editor") as client:
        answer = await client.post(
            "/api/v1/datasets", data=fields, files={"file": ("patients.csv", table(), "text/csv")}
        )

    roles = {one["name"]: one["role"] for one in answer.json()["table_schema"]["columns"]}
    assert answer.status_code == 201
    assert roles == {"patient id": "numeric", "age": "ignored", "ward, floor": "categorical"}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"schema": "weather"}, "schema"),
        ({"numeric": ""}, "numeric"),
        ({"numeric": "age,,ward"}, "numeric"),
        ({"ignored": '"age'}, "ignored"),
        ({"target": "risk", "kind": "chat"}, "kind"),
        ({"target": "risk", "text_column": "age"}, "text_column"),
        ({"kind": "tabular", "text_column": "age"}, "text_column"),
    ],
)
async def test_what_cannot_be_meant_is_refused_by_field(
    world: World, query: dict[str, str], field: str
) -> None:
    answer = await upload(world, table(), **query)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert world.files() == []


async def test_a_column_that_is_not_there_is_told_with_those_that_are(world: World) -> None:
    answer = await upload(world, table(), target="outcome")

    problem = answer.json()["problems"][0]
    assert (answer.status_code, problem["code"], problem["field"]) == (
        422,
        "missing_column",
        "outcome",
    )
    assert '"patient id", "age", "ward, floor", "risk"' in problem["message"]


async def test_rows_are_shown_as_training_reads_them(world: World) -> None:
    made = (await upload(world, table(delimiter=";"), target="risk")).json()

    async with world.client("viewer") as client:
        found = (
            await client.get(f"/api/v1/datasets/{made['id']}/rows", params={"limit": 2})
        ).json()

    assert found["items"] == [
        {"line": 2, "values": {"age": 20.0, "ward, floor": "a"}, "label": "High"},
        {"line": 3, "values": {"age": 21.0, "ward, floor": "b"}, "label": "low"},
    ]


def test_rows_are_completed_and_cleaned_by_the_schema() -> None:
    rows = checked_rows(
        SCHEMA,
        [
            {"AGE": 41, "ward": " 2B"},
            {"age": None, "ward": 1, "note": "as before", "patient": 7, "risk": "low"},
            {"ward": "cellar"},
        ],
    )

    assert rows == (
        {"age": 41.0, "ward": "2b"},
        {"age": None, "ward": "1"},
        {"age": None, "ward": None},
    )


@pytest.mark.parametrize(
    ("row", "field", "said"),
    [
        ({"age": "41"}, "rows[0].age", 'a finite number or null, not "41"'),
        ({"age": True}, "rows[0].age", 'a finite number or null, not "true"'),
        ({"age": 10**400}, "rows[0].age", "a finite number or null"),
        ({"height": 180}, "rows[0].height", 'the model is asked with "age", "ward"'),
        ({"age": 1, "Age": 2}, "rows[0].Age", "stands there twice"),
    ],
)
def test_a_value_of_another_type_is_refused_by_field(
    row: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(Problem) as refused:
        checked_rows(SCHEMA, [row])

    (wrong,) = refused.value.extras["errors"]
    assert wrong["field"] == field
    assert said in wrong["message"]


def test_names_are_parted_as_a_line_of_csv_is() -> None:
    choice = table_choice(numeric='age, "weight, kg"', target="risk", group=None)

    assert choice.numeric == ("age", "weight, kg")
    assert (choice.target, choice.group) == ("risk", ())
    assert chosen(choice, "schema", "diabetes").shipped == "diabetes"
