"""Which rows of a table have to stay on one side of a split: those of one person, and equal ones."""

import hashlib
import json
from collections.abc import Iterable, Sequence

from domain.datasets.table_scan import TableRow


def inputs_key(row: TableRow) -> bytes:
    """The same for two rows that a model cannot tell apart."""
    content = json.dumps(sorted(row.values.items()), ensure_ascii=False)
    return hashlib.blake2b(content.encode(), digest_size=16, person=b"inputs").digest()


def row_keys(row: TableRow) -> list[bytes]:
    """What a row has in common with others: its inputs, and each of its group values."""
    keys = [inputs_key(row)]
    for number, value in enumerate(row.groups):
        if value:
            content = f"{number}:{value}".encode()
            digest = hashlib.blake2b(content, digest_size=16, person=b"group")
            keys.append(digest.digest())
    return keys


class RowGroups:
    """Joins rows that share a key, however long the chain from one to the other."""

    def __init__(self) -> None:
        self._parent: dict[bytes, bytes] = {}
        self._firsts: list[bytes] = []  # one key of every row

    def add(self, keys: Sequence[bytes]) -> None:
        self._firsts.append(keys[0])
        roots = [self._root(key) for key in keys]
        least = min(roots)  # so that a group has the same name whatever the order of its rows
        for root in roots:
            self._parent[root] = least

    def of_rows(self) -> list[bytes]:
        """The group of each row, in the order they were added."""
        return [self._root(key) for key in self._firsts]

    def _root(self, key: bytes) -> bytes:
        self._parent.setdefault(key, key)
        while (above := self._parent[key]) != key:
            self._parent[key] = self._parent[above]
            key = self._parent[key]
        return key


def group_rows(rows: Iterable[TableRow]) -> list[bytes]:
    groups = RowGroups()
    for row in rows:
        groups.add(row_keys(row))
    return groups.of_rows()


def leaked_table_rows(training: Sequence[TableRow], test: Iterable[TableRow]) -> list[int]:
    """Indices of the training rows that share their inputs or a group with a row of the test."""
    tested = {key for row in test for key in row_keys(row)}
    return [index for index, row in enumerate(training) if not tested.isdisjoint(row_keys(row))]
