"""The corpus as a whole: which of its rows stay, decided once for all stages from the keys of all parts.

Order of decisions: a row that overlaps an evaluation item is leaked, whatever it repeats; among the rest, equal rows
and verified near-copies repeat the one that stays. Rows of evaluation sets are never compared with each other but
across files, so that a set keeps the size it was published with.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chimed.dedup import exact, find
from chimed.dedup.minhash import BANDS
from chimed.keys import READ, texts
from chimed.records import Split

Ints = npt.NDArray[np.int64]
HELD_OUT: dict[Split, int] = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A finished part: where it lies, what it came from, how many records of each shape it holds.

    files: name and number of units of each file, in the order of the units. Several files are rows of training.
    """

    folder: Path
    source: str
    files: tuple[tuple[str, int], ...]
    rank: int
    split: Split
    kept: dict[str, int]


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided for the rows of one shape, in the order of the parts; all arrays are one entry a row.

    starts: first row of each part (one more entry than parts).
    by: row that this row repeats, or -1. similarity: their Jaccard similarity, exactly; 1 for equal rows.
    leak: number of the evaluation item it overlaps, or -1. share: of that item's n-grams that stand in this row.
    cluster: hash of the cluster of near-copies it belongs to.
    id_hash: hash of its id.
    """

    starts: Ints
    by: Ints
    similarity: npt.NDArray[np.float32]
    leak: npt.NDArray[np.int32]
    share: npt.NDArray[np.float32]
    cluster: npt.NDArray[np.uint64]
    id_hash: npt.NDArray[np.uint64]

    @property
    def stays(self) -> npt.NDArray[np.bool_]:
        """Which rows are neither repeated nor leaked."""
        return (self.by < 0) & (self.leak < 0)

    def part(self, number: int) -> slice:
        """The rows of one part."""
        return slice(int(self.starts[number]), int(self.starts[number + 1]))


@lru_cache(maxsize=1024)
def _table(path: Path) -> pa.Table:
    # Memory-mapped and uncompressed: only the columns and rows that are looked at are read from disk.
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


class Shape:
    """The rows of one shape over all parts, numbered through. gone: which of the last of them are not there."""

    def __init__(self, shape: str, parts: Sequence[Prepared], gone: npt.NDArray[np.bool_] | None = None) -> None:
        self.shape, self.parts, self.gone = shape, parts, gone
        self.starts = np.concatenate([[0], np.cumsum([part.kept.get(shape, 0) for part in parts])]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def column(self, name: str) -> npt.NDArray[np.generic]:
        """One key of every row."""
        pieces = [_table(p.folder / f"{self.shape}.keys.arrow")[name].to_numpy() for p in self.parts if self._has(p)]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.uint64)

    @cached_property
    def _batches(self) -> tuple[list[pa.RecordBatch], Ints]:
        """All records in the pieces in which they were written, and the number of the first of each."""
        tables = (_table(part.folder / f"{self.shape}.arrow") for part in self.parts if self._has(part))
        batches = [batch for table in tables for batch in table.to_batches()]
        return batches, np.cumsum([0, *map(len, batches)])

    def rows(self, numbers: Ints, columns: Sequence[str] | None = None) -> pa.Table:
        """The records with these numbers, ascending."""
        batches, starts = self._batches
        cuts = np.searchsorted(numbers, starts)
        taken = []
        for place in np.flatnonzero(np.diff(cuts)):  # piece by piece: Arrow copies the whole of a table in pieces
            inside = numbers[cuts[place] : cuts[place + 1]] - starts[place]
            batch = batches[place].select(list(columns)) if columns else batches[place]
            taken.append(batch.take(pa.array(inside)))
        return pa.Table.from_batches(taken)

    def texts(self, numbers: Ints) -> pa.Array:
        """The folded texts of the records with these numbers, ascending."""
        return texts(self.shape, self.rows(numbers, READ[self.shape]).combine_chunks())

    def ids(self, numbers: Ints) -> list[str]:
        """The ids of the records with these numbers, ascending."""
        return self.rows(numbers, ["id"])["id"].to_pylist() if len(numbers) else []

    def per_part(self, values: Sequence[int]) -> npt.NDArray[np.int32]:
        """A value of the part for each of its rows."""
        return np.repeat(np.array(values, np.int32), np.diff(self.starts))

    def _has(self, part: Prepared) -> bool:
        return part.kept.get(self.shape, 0) > 0


@dataclass(frozen=True, slots=True)
class Undecided:
    """A task for `settle`: the rows of one shape over all parts, as `Shape` and `decide` take them, and where what is
    decided is to be written."""

    shape: str
    parts: tuple[Prepared, ...]
    gone: npt.NDArray[np.bool_] | None
    near: float | None
    threads: int
    path: Path


def settle(task: Undecided) -> float:
    """Write what is decided for the rows of a task, unless it is there, and the CPU-seconds that it took."""
    began = time.process_time()
    if not task.path.exists():
        partial = task.path.with_name(f"{task.path.name}.partial")
        save(decide(Shape(task.shape, task.parts, task.gone), task.near, task.threads), partial)
        partial.rename(task.path)
    return time.process_time() - began


def decide(shape: Shape, near: float | None, threads: int = 1) -> Decision:
    """Decide for every row of a shape; texts are compared in so many threads.

    near: the Jaccard similarity from which two rows are one; None keeps all rows of training, equal ones too.
    """
    count = len(shape)
    leak = shape.column("leak").astype(np.int32)
    id_hash = shape.column("id_hash").astype(np.uint64)
    group = shape.column("group").astype(np.uint64)
    equal = np.stack([shape.column("high"), shape.column("low")], 1).astype(np.uint64)
    held_out = shape.per_part([HELD_OUT[part.split] for part in shape.parts])
    order = _order(shape)
    by = np.full(count, -1, np.int64)
    similarity = np.zeros(count, np.float32)
    cluster = id_hash.copy()

    there = np.ones(count, np.bool_)
    if shape.gone is not None:
        there[count - len(shape.gone) :] = ~shape.gone
        leak[count - len(shape.gone) :] = -1  # into items of another build
    rows = np.flatnonzero((leak < 0) & (held_out == 0) & there & (near is not None))
    repeats = exact(equal[rows], group[rows], order[rows])
    by[rows[repeats >= 0]] = rows[repeats[repeats >= 0]]
    similarity[rows[repeats >= 0]] = 1

    rest = rows[repeats < 0]
    bands = (shape.column(f"b{band:02d}").astype(np.uint64)[rest] for band in range(BANDS))
    found = find(
        bands, group[rest], order[rest], lambda few: shape.texts(rest[few]), threshold=near or 1, workers=threads
    )
    dropped = found.by >= 0
    by[rest[dropped]] = rest[found.by[dropped]]
    similarity[rest[dropped]] = found.similarity[dropped]
    cluster[rest] = id_hash[rest[found.component]]
    _settle(by, similarity)
    _evaluation_repeats(shape, held_out, leak, equal, order, by)
    similarity[(by >= 0) & (held_out > 0)] = 1
    return Decision(shape.starts, by, similarity, leak, shape.column("share").astype(np.float32), cluster, id_hash)


def _order(shape: Shape) -> Ints:
    """Place of each row in the order of who stays: rank of its source, then the longer text, then file and row."""
    ranks = shape.per_part([part.rank for part in shape.parts])
    by_order = np.lexsort((-shape.column("length").astype(np.int64), ranks))
    order = np.empty(len(by_order), np.int64)
    order[by_order] = np.arange(len(by_order))
    return order


def _settle(by: Ints, similarity: npt.NDArray[np.float32]) -> None:
    """An equal row repeats the row that is kept in the end, not one that was dropped as a near-copy itself."""
    chained = np.flatnonzero(by >= 0)
    chained = chained[by[by[chained]] >= 0]
    similarity[chained] = similarity[by[chained]]
    by[chained] = by[by[chained]]


def _evaluation_repeats(
    shape: Shape,
    held_out: npt.NDArray[np.int32],
    leak: npt.NDArray[np.int32],
    equal: npt.NDArray[np.uint64],
    order: Ints,
    by: Ints,
) -> None:
    """Mark rows of an evaluation set that stand in another file already: two circulating forms of one set."""
    names = [(part.source, part.files[0][0]) for part in shape.parts]
    files = {name: number for number, name in enumerate(sorted(set(names)))}
    file = shape.per_part([files[name] for name in names])
    rows = np.flatnonzero((held_out > 0) & (leak < 0))
    repeats = exact(equal[rows], held_out[rows].astype(np.uint64), order[rows])
    found = np.flatnonzero(repeats >= 0)
    first = rows[repeats[found]]
    other = file[first] != file[rows[found]]
    by[rows[found[other]]] = first[other]


def save(decision: Decision, path: Path) -> None:
    """Write a decision."""
    names = [name for name in Decision.__slots__ if name != "starts"]
    table = pa.table({name: getattr(decision, name) for name in names})
    table = table.replace_schema_metadata({"starts": json.dumps(decision.starts.tolist())})
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table)


@lru_cache(maxsize=8)
def read(path: Path) -> Decision:
    """A decision that `save` wrote."""
    table = _table(path)
    starts = np.array(json.loads(table.schema.metadata[b"starts"]), np.int64)
    return Decision(starts, **{name: table[name].to_numpy() for name in table.column_names})
