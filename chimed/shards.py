"""Kept records out as the shuffled Parquet shards of stages, in bounded memory, the same bytes whatever the workers.

Two passes. `run` turns one part, or the graph that `merge` made from the facts of all, into runs of each stage:
batches of rows, each sorted by its place in the shuffle (a hash of the row's id and the seed). `shard` gathers one
range of that hash from all runs of a stage, sorts it and writes a file.
"""

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from chimed import corpus, graph, preferences, stages
from chimed.corpus import Prepared
from chimed.dedup import exact_keys
from chimed.records import SHAPES, Split
from chimed.sources.spec import Stage

SHARD_BYTES = 128 << 20  # of Arrow data a shard: what a worker sorts at once
RUN_ROWS = 16_384
UInt64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows of a source a stage takes: those whose hash is at most `limit` (a share or a cap made into one)."""

    limits: dict[str, int]  # source -> highest hash taken, for sources that serve the stage
    caps: dict[str, int]  # source -> most rows taken of what is derived from its facts
    seed: int
    validation: float
    length: int  # longest passage of the rag stage, characters


@dataclass(frozen=True, slots=True)
class Target:
    """A stage that a task renders for, and where its runs go."""

    stage: Stage
    choice: Choice
    folder: Path


@dataclass(frozen=True, slots=True)
class Render:
    """A task for `run`: the rows of one part that are no facts, for some stages."""

    part: Prepared
    number: int  # of the part among all
    decisions: Path  # folder of <shape>.arrow written by corpus.save
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Merge:
    """A task for `merge`: the facts of these parts as one graph, sources in order of trust, to be written to `path`."""

    parts: tuple[tuple[int, Prepared], ...]  # with the number of each among all
    decisions: Path
    trust: tuple[str, ...]
    path: Path


@dataclass(frozen=True, slots=True)
class Graphs:
    """A task for `graphs`: decide which facts stay, then merge them."""

    facts: corpus.Undecided
    merges: tuple[Merge, ...]


@dataclass(frozen=True, slots=True)
class Word:
    """A task for `run`: the texts of a graph that `merge` wrote, for stages that word it alike."""

    graph: Path
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Shard:
    """A task for `shard`: one file of a stage.

    dropped: a .npy file with the places in the shuffle of rows to leave out, ascending, or None.
    """

    runs: tuple[Path, ...]
    dropped: Path | None
    number: int
    count: int
    path: Path


@dataclass(frozen=True, slots=True)
class Runs:
    """What a task left of one stage: files and bytes by split; rows by department, where the stage takes rows as they
    are."""

    files: dict[Split, Path]
    size: dict[Split, int]
    departments: dict[str, int]


def feeds(stage: Stage) -> tuple[str, ...]:
    """The shapes that feed a stage, those that only pairs are made from among them.

    >>> feeds("dpo")
    ('preference', 'exam', 'fact')
    """
    return (*stages.serves(stage), *(("exam", "fact") if stage == "dpo" else ()))


def _rendered(stage: Stage, shape: str, rows: pa.Table, length: int) -> pa.Table:
    match stage, shape:
        case "dpo", "exam":
            return preferences.exam_pairs(rows)
        case "dpo", "fact":
            return preferences.fact_pairs(rows)
        case _:
            return stages.render(stage, shape, rows, length=length)


def scatter(hashes: UInt64, salt: int) -> UInt64:
    """Hashes mixed with a salt (splitmix64), so that choosing and shuffling by the same id are independent."""
    with np.errstate(over="ignore"):
        z = hashes + np.uint64((salt * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & (2**64 - 1))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


CHOOSE, SHUFFLE, HOLD_OUT = 1, 2, 3  # salts, added to 4 x seed


def limit(share: float) -> int:
    """The highest hash of a share of all hashes.

    >>> limit(1.0) == 2**64 - 1
    True
    """
    return min(int(share * 2.0**64), 2**64 - 1)


def chosen(hashes: UInt64, choice: Choice, source: str) -> npt.NDArray[np.bool_]:
    """Which rows of a source a stage takes, by the hash of their ids."""
    return scatter(hashes, 4 * choice.seed + CHOOSE) <= np.uint64(choice.limits[source])


def run(task: Render | Word) -> tuple[list[Runs], float]:
    """Render rows into runs, one for each target of the task, and the CPU-seconds that it took.

    What a build that was killed has left is taken as it is.
    """
    began = time.process_time()
    writers = [_Runs(target) for target in task.targets if not (target.folder / _DONE).exists()]
    if writers and isinstance(task, Word):
        for derived in _MAKES[writers[0].stage](pa.ipc.open_file(pa.memory_map(str(task.graph))).read_all()):
            for writer in writers:
                writer.add_facts(derived)
    elif writers and isinstance(task, Render):
        _render(task, writers)
    for writer in writers:
        writer.close()
    return [_finished(target) for target in task.targets], time.process_time() - began


def _render(task: Render, writers: Sequence["_Runs"]) -> None:
    part = task.part
    for shape in (name for name in SHAPES if name != "fact" and part.kept.get(name)):
        decision = corpus.read(task.decisions / f"{shape}.arrow")
        inside = decision.part(task.number)
        hashes, clusters = decision.id_hash[inside], decision.cluster[inside]
        own = [
            (writer, decision.stays[inside] & chosen(hashes, writer.choice, part.source))
            for writer in writers
            if shape in feeds(writer.stage)
        ]
        table = pa.ipc.open_file(pa.memory_map(str(part.folder / f"{shape}.arrow")))
        at = 0
        for number in range(table.num_record_batches):
            batch = table.get_batch(number)
            rows = slice(at, at + len(batch))
            at += len(batch)
            for writer, takes in own:
                taken = pa.Table.from_batches([batch]).filter(pa.array(takes[rows])).combine_chunks()
                writer.add(shape, taken, part.split, clusters[rows][takes[rows]])


# How each stage words a graph; what takes longest comes first.
_MAKES: dict[Stage, Callable[[pa.Table], Iterator[pa.Table]]] = {
    "sft": graph.questions,
    "dpo": graph.corrupted,
    "cpt": graph.documents,
    "rag": graph.documents,
}


def graph_of(stage: Stage, sources: Sequence[str], parts: Sequence[Prepared], decisions: Path) -> Merge | None:
    """What makes the graph that a stage with these sources is worded from; None where they have no facts for it.

    What another source knows is not wrong: pairs are checked against all facts, whatever the stage takes.
    """
    facts = [(number, part) for number, part in enumerate(parts) if part.kept.get("fact") and part.split == "train"]
    if "fact" not in feeds(stage) or not any(part.source in sources for _, part in facts):
        return None
    known = tuple((number, part) for number, part in facts if stage == "dpo" or part.source in sources)
    told = {part.source for _, part in known}
    trust = tuple(source for source in sources if source in told)
    name = hashlib.sha256(json.dumps([[number for number, _ in known], trust]).encode()).hexdigest()[:24]
    return Merge(known, decisions, trust, decisions / f"graph-{name}.arrow")


def words(told: Sequence[tuple[Path, Target]]) -> list[Word]:
    """The tasks for these graphs and targets, what takes longest first: one where several are worded alike."""
    groups = dict.fromkeys((make, graph) for make in _MAKES.values() for graph, _ in told)
    alike = {group: tuple(to for graph, to in told if (_MAKES[to.stage], graph) == group) for group in groups}
    return [Word(graph, targets) for (_, graph), targets in alike.items() if targets]


def graphs(task: Graphs) -> tuple[float, float]:
    """Decide for facts and write their graphs; the CPU-seconds of each."""
    return corpus.settle(task.facts), sum(merge(one) for one in task.merges)


def merge(task: Merge) -> float:
    """Write the graph of a task, unless it is there, and the CPU-seconds that it took."""
    began = time.process_time()
    if not task.path.exists():
        merged = graph.canonical(_facts(task.parts, corpus.read(task.decisions / "fact.arrow")), task.trust)
        partial = task.path.with_name(f"{task.path.name}.partial")
        with pa.ipc.new_file(partial, merged.schema) as file:
            file.write_table(merged.combine_chunks())
        partial.rename(task.path)
    return time.process_time() - began


def _facts(parts: Sequence[tuple[int, Prepared]], decision: corpus.Decision) -> pa.Table:
    tables = []
    for number, part in parts:
        facts = pa.ipc.open_file(pa.memory_map(str(part.folder / "fact.arrow"))).read_all()
        facts = facts.filter(pa.array(decision.stays[decision.part(number)]))
        tables.append(facts.append_column("source", pa.repeat(part.source, len(facts))))
    return pa.concat_tables(tables)


_DONE = "done.json"


class _Runs:
    """Writes batches of stage rows, sorted, to one file a split."""

    def __init__(self, target: Target) -> None:
        self.stage, self.folder, self.choice = target.stage, target.folder, target.choice
        self.partial = self.folder.with_name(self.folder.name + ".partial")
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        self.schema = stages.COLUMNS[self.stage].append(pa.field("shuffle", pa.uint64()))
        self.files: dict[Split, pa.ipc.RecordBatchFileWriter] = {}
        self.size: Counter[Split] = Counter()
        self.departments: Counter[str] = Counter()
        self.held: dict[str, pa.Table] = {}  # of texts made from facts: those that a cap leaves so far, by source

    def add_facts(self, derived: pa.Table) -> None:
        """What is taken of texts made from facts; of a source with a cap that is known at the end."""
        order = scatter(exact_keys(derived["id"].combine_chunks())[:, 0], 4 * self.choice.seed + CHOOSE)
        derived = derived.append_column("order", pa.array(order))
        for source in pc.unique(derived["source"]).to_pylist():
            if source not in self.choice.limits:
                continue
            own = pc.equal(derived["source"], source).combine_chunks().to_numpy(zero_copy_only=False)
            rows = derived.filter(pa.array(own & (order <= np.uint64(self.choice.limits[source]))))
            cap = self.choice.caps.get(source)
            if cap is None:
                self._add_facts(rows)
            else:
                rows = pa.concat_tables([self.held[source], rows]) if source in self.held else rows
                if len(rows) > cap:
                    rows = rows.take(pa.array(np.argsort(rows["order"].to_numpy())[:cap]))
                self.held[source] = rows

    def _add_facts(self, rows: pa.Table) -> None:
        for at in range(0, len(rows), RUN_ROWS):
            part = rows.slice(at, RUN_ROWS).combine_chunks()
            # Texts on one entity stay on one side of the split.
            self.add("fact", part, "train", exact_keys(part["title"].combine_chunks())[:, 0])

    def add(self, shape: str, rows: pa.Table, split: Split, clusters: UInt64) -> None:
        if not len(rows):
            return
        salt = 4 * self.choice.seed
        if self.stage in ("sft", "eval") and "department" in rows.column_names:
            counted = rows["department"].value_counts().to_pylist()
            self.departments.update({entry["values"]: entry["counts"] for entry in counted if entry["values"]})
        for own, part in self._splits(split, clusters, salt + HOLD_OUT):
            rendered = _rendered(self.stage, shape, rows.filter(pa.array(part)), self.choice.length)
            if not len(rendered):
                continue
            shuffle = scatter(exact_keys(rendered["id"].combine_chunks())[:, 0], salt + SHUFFLE)
            rendered = rendered.append_column("shuffle", pa.array(shuffle)).take(pa.array(np.argsort(shuffle)))
            if own not in self.files:
                self.files[own] = pa.ipc.new_file(self.partial / f"{own}.arrow", self.schema)
            self.files[own].write_table(rendered.combine_chunks())
            self.size[own] += rendered.nbytes

    def _splits(self, split: Split, clusters: UInt64, salt: int) -> Iterable[tuple[Split, npt.NDArray[np.bool_]]]:
        if self.stage == "eval" or split != "train":
            return [(split, np.ones(len(clusters), bool))]
        if self.stage == "rag":
            return [("train", np.ones(len(clusters), bool))]
        held = scatter(clusters, salt) < np.uint64(limit(self.choice.validation))
        return [("train", ~held), ("validation", held)]

    def close(self) -> None:
        for rows in self.held.values():
            self._add_facts(rows)
        for file in self.files.values():
            file.close()
        done = {"size": self.size, "departments": self.departments}
        (self.partial / _DONE).write_text(json.dumps(done, ensure_ascii=False), encoding="utf-8")
        self.partial.rename(self.folder)


def _finished(target: Target) -> Runs:
    done = json.loads((target.folder / _DONE).read_text(encoding="utf-8"))
    files = {own: target.folder / f"{own}.arrow" for own in done["size"]}
    return Runs(files, done["size"], done["departments"])


@dataclass(frozen=True, slots=True)
class Written:
    """What the rows of a shard are like, the SHA-256 of its file, "" where no row fell into it, and CPU-seconds."""

    measured: list[stages.Measured]
    sha256: str
    seconds: float


def shard(task: Shard) -> Written:
    """Write one shard: the rows of all runs that fall into its range of the shuffle."""
    began = time.process_time()
    low = task.number * 2**64 // task.count
    high = (task.number + 1) * 2**64 // task.count
    pieces = list(_pieces(task.runs, low, high))
    if not pieces:
        return Written([], "", time.process_time() - began)
    table = pa.concat_tables(pieces).combine_chunks()
    if task.dropped is not None:
        table = table.filter(pa.array(~np.isin(table["shuffle"].to_numpy(), np.load(task.dropped)))).combine_chunks()
    table = table.take(pc.sort_indices(table, [("shuffle", "ascending"), ("id", "ascending")])).drop(["shuffle"])
    table = table.replace_schema_metadata(None)
    pq.write_table(table, task.path, compression="zstd", compression_level=3, row_group_size=RUN_ROWS)
    measured = [stages.measure(batch) for batch in table.to_batches()]
    return Written(measured, sha256(task.path), time.process_time() - began)


def sha256(path: Path) -> str:
    """The digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pieces(runs: Sequence[Path], low: int, high: int) -> Iterator[pa.Table]:
    for run in runs:
        file = pa.ipc.open_file(pa.memory_map(str(run)))
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            order = batch.column("shuffle").to_numpy()
            start = int(np.searchsorted(order, np.uint64(low)))
            stop = len(order) if high == 2**64 else int(np.searchsorted(order, np.uint64(high)))
            if start < stop:
                yield pa.Table.from_batches([batch.slice(start, stop - start)])
