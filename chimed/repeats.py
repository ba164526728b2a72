"""Equal and near-equal texts in any Parquet or JSON-lines files: the engine behind `chimed dedup`.

Files are read in the order given, a few megabytes at a time. The folded texts and their keys are spilled to a file
beside the result and mapped back where they pass 256 MB, so that memory does not grow with the texts: it holds that, a
few batches and about 150 bytes a row, the disk for the time being a copy of the texts and 136 bytes a row. Threads
share the work: the kernels hold no lock. Neither their number nor the cutting into batches shows in the result.

Of rows that are alike the first in the order of files and rows stays. Whatever has no text (empty, null, a line that
is no JSON object) stays as well, and is counted.
"""

import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from chimed.characters import tables
from chimed.dedup import band_keys, exact, exact_keys, find
from chimed.dedup.minhash import BANDS
from chimed.errors import BuildError, SourceError
from chimed.text import fold
from chimed.textfiles import Batch, TextFile, opened

Ints = npt.NDArray[np.int64]
Step = Callable[[str, int], Callable[[int], None]]

HELD = 256 << 20  # bytes of texts and keys that are held in memory before they go to disk
_OWN = {"kept", "removed.parquet", "dedup.json", ".work"}
_KEYS = ("high", "low", *(f"b{band:02d}" for band in range(BANDS)))
_SPILLED = pa.schema([("text", pa.string()), *((name, pa.uint64()) for name in _KEYS)])


