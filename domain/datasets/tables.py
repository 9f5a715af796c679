"""What a table's columns are for: numbers, categories, the target, groups of rows, or nothing."""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

MIN_ROWS: Final = 10  # fewer say nothing about rows that were held out
# An event has 64 KiB: a job's holds the schema once, and the names of the classes four times.
MAX_COLUMNS: Final = 500
MAX_SCHEMA_BYTES: Final = 20 * 1024
MAX_CLASSES: Final = 100
MAX_CLASS_BYTES: Final = 4 * 1024
MAX_CATEGORIES: Final = 50  # of one column; more is a text, a date or a name
MAX_CATEGORY_CHARS: Final = 200

ColumnRole = Literal["numeric", "categorical", "group", "ignored"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TableColumn(_Part):
    """One column but the target, and why it is used as it is."""

    name: str
    role: ColumnRole
    why: str  # "chosen", or the rule that told it
    categories: tuple[str, ...] = ()  # sorted; of a categorical column


class TableSchema(_Part):
    """How a table is read: the same schema cleans the rows of training, of a test and of a question.

    A missing number takes the median of the training rows; a missing category is none of those that
    are known, and so is one that training has not seen.
    """

    target: str
    target_why: str
    classes: tuple[str, ...]  # sorted
    spellings: dict[str, str] = {}  # further names of a class, in lower case
    columns: tuple[TableColumn, ...]  # in the order of the file

    @property
    def inputs(self) -> tuple[TableColumn, ...]:
        """What a model is asked with."""
        return tuple(each for each in self.columns if each.role in {"numeric", "categorical"})

    @property
    def groups(self) -> tuple[str, ...]:
        """Columns whose equal values keep rows on one side of a split."""
        return tuple(each.name for each in self.columns if each.role == "group")


class TableChoice(_Part):
    """What was said about the columns of a file; what was not is told by rule."""

    shipped: str | None = None  # the name of one of `SHIPPED`
    target: str | None = None
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def chosen(self) -> bool:
        return self != TableChoice()


class ShippedTable(_Part):
    """A schema that is known by name; columns that it does not name are not used."""

    target: str
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    spellings: dict[str, str]  # of the classes, in lower case


# Rashid 2020, "Diabetes Dataset", Mendeley Data wj9rwkp9c2: N is no diabetes, P is before it.
DIABETES: Final = ShippedTable(
    target="CLASS",
    numeric=("HbA1c", "AGE", "BMI"),
    categorical=("Gender",),
    spellings={
        "non-diabetic": "N",
        "non diabetic": "N",
        "nondiabetic": "N",
        "no diabetes": "N",
        "normal": "N",
        "prediabetic": "P",
        "pre-diabetic": "P",
        "pre diabetic": "P",
        "prediabetes": "P",
        "predict-diabetic": "P",
        "predicted diabetic": "P",
        "diabetic": "Y",
        "diabetes": "Y",
    },
)
SHIPPED: Final[dict[str, ShippedTable]] = {"diabetes": DIABETES}


class Cleaning(_Part):
    """One value that is read otherwise than it stands in the file."""

    line: int
    column: str
    was: str  # cut where it is long
    became: str | None  # None: it counts as missing
    why: Literal["blanks", "spelling", "decimal_comma", "unreadable", "missing", "unknown"]


class TableCounts(_Part):
    """How much was cleaned, and is missing, over a whole file; no value is quoted."""

    cleaned: int  # values
    by_reason: dict[str, int]
    missing: dict[str, int]  # by column, of those with any
    groups: int  # of rows that stay together: one group value, or the same inputs
    largest_group: int  # rows


class TableReport(TableCounts):
    """The same, and what was cleaned first."""

    first: tuple[Cleaning, ...]  # up to a hundred, in the order of the file

    @property
    def counts(self) -> TableCounts:
        return TableCounts(**self.model_dump(exclude={"first"}))

    def quoting(self, *, nothing: bool) -> "TableReport":
        """The same, without what stands in the file where that must not be quoted."""
        return self.model_copy(update={"first": ()}) if nothing else self
