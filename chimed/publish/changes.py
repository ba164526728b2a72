"""What changed between two builds: counts, rows that went into `kept` or out of it, stages and recipe.

The ledgers are read twice in batches. Between the two passes ten bytes a row are kept: a 64-bit key of the id and what
became of the row. Two ids with the same key would be taken for one row; among 30 million that has odds of 1 to 40,000.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from chimed.dedup import exact_keys
from chimed.publish import statistics
from chimed.publish.finished import Finished

Codes = npt.NDArray[np.uint16]
EXAMPLES = 5  # of each source, verdict before and verdict after
_FATE = ("source", "verdict", "reason")
Fate = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Key of each row's id, ascending, and the number of its fate; and how often each fate was met."""

    keys: npt.NDArray[np.uint64]
    fates: Codes
    counts: Counter[Fate]


def changes(old: Path, new: Path) -> dict[str, Any]:
    """What is different in the build `new`, both folders of builds. Raises BuildError when one is none.

    counts: by source, verdict and reason, before and after, where they differ. moves: rows whose verdict is another, by
    source and verdicts ("" before or after: the row is not there), with examples. kept: rows that went `in` and `out`.
    stages: rows before and after. recipe: settings that differ, by dotted name.
    """
    before, after = statistics.stages(old), statistics.stages(new)
    fates: dict[Fate, int] = {("", "", ""): 0}
    first, second = _read(old / "ledger.parquet", fates), _read(new / "ledger.parquet", fates)
    moves = _moves(first, second, list(fates))
    _name(moves, old / "ledger.parquet", new / "ledger.parquet")
    return {
        "counts": _differing(first.counts, second.counts),
        "kept": {
            "in": sum(move["rows"] for move in moves if move["after"] == "kept"),
            "out": sum(move["rows"] for move in moves if move["before"] == "kept"),
        },
        "moves": [{name: value for name, value in move.items() if name != "keys"} for move in moves],
        "stages": _stages(before, after),
        "recipe": _recipe(*(next(iter(build.values())).manifest["recipe"] for build in (before, after))),
    }


def _keys(ids: pa.Array) -> npt.NDArray[np.uint64]:
    keys: npt.NDArray[np.uint64] = exact_keys(ids)[:, 0]
    return keys


def _read(path: Path, fates: dict[Fate, int]) -> _Rows:
    """All rows of a ledger by ascending key; fates that were not met before get the next number."""
    keys, codes, counts = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint16)], Counter[Fate]()
    for batch in statistics.ledger_batches(path, ["id", *_FATE]):
        columns = [pc.fill_null(batch[name], "") for name in _FATE]
        joined = pc.binary_join_element_wise(*columns, "\x00").dictionary_encode()
        names = [_fate(value) for value in joined.dictionary.to_pylist()]
        numbers = np.array([fates.setdefault(name, len(fates)) for name in names], np.uint16)
        met = joined.indices.to_numpy()
        for name, count in zip(names, np.bincount(met, minlength=len(names)).tolist(), strict=True):
            counts[name] += count
        keys.append(_keys(batch["id"]))
        codes.append(numbers[met])
    found, own = np.concatenate(keys), np.concatenate(codes)
    order = np.argsort(found, kind="stable")
    return _Rows(found[order], own[order], counts)


def _fate(joined: str) -> Fate:
    source, verdict, reason = joined.split("\x00", 2)
    return source, verdict, reason


def _fates_at(rows: _Rows, keys: npt.NDArray[np.uint64]) -> Codes:
    """The fate of each key, 0 where there is no such row."""
    if not len(rows.keys):
        return np.zeros(len(keys), np.uint16)
    place = np.minimum(np.searchsorted(rows.keys, keys), len(rows.keys) - 1)
    return np.where(rows.keys[place] == keys, rows.fates[place], np.uint16(0))


