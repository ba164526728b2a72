"""The figures of a finished build: lengths of the stages' rows, and what the ledger says of every source.

Everything streams: of a stage it keeps seven bytes a row (length, source, split), of the ledger nothing but counts.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from chimed.errors import BuildError
from chimed.ledger import VERDICTS
from chimed.publish.finished import Finished, finished
from chimed.records import SPLITS

BATCH = 1 << 17
_UNREAD = ("id", "source", "kind", "split", "part")  # columns that hold no text a person reads


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


def batches(stage: Finished) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The rows of a stage, each batch with its split."""
    for split, paths in stage.shards().items():
        for batch in ds.dataset(paths).to_batches(batch_size=BATCH // 8):
            yield split, batch


def lengths(stage: Finished) -> Lengths:
    """Characters of every row of a stage: of all its texts, roles and labels left out."""
    names = sorted(stage.manifest["sources"])
    order: dict[str, int] = {split: place for place, split in enumerate(SPLITS)}
    number = pa.array(names, pa.string())
    characters, source, split = [np.zeros(0, np.int32)], [np.zeros(0, np.int16)], [np.zeros(0, np.int8)]
    for own, batch in batches(stage):
        characters.append(_characters(batch))
        source.append(pc.index_in(batch["source"], value_set=number).to_numpy(zero_copy_only=False).astype(np.int16))
        split.append(np.full(len(batch), order[own], np.int8))
    return Lengths(np.concatenate(characters), np.concatenate(source), np.concatenate(split), names)


def _characters(batch: pa.RecordBatch) -> npt.NDArray[np.int32]:
    total = np.zeros(len(batch), np.int32)
    for name in batch.schema.names:
        if name not in _UNREAD:
            total += _column(batch[name])
    return total


def _column(column: pa.Array) -> npt.NDArray[np.int32]:
    """Characters of each value of a column of strings, lists of strings or lists of turns."""
    if pa.types.is_list(column.type):
        values = column.flatten()
        texts = values.field("content") if pa.types.is_struct(values.type) else values
        sums = np.concatenate([[0], np.cumsum(pc.fill_null(pc.utf8_length(texts), 0).to_numpy(zero_copy_only=False))])
        offsets = column.offsets.to_numpy()
        counts: npt.NDArray[np.int32] = np.diff(sums[offsets - offsets[0]]).astype(np.int32)
        return counts
    plain: npt.NDArray[np.int32] = pc.fill_null(pc.utf8_length(column), 0).to_numpy(zero_copy_only=False)
    return plain


def _stage(stage: Finished) -> dict[str, Any]:
    """Rows, characters, median and 90th percentile of a stage, by source and split."""
    found = lengths(stage)
    order = np.lexsort((found.split, found.source))
    keys = found.source[order].astype(np.int32) * len(SPLITS) + found.split[order]
    cuts = np.flatnonzero(np.diff(keys, prepend=-1))
    parts = np.split(found.characters[order], cuts[1:]) if len(cuts) else []
    total = max(int(found.characters.sum(dtype=np.int64)), 1)
    rows = []
    for key, own in zip(keys[cuts].tolist(), parts, strict=True):
        amount = int(own.sum(dtype=np.int64))
        told = {"source": found.sources[key // len(SPLITS)], "split": SPLITS[key % len(SPLITS)], "rows": len(own)}
        rows.append({**told, "characters": amount, "share": round(amount / total, 6), **_middle(own)})
    every = {"rows": len(found.characters), "characters": int(found.characters.sum(dtype=np.int64))}
    return {"stage": stage.stage, **every, **_middle(found.characters), "sources": rows}


def _middle(characters: npt.NDArray[np.int32]) -> dict[str, float]:
    half, ninth = np.percentile(characters, (50, 90)).tolist() if len(characters) else (0.0, 0.0)
    return {"median": round(half, 1), "p90": round(ninth, 1)}


def statistics(folder: Path) -> dict[str, Any]:
    """What `chimed stats` tells of a build, or of one stage by its folder.

    stages: of each, rows, characters, median and 90th percentile of a row's characters, and the same of its `sources`
    by split with their share of all characters. corpus: by source, units read, kept, rejected, repeated and leaked.
    Raises BuildError when the folder is neither.
    """
    one = (folder / "manifest.json").is_file()
    found = stages(folder.resolve().parent if one else folder)
    chosen = [stage for stage in found.values() if not one or stage.folder.name == folder.resolve().name]
    if not chosen:
        raise BuildError(f"{folder}: is no stage's folder; name one such as out/sft, or the folder above")
    corpus = {
        source: {name: sum(own[name] for own in files.values()) for name in ("read", *VERDICTS)}
        for source, files in chosen[0].manifest["counts"].items()
    }
    return {"stages": [_stage(stage) for stage in chosen], "corpus": corpus}


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of a ledger.

    verdicts: by (source, verdict, reason). repeats: by (source of the repeated row, source of the kept one). leaks: by
    (source/file of the evaluation item, source of the row).
    """

    verdicts: Counter[tuple[str, str, str]]
    repeats: Counter[tuple[str, str]]
    leaks: Counter[tuple[str, str]]


def ledger_batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The ledger in batches. Raises BuildError when there is none."""
    if not path.is_file():
        raise BuildError(f"{path}: no ledger here; name the folder that chimed build --out wrote")
    yield from ds.dataset(path).to_batches(columns=columns, batch_size=BATCH)


def tally(path: Path) -> Tally:
    """The counts of a ledger."""
    found = Tally(Counter(), Counter(), Counter())
    for batch in ledger_batches(path, ["source", "verdict", "reason", "by"]):
        table = pa.Table.from_batches([batch])
        _count(found.verdicts, table.set_column(2, "reason", pc.fill_null(table["reason"], "")), 3)
        repeated = table.filter(pc.equal(table["verdict"], "repeated"))
        kept = pc.replace_substring_regex(repeated["by"], r"(?s)/.*", "")
        _count(found.repeats, pa.table([repeated["source"], kept], ["source", "by"]), 2)
        leaked = table.filter(pc.equal(table["verdict"], "leaked"))
        items = pc.replace_substring_regex(leaked["by"], r"(?s)#[^#]*$", "")
        _count(found.leaks, pa.table([items, leaked["source"]], ["set", "source"]), 2)
    return found


def _count(counter: Counter[Any], table: pa.Table, columns: int) -> None:
    names = table.column_names[:columns]
    for row in table.group_by(names).aggregate([([], "count_all")]).to_pylist():
        counter[tuple(row[name] for name in names)] += row["count_all"]
