"""The ledger: one row for every unit that was read, with its verdict, so that nothing vanishes.

A unit is a record, or a raw row (or one record of it) that was rejected. Columns: `id, source, file, verdict (kept |
rejected | repeated | leaked), reason, by, detail`; `by` is the id of the kept row that a repeated one repeats, or of
the evaluation item that a leaked one overlaps; `detail` says what was found, the similarity or the share.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from chimed import corpus
from chimed.corpus import Decision, Prepared, Shape
from chimed.errors import SourceError
from chimed.records import SHAPES

VERDICTS = ("kept", "rejected", "repeated", "leaked")
LEDGER = pa.schema([(name, pa.string()) for name in ("id", "source", "file", "verdict", "reason", "by", "detail")])
MOST = 1000  # files of a source that manifests count one by one
Counts = dict[str, dict[str, dict[str, int]]]


@dataclass(frozen=True, slots=True)
class Write:
    """A task for `write`. items: the id of each evaluation item, by its number. earlier: parts of earlier builds."""

    parts: tuple[Prepared, ...]
    earlier: tuple[Prepared, ...]
    decisions: Path  # folder of <shape>.arrow written by corpus.save
    items: pa.Array
    path: Path


def write(task: Write) -> Counts:
    """Write the ledger of these parts; the number of units by source, file and verdict."""
    parts, items = task.parts, task.items
    decisions = {shape: corpus.read(task.decisions / f"{shape}.arrow") for shape in SHAPES}
    named = {shape: _names(Shape(shape, (*parts, *task.earlier)), decision) for shape, decision in decisions.items()}
    counts: Counts = {}
    partial = task.path.with_name(task.path.name + ".partial")
    with pq.ParquetWriter(partial, LEDGER, compression="zstd") as writer:
        for number, part in enumerate(parts):
            units = pa.ipc.open_file(pa.memory_map(str(part.folder / "units.arrow"))).read_all().combine_chunks()
            verdict, by, detail = _verdicts(units, number, decisions, named, items)
            of_file = np.repeat(np.arange(len(part.files)), [count for _, count in part.files])
            found = np.bincount(of_file * len(VERDICTS) + verdict, minlength=len(part.files) * len(VERDICTS))
            for (file, read), one in zip(part.files, found.reshape(-1, len(VERDICTS)).tolist(), strict=True):
                own = counts.setdefault(part.source, {}).setdefault(file, {"read": 0, **dict.fromkeys(VERDICTS, 0)})
                own["read"] += read
                for name, count in zip(VERDICTS, one, strict=True):
                    own[name] += count
            source = pa.repeat(part.source, len(units))
            files = pa.array([name for name, _ in part.files], pa.string()).take(pa.array(of_file))
            verdicts = pa.array(VERDICTS).take(pa.array(verdict))
            columns = [units["id"], source, files, verdicts, units["reason"], by, detail]
            writer.write_table(pa.Table.from_arrays(columns, schema=LEDGER))
    partial.rename(task.path)
    return {source: _summed(files) for source, files in counts.items()}


def _summed(files: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """The counts of a source by file, or where they are very many, of all of them together."""
    if len(files) <= MOST:
        return files
    return {f"{len(files)} files": {name: sum(own[name] for own in files.values()) for name in ("read", *VERDICTS)}}


def _names(shape: Shape, decision: Decision) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """The rows that others repeat, ascending, and their ids."""
    named = np.zeros(len(decision.by), bool)
    named[decision.by[decision.by >= 0]] = True
    rows = np.flatnonzero(named)
    return rows, pa.array(shape.ids(rows), pa.string())


def _verdicts(
    units: pa.Table,
    number: int,
    decisions: dict[str, Decision],
    named: dict[str, tuple[npt.NDArray[np.int64], pa.Array]],
    items: pa.Array,
) -> tuple[npt.NDArray[np.int8], pa.Array, pa.Array]:
    """Verdict, by and detail of each unit of a part."""
    shapes = units["shape"].to_numpy()
    rows = units["row"].to_numpy()
    verdict = np.where(rows < 0, 1, 0).astype(np.int8)
    by: npt.NDArray[np.object_] = np.full(len(units), None, object)
    detail = np.asarray(units["detail"].to_numpy(zero_copy_only=False), object)
    for place, shape in enumerate(SHAPES):
        at = np.flatnonzero((shapes == place) & (rows >= 0))
        if not len(at):
            continue
        decision = decisions[shape]
        own = decision.starts[number] + rows[at]
        leak, repeat = decision.leak[own], decision.by[own]
        leaked, repeated = leak >= 0, (leak < 0) & (repeat >= 0)
        verdict[at[leaked]], verdict[at[repeated]] = 3, 2
        by[at[leaked]] = items.take(pa.array(leak[leaked])).to_numpy(zero_copy_only=False)
        kept_rows, ids = named[shape]
        by[at[repeated]] = ids.take(pa.array(np.searchsorted(kept_rows, repeat[repeated]))).to_numpy(
            zero_copy_only=False
        )
        detail[at[leaked]] = _told("share", decision.share[own[leaked]])
        detail[at[repeated]] = _told("similarity", decision.similarity[own[repeated]])
    return verdict, pa.array(by, pa.string()), pa.array(detail, pa.string())


def _told(word: str, numbers: npt.NDArray[np.float32]) -> npt.NDArray[np.object_]:
    """Numbers in words; each one that occurs is worded once."""
    some, which = np.unique(numbers, return_inverse=True)
    return np.array([f"{word} {number:.3f}" for number in some], object)[which]


def look_up(path: Path, name: str) -> pa.Table:
    """The ledger rows of an id, or of all records of a raw row (`file#row`); empty when there is none.

    Raises SourceError when there is no ledger.
    """
    if not path.exists():
        raise SourceError(f"{path}: no ledger here; name the folder of a build with --out, or run chimed build first")
    field = ds.field("id")
    return ds.dataset(path).to_table(filter=(field == name) | pc.starts_with(field, f"{name}/"))