def _moves(first: _Rows, second: _Rows, fates: list[Fate]) -> list[dict[str, Any]]:
    """Rows with another fate than before, gathered by what they were and what they are; most first."""
    gone = first.keys[~np.isin(first.keys, second.keys, assume_unique=False)]
    keys = np.concatenate([second.keys, gone])
    was, now = _fates_at(first, keys), _fates_at(second, keys)
    moved = np.flatnonzero(was != now)
    pair = was[moved].astype(np.int64) * len(fates) + now[moved]
    kinds, group, rows = np.unique(pair, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    starts = np.concatenate([[0], np.cumsum(rows)])
    found = []
    for number, kind in enumerate(kinds.tolist()):
        (source, before, reason), after = fates[kind // len(fates)], fates[kind % len(fates)]
        own = order[starts[number] : starts[number + 1]][:EXAMPLES]
        told = {"source": source or after[0], "before": before, "before_reason": reason}
        told |= {"after": after[1], "after_reason": after[2], "rows": int(rows[number])}
        found.append({**told, "keys": keys[moved[own]], "examples": []})
    return sorted(found, key=lambda move: (-move["rows"], move["source"], move["before"], move["after"]))


def _name(moves: list[dict[str, Any]], old: Path, new: Path) -> None:
    """Fill in the examples of the moves: id, and what the row is found to repeat or overlap, before and after."""
    owner = {int(key): move for move in moves for key in move["keys"]}
    wanted = np.sort(np.array(list(owner), np.uint64))
    details: dict[int, dict[str, Any]] = {}
    for path, side in ((old, "before"), (new, "after")):
        for batch in statistics.ledger_batches(path, ["id", "by", "detail"]) if len(wanted) else ():
            keys = _keys(batch["id"])
            places = np.flatnonzero(np.isin(keys, wanted))
            for key, row in zip(keys[places].tolist(), batch.take(pa.array(places)).to_pylist(), strict=True):
                told = ", ".join(value for value in (row["by"], row["detail"]) if value)
                details.setdefault(key, {"id": row["id"], "before": "", "after": ""})[side] = told
    for key, example in details.items():
        owner[key]["examples"].append(example)
    for move in moves:
        move["examples"].sort(key=lambda example: str(example["id"]))


def _differing(before: Counter[Fate], after: Counter[Fate]) -> list[dict[str, Any]]:
    """Counts that differ, by source; the verdict "read" counts all units."""
    both = []
    for counts in (before, after):
        every = Counter(counts)
        for (source, _, _), count in counts.items():
            every[source, "read", ""] += count
        both.append(every)
    keys = sorted(key for key in {**both[0], **both[1]} if both[0][key] != both[1][key])
    return [{**dict(zip(_FATE, key, strict=True)), "before": both[0][key], "after": both[1][key]} for key in keys]


def _stages(before: dict[str, Finished], after: dict[str, Finished]) -> list[dict[str, Any]]:
    """Rows of each stage and split that differ; 0 where a build lacks it."""
    counts = [
        {(stage, split): rows for stage, own in build.items() for split, rows in own.manifest["rows"].items()}
        for build in (before, after)
    ]
    keys = sorted(key for key in {**counts[0], **counts[1]} if counts[0].get(key, 0) != counts[1].get(key, 0))
    return [
        {"stage": key[0], "split": key[1], "before": counts[0].get(key, 0), "after": counts[1].get(key, 0)}
        for key in keys
    ]


def _recipe(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """Settings of the recipes that differ, by dotted name; None where a recipe lacks one or leaves it empty.

    >>> _recipe({"seed": 1, "sources": [{"name": "a", "cap": 2}]}, {"seed": 1, "sources": [{"name": "a", "cap": 3}]})
    [{'key': 'sources.a.cap', 'before': 2, 'after': 3}]
    >>> _recipe({"seed": 1}, {"seed": 1, "tokenizer": ""})
    []
    """
    old, new = _flat(before), _flat(after)
    # A setting that came with another version and is left empty changes nothing.
    old, new = ({key: value for key, value in own.items() if value not in ("", None)} for own in (old, new))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    # Of a source that one recipe lacks its name says it all.
    lacking = tuple(key.removesuffix("name") for key in keys if key.endswith(".name"))
    keys = [key for key in keys if key.endswith(".name") or not key.startswith(lacking)]
    return [{"key": key, "before": old.get(key), "after": new.get(key)} for key in keys]


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        value = {item["name"]: item for item in value}
    if not isinstance(value, dict):
        return {name: value}
    return {
        key: inner
        for part, own in value.items()
        for key, inner in _flat(own, f"{name}.{part}" if name else str(part)).items()
    }
