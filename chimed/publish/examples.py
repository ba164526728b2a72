"""Rows to look at: some of every verdict, borderline merges first, with their texts as far as the build still has them.

Kept rows and evaluation items come from the stages' files; what was repeated, leaked or rejected stands in the work
folder only. What was rejected because no row could be read there has no text.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chimed.publish import statistics
from chimed.publish.finished import Finished
from chimed.records import SHAPES

EACH = {"repeated": 120, "leaked": 60}
A_REASON = 6  # rejected rows of each reason
REJECTED = 150
A_STAGE, A_SOURCE = 24, 3  # kept rows of each stage, of each source in it
_VERDICT = ("id", "source", "verdict", "reason", "by", "detail")


@dataclass(frozen=True, slots=True)
class Example:
    """A row of the ledger with its text, and the row it repeats or the item it overlaps with that one's text.

    text, other: None when the build does not have it. stage: where a kept row was taken from.
    """

    id: str
    source: str
    verdict: str
    reason: str
    detail: str
    text: str | None
    by: str
    other: str | None
    stage: str = ""


def examples(out: Path, found: Mapping[str, Finished]) -> list[Example]:
    """Examples of every verdict: repeated and leaked, borderline pairs first, then rejected, then kept."""
    chosen = _chosen(out / "ledger.parquet")
    wanted = {row["id"] for row in chosen} | {row["by"] for row in chosen if row["by"]}
    texts = _work_texts(out / ".work" / "parts", wanted)
    texts = {**_stage_texts(found, wanted - set(texts)), **texts}
    told = [
        Example(
            row["id"], row["source"], row["verdict"], row["reason"] or "", row["detail"] or "",
            texts.get(row["id"]), row["by"] or "", texts.get(row["by"] or ""),
        )
        for row in chosen
    ]  # fmt: skip
    return told + _kept(found)


def _chosen(path: Path) -> list[dict[str, Any]]:
    """Repeated rows of the lowest similarity, leaked ones of the lowest share, rejected ones of each reason."""
    best: dict[str, pa.Table] = {}
    rejected: Counter[str] = Counter()
    seen: Counter[tuple[str, str]] = Counter()
    some: list[dict[str, Any]] = []
    for batch in statistics.ledger_batches(path, list(_VERDICT)):
        table = pa.Table.from_batches([batch])
        for verdict, limit in EACH.items():
            own = table.filter(pc.equal(table["verdict"], verdict))
            number = pc.extract_regex(own["detail"], r"(?P<value>[0-9.]+)$")
            own = own.append_column("score", pc.cast(pc.struct_field(number, "value"), pa.float64()))
            own = pa.concat_tables([best[verdict], own]) if verdict in best else own
            best[verdict] = _spread(own, limit)
        own = table.filter(pc.equal(table["verdict"], "rejected"))
        for pair in own.group_by(["source", "reason"]).aggregate([]).to_pylist():
            key = (pair["source"], pair["reason"])
            room = min(2 - seen[key], A_REASON - rejected[pair["reason"]], REJECTED - len(some))
            if room > 0:
                fits = pc.and_(pc.equal(own["source"], key[0]), pc.equal(own["reason"], key[1]))
                rows = own.filter(fits).slice(0, room).to_pylist()
                some += rows
                seen[key] += len(rows)
                rejected[key[1]] += len(rows)
    some.sort(key=lambda row: (row["reason"], row["id"]))
    return [row for verdict in EACH if verdict in best for row in best[verdict].to_pylist()] + some


def _spread(rows: pa.Table, limit: int) -> pa.Table:
    """The lowest scores of each source, lowest first: every source has its turn before one has another."""
    rows = rows.take(pc.sort_indices(rows, [("score", "ascending"), ("id", "ascending")]))
    source = rows["source"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.argsort(source, kind="stable")
    starts = np.searchsorted(source[order], source[order])
    turn = np.empty(len(rows), np.int64)
    turn[order] = np.arange(len(rows)) - starts
    return rows.take(pa.array(np.sort(np.argsort(turn, kind="stable")[:limit])))


def _work_texts(parts: Path, wanted: set[str]) -> dict[str, str]:
    """Texts by id from the tables in the work folder: of the newest part where an earlier build left another."""
    values = pa.array(sorted(wanted), pa.string())
    sources = {name.partition("/")[0] for name in wanted}
    texts: dict[str, str] = {}
    done = sorted(parts.glob("*/done.json"), key=lambda path: (path.stat().st_mtime, path))
    for folder in (path.parent for path in done):
        for name in ("held", *SHAPES, "rejects"):
            path = folder / f"{name}.arrow"
            if not path.is_file():
                continue
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            if not len(table) or table["id"][0].as_py().partition("/")[0] not in sources:
                continue
            places = np.flatnonzero(pc.is_in(table["id"], value_set=values).to_numpy())
            texts |= {row["id"]: text(row) for row in table.take(pa.array(places)).to_pylist()} if len(places) else {}
    return texts


def _stage_texts(found: Mapping[str, Finished], wanted: set[str]) -> dict[str, str]:
    """Texts by id from the stages' files."""
    values = pa.array(sorted(wanted), pa.string())
    texts: dict[str, str] = {}
    for stage in found.values():
        if not wanted:
            break
        for _, batch in statistics.batches(stage):
            own = batch.filter(pc.is_in(batch["id"], value_set=values))
            texts |= {row["id"]: text(row) for row in own.to_pylist()}
    return texts


def _kept(found: Mapping[str, Finished]) -> list[Example]:
    """The first rows of each stage, whose files are shuffled, few of each source."""
    told = []
    for stage in found.values():
        taken = 0
        _, batch = next(statistics.batches(stage))
        for source in pc.unique(batch["source"]).to_pylist():
            for row in batch.filter(pc.equal(batch["source"], source)).slice(0, A_SOURCE).to_pylist():
                if taken < A_STAGE:
                    told.append(Example(row["id"], source, "kept", "", "", text(row), "", None, stage.stage))
                    taken += 1
    return told


def text(row: dict[str, Any]) -> str:
    """A row of any shape or stage as text to read.

    >>> text({"id": "a/b#1", "head": "百日咳", "relation": "症状", "tail": "咳嗽"})
    '百日咳 — 症状 — 咳嗽'
    >>> text({"id": "a/b#1", "turns": [{"role": "user", "content": "您好"}]})
    'user: 您好'
    """
    if "relation" in row:
        return f"{row['head']} — {row['relation']} — {row['tail']}"
    lines = []
    for name, value in row.items():
        if name in ("id", "source", "split", "department", "kind", "part") or not value:
            continue
        if isinstance(value, list) and isinstance(value[0], dict):
            side = f"{name}: " if name in ("chosen", "rejected") else ""
            lines += [f"{side or turn['role'] + ': '}{turn['content']}" for turn in value]
        elif isinstance(value, list):
            lines += [f"{chr(65 + place)}. {option}" for place, option in enumerate(value)]
        elif name in ("text", "title", "question"):
            lines.append(str(value))
        else:
            lines.append(f"{name}: {value}")
    return "\n".join(lines)