@dataclass(slots=True)
class Counts:
    """What was found: rows in all, without text, not readable; rows removed as equal or near-equal; rows that stay.

    files: rows and kept rows of each file. faults: where the first unreadable lines stand. seconds: wall time a step.
    """

    rows: int = 0
    empty: int = 0
    unreadable: int = 0
    equal: int = 0
    near: int = 0
    kept: int = 0
    files: dict[str, dict[str, int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line for the terminal."""
        odd = f", {self.empty:,} without text" if self.empty else ""
        odd += f", {self.unreadable:,} unreadable ({'; '.join(self.faults)})" if self.unreadable else ""
        return (
            f"{self.kept:,} of {self.rows:,} rows kept{odd}; "
            f"{self.equal:,} equal and {self.near:,} near-equal ones removed in {sum(self.seconds.values()):.1f} s"
        )


class _Spill:
    """The folded texts and keys of all rows: in memory while they are few, else mapped from a file at `path`."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        self.batches: list[pa.RecordBatch] = []
        self.file: pa.ipc.RecordBatchFileWriter | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Take some more rows."""
        self.batches.append(batch)
        self.size += batch.nbytes
        if self.size > HELD:
            self.file = self.file or pa.ipc.new_file(self.path, _SPILLED)
            for held in self.batches:
                self.file.write_batch(held)
            self.batches.clear()

    def close(self) -> None:
        """No more rows: from here on they can be read."""
        if self.file:
            self.file.close()
            reader = pa.ipc.open_file(pa.memory_map(str(self.path)))
            self.batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self.starts = np.cumsum([0, *(len(batch) for batch in self.batches)])

    def column(self, name: str) -> npt.NDArray[np.uint64]:
        """One key of every row."""
        pieces = [batch[name].to_numpy() for batch in self.batches]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.uint64)

    def texts(self, rows: Ints) -> pa.StringArray:
        """The folded texts of these rows, ascending."""
        cuts = np.searchsorted(rows, self.starts)
        found = [
            batch["text"].take(_arrow(rows[cuts[place] : cuts[place + 1]] - self.starts[place]))
            for place, batch in enumerate(self.batches)
            if cuts[place] < cuts[place + 1]
        ]
        return pa.concat_arrays(found)


def dedup(
    files: Sequence[Path], out: Path, *, column: str, threshold: float, workers: int, step: Step | None = None
) -> Counts:
    """Copy `files` to `out`/kept without the rows that repeat an earlier one, and say in `out` which and why.

    kept/: the files under their names, in their own format, columns and order; a line of JSON byte by byte. Files from
        several folders keep the part of their path that differs.
    removed.parquet: file and row (from 1; the line of a JSON-lines file), by_file and by_row of the row it repeats,
        similarity (1 for equal; equal and similar are judged on the folded text, see `chimed.text.fold`).
    dedup.json: the counts. It is written last: a folder without it is unfinished.

    threshold: the least Jaccard similarity of distinct character 5-grams from which two texts are near-equal.
    Raises SourceError for a file that is neither format or lacks the column, BuildError for a folder that holds
    something else.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.jsonl").write_text('{"text": "高血压，能吃党参吗？"}\\n{"text": "高血压能吃党参吗"}\\n')
    >>> found = dedup([folder / "a.jsonl"], folder / "out", column="text", threshold=0.8, workers=1)
    >>> (found.rows, found.equal, found.kept), (folder / "out/kept/a.jsonl").read_text()
    ((2, 1, 1), '{"text": "高血压，能吃党参吗？"}\\n')
    """
    sources = [opened(path, column) for path in files]
    names = _names(files)
    work = _prepare(out, files)
    counts, clock, step = Counts(), _Clock(), step or _silent
    with ThreadPoolExecutor(workers) as pool:
        size = sum(file.size for file in sources)
        spill = _Spill(work / "texts.arrow")
        starts = _spill(sources, spill, pool, 2 * workers, step("reading", size), counts)
        clock.lap("reading", counts)
        by, similarity = _decide(spill, threshold, workers)
        del spill
        clock.lap("comparing", counts)
        told = step("writing", size)
        jobs = []
        for file, name, start, stop in zip(sources, names, starts, starts[1:], strict=False):
            stays = by[start:stop] < 0
            counts.files[name] = {"rows": len(stays), "kept": int(stays.sum())}
            target = work / "kept" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            jobs.append(pool.submit(file.copy, target, stays, told))
        for job in jobs:
            job.result()
    _write_removed(by, similarity, names, starts, work / "removed.parquet")
    counts.equal, counts.near = int((similarity == 1).sum()), int(((by >= 0) & (similarity < 1)).sum())
    counts.rows, counts.kept = len(by), int((by < 0).sum())
    clock.lap("writing", counts)
    _finish(out, work, counts)
    return counts


def _silent(_name: str, _total: int) -> Callable[[int], None]:
    return lambda _amount: None


class _Clock:
    def __init__(self) -> None:
        self.at = time.perf_counter()

    def lap(self, name: str, counts: Counts) -> None:
        """Notes the seconds since the last lap."""
        now = time.perf_counter()
        counts.seconds[name], self.at = round(now - self.at, 3), now


def _names(files: Sequence[Path]) -> list[str]:
    """The name of each file below the folder that they have in common."""
    whole = [path.resolve() for path in files]
    if twice := {str(path) for path in whole if whole.count(path) > 1}:
        raise SourceError(f"{min(twice)}: given twice")
    common = whole[0].parent
    while not all(path.is_relative_to(common) for path in whole):
        common = common.parent
    return [path.relative_to(common).as_posix() for path in whole]


def _prepare(out: Path, files: Sequence[Path]) -> Path:
    """The empty work folder of `out`. Refuses a folder that holds anything but an earlier result."""
    present = {path.name for path in out.iterdir()} if out.is_dir() else set()
    foreign = sorted(present - _OWN)
    if out.exists() and (not out.is_dir() or foreign or (present and not present & {"dedup.json", ".work"})):
        found = ", ".join(foreign[:3] or sorted(present)[:3]) or "it is a file"
        raise BuildError(f"{out}: holds something else ({found}); give a new or empty folder with --out")
    if inside := [path for path in files if path.resolve().is_relative_to(out.resolve())]:
        raise BuildError(f"{inside[0]}: an input cannot lie in the output folder {out}; give another with --out")
    work = out / ".work"
    shutil.rmtree(work, ignore_errors=True)
    (work / "kept").mkdir(parents=True)
    return work


def _finish(out: Path, work: Path, counts: Counts) -> None:
    """Put the result in place of an earlier one; the file that says it is complete goes first and comes last."""
    (out / "dedup.json").unlink(missing_ok=True)
    if (out / "kept").exists():
        shutil.rmtree(out / "kept")
    for name in ("kept", "removed.parquet"):
        (work / name).replace(out / name)
    shutil.rmtree(work)
    (out / "dedup.json").write_text(json.dumps(asdict(counts), ensure_ascii=False, indent=1) + "\n")


def _keyed(batch: Batch) -> tuple[Batch, pa.RecordBatch]:
    folded = fold(batch.texts)
    keys = [*exact_keys(folded).T, *band_keys(folded).T]
    return batch, pa.RecordBatch.from_arrays([folded, *map(_arrow, keys)], schema=_SPILLED)


def _spill(
    sources: Sequence[TextFile],
    spill: _Spill,
    pool: ThreadPoolExecutor,
    ahead: int,
    told: Callable[[int], None],
    counts: Counts,
) -> Ints:
    """Gather the texts and keys of all rows; the first row of each file, and the number of rows."""
    tables()  # once, before threads ask for it
    starts = [0] * (len(sources) + 1)
    waiting: deque[tuple[int, Future[tuple[Batch, pa.RecordBatch]]]] = deque()

    def drain(left: int) -> None:
        while len(waiting) > left:
            place, job = waiting.popleft()
            batch, keys = job.result()
            for line in batch.faults[: 3 - len(counts.faults)]:
                counts.faults.append(f"{sources[place].path.name}:{starts[place + 1] + line + 1}")
            counts.unreadable += len(batch.faults)
            counts.empty += int((keys["high"].to_numpy() == 0).sum()) - len(batch.faults)
            starts[place + 1] += len(keys)
            spill.add(keys)
            told(batch.size)

    for place, batch in _batches(sources):
        waiting.append((place, pool.submit(_keyed, batch)))
        drain(ahead)
    drain(0)
    spill.close()
    return np.cumsum(starts)


def _batches(sources: Sequence[TextFile]) -> Iterator[tuple[int, Batch]]:
    for place, source in enumerate(sources):
        for batch in source.batches():
            yield place, batch


def _decide(spill: _Spill, threshold: float, workers: int) -> tuple[Ints, npt.NDArray[np.float64]]:
    """For every row the kept row that it repeats, or -1, and their similarity."""
    keys = np.stack([spill.column("high"), spill.column("low")], 1)
    count = len(keys)
    group = np.zeros(count, np.int8)
    by = exact(keys, group, np.arange(count))
    del keys
    similarity = (by >= 0).astype(np.float64)
    rest = np.flatnonzero(by < 0)
    bands = (spill.column(name)[rest] for name in _KEYS[2:])
    found = find(
        bands,
        group[rest],
        np.arange(len(rest)),
        lambda few: spill.texts(rest[few]),
        threshold=threshold,
        workers=workers,
    )
    dropped = found.by >= 0
    by[rest[dropped]] = rest[found.by[dropped]]
    similarity[rest[dropped]] = found.similarity[dropped]
    chained = np.flatnonzero(by >= 0)
    chained = chained[by[by[chained]] >= 0]  # equal to a row that was dropped as a near-copy itself
    similarity[chained] = similarity[by[chained]]
    by[chained] = by[by[chained]]
    return by, similarity


def _write_removed(
    by: Ints, similarity: npt.NDArray[np.float64], names: Sequence[str], starts: Ints, path: Path
) -> None:
    rows = np.flatnonzero(by >= 0)
    named = pa.array(names, pa.string())
    columns: dict[str, Any] = {}
    for prefix, numbers in (("", rows), ("by_", by[rows])):
        file = np.searchsorted(starts, numbers, "right") - 1
        columns[f"{prefix}file"] = named.take(_arrow(file))
        columns[f"{prefix}row"] = _arrow(numbers - starts[file] + 1)
    columns["similarity"] = _arrow(similarity[rows])
    pq.write_table(pa.table(columns), path)


def _arrow(values: npt.NDArray[Any]) -> pa.Array:
    """The values as an Arrow array. (pa.array would import pandas, where there is one, to look whether it is one.)"""
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])
