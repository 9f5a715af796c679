"""What a table holds, counted row by row without keeping its values."""

from collections import Counter

from domain.datasets.table_groups import RowGroups, inputs_key, row_keys
from domain.datasets.table_rows import Cleanings
from domain.datasets.table_scan import TableRow
from domain.datasets.tables import TableReport


class TableReportBuilder:
    def __init__(self) -> None:
        self._labels: dict[bytes, set[str]] = {}  # the targets of each set of inputs
        self._groups = RowGroups()
        self.duplicate_rows = 0  # inputs and target stood in an earlier row

    @property
    def conflicting_inputs(self) -> int:
        """Equal inputs that stand with different targets."""
        return sum(len(labels) > 1 for labels in self._labels.values())

    def add(self, row: TableRow) -> None:
        labels = self._labels.setdefault(inputs_key(row), set())
        self.duplicate_rows += row.label in labels
        labels.add(row.label)
        self._groups.add(row_keys(row))

    def build(self, cleanings: Cleanings) -> TableReport:
        sizes = Counter(self._groups.of_rows())
        return TableReport(
            cleaned=cleanings.count,
            by_reason=dict(sorted(cleanings.by_reason.items())),
            first=tuple(cleanings.first),
            missing=dict(sorted(cleanings.missing.items())),
            groups=len(sizes),
            largest_group=max(sizes.values(), default=0),
        )
