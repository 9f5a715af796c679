"""Writes the example of a table: invented patients with a few flaws, the same bytes every time."""

import csv
import io
import random
from pathlib import Path
from typing import Final

ROWS: Final = 500
PATIENTS: Final = 430  # some come again
SEED: Final = 7
COLUMNS: Final = ("patient_id", "age", "glucose", "bmi", "smoker", "sex", "risk")
PLACE: Final = Path(__file__).parent.parent / "examples" / "patients.csv"


def table(visits: int = ROWS) -> bytes:
    """Risk follows from age, glucose, body-mass index and smoking, with some noise."""
    chance = random.Random(SEED)
    rows = [_visit(chance, chance.randrange(visits * PATIENTS // ROWS)) for _ in range(visits)]
    for at, column, text in _flaws():
        rows[at][column] = text
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def _visit(chance: random.Random, patient: int) -> dict[str, str]:
    person = random.Random(f"{SEED} {patient}")  # the same at every visit
    age, sex = person.randint(20, 85), person.choice(("female", "male"))
    smoker = person.choice(("yes", "no", "no", "former"))
    bmi = round(person.gauss(27, 4.5), 1)
    glucose = round(max(3.5, person.gauss(5.0, 0.7) + 0.09 * (bmi - 25) + chance.gauss(0, 0.5)), 1)
    habit = {"yes": 1.2, "former": 0.4, "no": 0.0}[smoker]
    score = 0.05 * (age - 50) + 0.9 * (glucose - 5.4) + 0.08 * (bmi - 26) + habit
    score += 1.2 * (glucose > 6.2 and bmi > 29) + chance.gauss(0, 0.35)
    risk = "low" if score < 0.2 else "medium" if score < 1.6 else "high"
    values = (f"{10_000 + 17 * patient}", age, glucose, bmi, smoker, sex, risk)
    return dict(zip(COLUMNS, map(str, values), strict=True))


def _flaws() -> tuple[tuple[int, str, str], ...]:
    """What real tables have: blanks, other spellings, cells without a number."""
    return (
        (11, "sex", "Female"),
        (42, "risk", "high "),
        (87, "bmi", ""),
        (130, "bmi", "n/a"),
        (131, "smoker", ""),
        (204, "glucose", "5,9"),
        (205, "glucose", "high"),
        (260, "risk", "LOW"),
        (333, "smoker", " no"),
        (401, "age", "61 "),
    )


if __name__ == "__main__":
    PLACE.write_bytes(table())
    print(f"{PLACE}: {len(table()):,} bytes")
