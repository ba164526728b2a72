"""Rows joined with what other files of their source say about them: an answer with its question, an id with its split.

A looked-up file is held in memory as a table by key: about 300 bytes and its text for each key, at most `HELD` bytes in
all. It is loaded when the first row asks for it.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache

from chimed.errors import RowError, SourceError
from chimed.records import SPLITS, Split
from chimed.sources.archives import RawFile
from chimed.sources.spec import Lookup, Row, Source, first

HELD = 1 << 30

Numbered = Iterable[tuple[int, Row | RowError]]


@dataclass(slots=True)
class Table:
    """What the files of a lookup say: key -> the values of its columns, in their order.

    names: of the files. fault: what is wrong with the first row that could not be taken, if any. size: bytes held.
    """

    lookup: Lookup
    names: list[str] = field(default_factory=list)
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    fault: str = ""
    size: int = 0

    def add(self, name: str, rows: Numbered) -> None:
        """Add the rows of a file; of two with one key the first counts. Raises SourceError when there are too many.

        >>> table = Table(Lookup(("q.csv",), ("a.csv",), "id", {"content": "question"}))
        >>> table.add("q.csv", [(1, {"id": 7, "content": "牙疼怎么办？"}), (2, {"id": 7, "content": "头疼"})])
        >>> table.values
        {'7': ('牙疼怎么办？',)}
        """
        self.names.append(name)
        for number, row in rows:
            if isinstance(row, RowError):
                self.fault = self.fault or f"{name}#{number}: {row}"
                continue
            key = first(row, self.lookup.key)
            if key in self.values:
                continue
            if not key or not self.lookup.columns.keys() <= row.keys():
                expected = ", ".join((self.lookup.key, *self.lookup.columns))
                self.fault = self.fault or f"{name}#{number}: found {', '.join(map(str, row))}; expected {expected}"
                continue
            said = tuple(first(row, column) for column in self.lookup.columns)
            self.size += 100 + sum(map(sys.getsizeof, (key, said, *said)))  # 100 for the entry itself, roughly
            if self.size > HELD:
                raise SourceError(
                    f"{name}: too large to be looked up, over {HELD:,} bytes; join it by {self.lookup.key} "
                    f"with {' or '.join(self.lookup.into)} by hand"
                )
            self.values[key] = said


Load = Callable[[int], Table]  # the table of a lookup, by its number


def joined(source: Source, file: RawFile, rows: Numbered, load: Load) -> Iterator[tuple[int, Row | RowError]]:
    """The rows of a file that are of its split, each with what the lookups of the source say of it.

    A file is listed once for each split that its rows can be of. Over all listings each row is given once: by the one
    of its split, or, where no list tells it, by the one with `file.rest`.
    """
    load = cache(load)
    asked = [(lookup, place) for place, lookup in enumerate(source.lookups) if file.joins[place] is not None]
    lists = [entry for split in reversed(SPLITS) for entry in asked if entry[0].split == split]
    if not file.rest:  # what the lists behind its own say is for other listings of the file
        lists = [entry for entry in lists if entry[0].split in SPLITS[SPLITS.index(file.split) :]]
    fills = [entry for entry in asked if entry[0].columns]
    for number, row in rows:
        found, split = row, None
        if not isinstance(row, RowError):
            try:
                split = _split(row, lists, load)
                if split in {None, file.split}:
                    _fill(row, fills, load)
            except RowError as fault:
                found = fault
        if split == file.split or (split is None and file.rest):
            yield number, found


def _split(row: Row, lists: list[tuple[Lookup, int]], load: Load) -> Split | None:
    """The split of the first list that names the row; None where the row lacks the key of them all."""
    tables = []
    for lookup, place in lists:
        if lookup.key in row:
            tables.append(load(place))
            if not tables[-1].names:
                raise _missing(row, tables[-1:])
            if first(row, lookup.key) in tables[-1].values:
                return lookup.split
    if tables:
        raise _missing(row, tables)
    return None


def _fill(row: Row, fills: list[tuple[Lookup, int]], load: Load) -> None:
    """Give the row what it has nothing of itself."""
    for lookup, place in fills:
        lacking = {name: at for at, name in enumerate(lookup.columns.values()) if not first(row, name)}
        if lookup.key in row and lacking:
            table = load(place)
            said = table.values.get(first(row, lookup.key))
            if said is None:
                raise _missing(row, [table])
            row.update({name: said[at] for name, at in lacking.items()})


def _missing(row: Row, tables: list[Table]) -> RowError:
    """The reject of a row that stands in none of these tables."""
    lookup = tables[0].lookup
    names = ", ".join(name for table in tables for name in table.names)
    faults = "".join(f"; not read there: {table.fault}" for table in tables if table.fault)
    detail = f"{lookup.key} {first(row, lookup.key)!r} does not stand in {names}{faults}"
    if not names:
        wanted = " or ".join(glob.removeprefix("**/") for glob in lookup.files)
        detail = f"needs {wanted}, which is not there, to be joined by {lookup.key}"
    return RowError("not-joined", detail, held=first(row, lookup.held) if lookup.held else "")
