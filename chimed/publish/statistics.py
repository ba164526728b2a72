"""The figures of a finished build: lengths of the stages' rows, and what the ledger says of every source.

Everything streams: of a stage it keeps a few bytes a row (length, source, split), of the ledger nothing but counts.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from chimed import ledger
from chimed.errors import BuildError
from chimed.ledger import VERDICTS
from chimed.publish.finished import Finished, finished
from chimed.records import SPLITS
from chimed.stages import Measured, measure

BATCH = 1 << 17


@dataclass(frozen=True, slots=True)
class Lengths:
    """Characters of every row of a stage, its source (a number into `sources`) and its split (into `SPLITS`)."""

    characters: npt.NDArray[np.int32]
    source: npt.NDArray[np.int16]
    split: npt.NDArray[np.int8]
    sources: list[str]


def stages(out: Path) -> dict[str, Finished]:
    """The finished stages of a build by name. Raises BuildError when there is none."""
    return {stage.stage: stage for stage in finished(out)}


def batches(stage: Finished, rows: int = BATCH // 8) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The rows of a stage, so many a batch, each with its split; what is not asked for is not read."""
    for split, paths in stage.shards().items():
        for path in paths:
            for batch in pq.ParquetFile(path).iter_batches(rows):
                yield split, batch


def lengths(stage: Finished) -> Lengths:
    """Characters of every row of a stage."""
    return gathered((split, measure(batch)) for split, batch in batches(stage))


def gathered(measured: Iterable[tuple[str, Measured]]) -> Lengths:
    """The lengths of rows that were measured, each piece with its split."""
    pieces = [(split, own.source, own.characters) for split, own in measured]
    names = sorted({name for _, source, _ in pieces for name in source.dictionary.to_pylist()})
    order: dict[str, int] = {split: place for place, split in enumerate(SPLITS)}
    characters, source, split = [np.zeros(0, np.int32)], [np.zeros(0, np.int16)], [np.zeros(0, np.int8)]
    for own, encoded, count in pieces:
        characters.append(count)
        numbers = np.array([names.index(name) for name in encoded.dictionary.to_pylist()], np.int16)
        source.append(numbers[encoded.indices.to_numpy()])
        split.append(np.full(len(count), order[own], np.int8))
    return Lengths(np.concatenate(characters), np.concatenate(source), np.concatenate(split), names)


def size(found: Lengths) -> dict[str, Any]:
    """Rows, characters, median and 90th percentile of a stage; the same of its `sources` by split, with their share."""
    keys = found.source * np.int16(len(SPLITS)) + found.split
    order = np.argsort(keys, kind="stable")  # of small integers: by radix
    keys = keys[order]
    cuts = np.flatnonzero(np.diff(keys, prepend=np.int16(-1)))
    parts = np.split(found.characters[order], cuts[1:]) if len(cuts) else []
    total = max(int(found.characters.sum(dtype=np.int64)), 1)
    rows = []
    for key, own in zip(keys[cuts].tolist(), parts, strict=True):
        amount = int(own.sum(dtype=np.int64))
        told = {"source": found.sources[key // len(SPLITS)], "split": SPLITS[key % len(SPLITS)], "rows": len(own)}
        rows.append({**told, "characters": amount, "share": round(amount / total, 6), **_middle(own)})
    every = {"rows": len(found.characters), "characters": int(found.characters.sum(dtype=np.int64))}
    return {**every, **_middle(found.characters), "sources": rows}


def _middle(characters: npt.NDArray[np.int32]) -> dict[str, float]:
    half, ninth = np.percentile(characters, (50, 90)).tolist() if len(characters) else (0.0, 0.0)
    return {"median": round(half, 1), "p90": round(ninth, 1)}


def named(folder: Path) -> list[Finished]:
    """The finished stages of a build, or the one whose folder it is. Raises BuildError when the folder is neither."""
    one = (folder / "manifest.json").is_file()
    found = finished(folder.resolve().parent if one else folder)
    chosen = [stage for stage in found if not one or stage.folder.name == folder.resolve().name]
    if not chosen:
        raise BuildError(f"{folder}: is no stage's folder; name one such as out/sft, or the folder above")
    return chosen


def statistics(folder: Path) -> dict[str, Any]:
    """What `chimed stats` tells of a build, or of one stage by its folder.

    stages: of each, rows, characters, median and 90th percentile of a row's characters, and the same of its `sources`
    by split with their share of all characters. corpus: by source, units read, kept, rejected, repeated and leaked.
    Raises BuildError when the folder is neither.
    """
    chosen = named(folder)
    corpus = {
        source: {name: sum(own[name] for own in files.values()) for name in ("read", *VERDICTS)}
        for source, files in chosen[0].manifest["counts"].items()
    }
    return {"stages": [{"stage": stage.stage, **size(lengths(stage))} for stage in chosen], "corpus": corpus}


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of a ledger.

    verdicts: by (source, verdict, reason). repeats: by (source of the repeated row, source of the kept one); equal:
    those of them that have the same key or grams, by source. leaks: by (source/file of the evaluation item, source of
    the row).
    """

    verdicts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    repeats: Counter[tuple[str, str]] = field(default_factory=Counter)
    equal: Counter[tuple[str]] = field(default_factory=Counter)
    leaks: Counter[tuple[str, str]] = field(default_factory=Counter)


def account(task: ledger.Write) -> tuple[ledger.Counts, Tally]:
    """A task: write a ledger and count it."""
    return ledger.write(task), tally(task.path)


def ledger_batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The ledger in batches. Raises BuildError when there is none."""
    if not path.is_file():
        raise BuildError(f"{path}: no ledger here; name the folder that chimed build --out wrote")
    yield from ds.dataset(path).to_batches(columns=columns, batch_size=BATCH)


def tally(path: Path) -> Tally:
    """The counts of a ledger."""
    found = Tally()
    for batch in ledger_batches(path, ["source", "verdict", "reason", "by", "detail"]):
        table = pa.Table.from_batches([batch])
        _count(found.verdicts, table, 3)
        repeated = table.filter(pc.equal(table["verdict"], "repeated"))
        kept = pc.list_element(pc.split_pattern(repeated["by"], "/", max_splits=1), 0)
        _count(found.repeats, pa.table([repeated["source"], kept], ["source", "by"]), 2)
        equal = repeated.filter(pc.equal(repeated["detail"], "similarity 1.000"))
        _count(found.equal, equal.select(["source"]), 1)
        leaked = table.filter(pc.equal(table["verdict"], "leaked"))
        items = pc.replace_substring_regex(leaked["by"], r"(?s)#[^#]*$", "")
        _count(found.leaks, pa.table([items, leaked["source"]], ["set", "source"]), 2)
    return found


def _count(counter: Counter[Any], table: pa.Table, columns: int) -> None:
    names = table.column_names[:columns]
    for row in table.group_by(names).aggregate([([], "count_all")]).to_pylist():
        counter[tuple(row[name] or "" for name in names)] += row["count_all"]
