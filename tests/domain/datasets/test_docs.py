"""The reference of dataset formats says what the code does."""

import re
from pathlib import Path

from domain.datasets.checks import LABEL_NAMES, TEXT_NAMES

ROOT = Path(__file__).parents[3]
REFERENCE = (ROOT / "docs" / "reference" / "dataset-formats.md").read_text(encoding="utf-8")
MODULES = sorted((ROOT / "domain" / "datasets").glob("*.py"))


def test_every_problem_code_is_in_the_reference() -> None:
    table = REFERENCE.partition("| code | what is wrong |")[2].partition("## ")[0]
    described = set(
        re.findall(r"`([a-z0-9_]+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE)))
    )
    source = "".join(module.read_text(encoding="utf-8") for module in MODULES)

    assert {code for code in described if f'"{code}"' not in source} == set()
    raised = re.findall(r'\b(?:add|stop)\(\s*(?:\w+(?:\.\w+)*(?: \+ \w+)?),\s*"(\w+)"', source)
    assert len(raised) > 20
    assert set(raised) - described == set()


def test_names_of_columns_are_listed_in_the_order_in_which_they_are_tried() -> None:
    for role, names in (("text", TEXT_NAMES), ("label", LABEL_NAMES)):
        assert f"| {role} | {', '.join(f'`{name}`' for name in names)} |" in REFERENCE
