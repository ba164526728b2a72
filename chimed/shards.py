"""Kept records out as a stage's shuffled Parquet shards, in bounded memory and the same bytes whatever the workers.

Two passes. `render` turns one part into runs: batches of stage rows, each sorted by its place in the shuffle (a hash of
the row's id and the seed). `shard` gathers one range of that hash from all runs, sorts it and writes a file.
"""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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
from chimed.records import Split
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
class Render:
    """A task for `render`: one part, one stage."""

    stage: Stage
    number: int  # of the part among `parts`
    part: Prepared
    decisions: Path  # folder of <shape>.arrow written by corpus.save
    choice: Choice
    folder: Path  # where the runs go


@dataclass(frozen=True, slots=True)
class Graph:
    """A task for `render_graph`: the facts of all parts, one stage."""

    stage: Stage
    parts: tuple[Prepared, ...]
    decisions: Path
    choice: Choice
    folder: Path


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
    """What one render left: files and bytes by split; rows by department, where the stage takes rows as they are."""

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


def run(task: Render | Graph) -> Runs:
    """Render one part, or the facts of all parts, for one stage into runs."""
    return render_graph(task) if isinstance(task, Graph) else render(task)


def render(task: Render) -> Runs:
    """Render the rows of one part for one stage into runs."""
    writer = _Runs(task.stage, task.folder, task.choice)
    for shape in feeds(task.stage):
        if not task.part.kept.get(shape) or shape == "fact":
            continue
        decision = corpus.read(task.decisions / f"{shape}.arrow")
        inside = decision.part(task.number)
        takes = decision.stays[inside] & chosen(decision.id_hash[inside], task.choice, task.part.source)
        clusters = decision.cluster[inside]
        table = pa.ipc.open_file(pa.memory_map(str(task.part.folder / f"{shape}.arrow")))
        at = 0
        for number in range(table.num_record_batches):
            batch = table.get_batch(number)
            own = slice(at, at + len(batch))
            at += len(batch)
            rows = pa.Table.from_batches([batch]).filter(pa.array(takes[own])).combine_chunks()
            if len(rows):
                writer.add(shape, rows, task.part.split, clusters[own][takes[own]])
    return writer.close()


def render_graph(task: Graph) -> Runs:
    """Render the facts of all parts, as documents of entities or as questions, for one stage into runs."""
    writer = _Runs(task.stage, task.folder, task.choice)
    decision = corpus.read(task.decisions / "fact.arrow")
    tables = []
    for number, part in enumerate(task.parts):
        # What another source knows is not wrong: pairs are checked against all facts, whatever the stage takes.
        known = task.stage == "dpo" or part.source in task.choice.limits
        if part.kept.get("fact") and part.split == "train" and known:
            facts = pa.ipc.open_file(pa.memory_map(str(part.folder / "fact.arrow"))).read_all()
            facts = facts.filter(pa.array(decision.stays[decision.part(number)]))
            tables.append(facts.append_column("source", pa.array([part.source] * len(facts), pa.string())))
    if tables:
        make = {"sft": graph.questions, "dpo": graph.corrupted}.get(task.stage, graph.documents)
        derived = make(pa.concat_tables(tables), tuple(task.choice.limits)).combine_chunks()
        hashes = exact_keys(derived["id"].combine_chunks())[:, 0]
        takes = np.zeros(len(derived), bool)
        for source in task.choice.limits:
            own = pc.equal(derived["source"], source).combine_chunks().to_numpy(zero_copy_only=False)
            rows = np.flatnonzero(own & chosen(hashes, task.choice, source))
            first = np.argsort(scatter(hashes[rows], 4 * task.choice.seed + CHOOSE))
            takes[rows[first[: task.choice.caps.get(source)]]] = True
        derived = derived.filter(pa.array(takes))
        # Questions on one entity stay on one side of the split.
        clusters = exact_keys(derived["title"].combine_chunks())[:, 0] if len(derived) else hashes[:0]
        for at in range(0, len(derived), RUN_ROWS):
            writer.add("fact", derived.slice(at, RUN_ROWS).combine_chunks(), "train", clusters[at : at + RUN_ROWS])
    return writer.close()


class _Runs:
    """Writes batches of stage rows, sorted, to one file a split."""

    def __init__(self, stage: Stage, folder: Path, choice: Choice) -> None:
        self.stage, self.folder, self.choice = stage, folder, choice
        self.partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(self.partial, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        self.partial.mkdir(parents=True)
        self.schema = stages.COLUMNS[stage].append(pa.field("shuffle", pa.uint64()))
        self.files: dict[Split, pa.ipc.RecordBatchFileWriter] = {}
        self.size: Counter[Split] = Counter()
        self.departments: Counter[str] = Counter()

    def add(self, shape: str, rows: pa.Table, split: Split, clusters: UInt64) -> None:
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

    def close(self) -> Runs:
        for file in self.files.values():
            file.close()
        self.partial.rename(self.folder)
        files = {own: self.folder / f"{own}.arrow" for own in self.files}
        return Runs(files, dict(self.size), dict(self.departments))


def shard(task: Shard) -> dict[str, int]:
    """Write one shard: the rows of all runs that fall into its range of the shuffle; how many they are by source."""
    low = task.number * 2**64 // task.count
    high = (task.number + 1) * 2**64 // task.count
    pieces = list(_pieces(task.runs, low, high))
    if not pieces:
        return {}
    table = pa.concat_tables(pieces).combine_chunks()
    if task.dropped is not None:
        table = table.filter(pa.array(~np.isin(table["shuffle"].to_numpy(), np.load(task.dropped)))).combine_chunks()
    table = table.take(pc.sort_indices(table, [("shuffle", "ascending"), ("id", "ascending")])).drop(["shuffle"])
    table = table.replace_schema_metadata(None)
    pq.write_table(table, task.path, compression="zstd", compression_level=3, row_group_size=RUN_ROWS)
    return {entry["values"]: entry["counts"] for entry in table["source"].value_counts().to_pylist()}


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
