"""The folders of stages: shuffled shards, card and manifest, each complete or absent."""

import hashlib
import importlib.metadata
import json
import platform
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chimed import shards
from chimed.corpus import Decision, Prepared
from chimed.engine import Engine
from chimed.ledger import Counts
from chimed.outcome import Outcome, Progress
from chimed.publish.balance import balance
from chimed.publish.describe import describe
from chimed.publish.finished import Finished
from chimed.publish.statistics import Tally
from chimed.recipe import Loaded
from chimed.records import SPLITS, Split
from chimed.stages import Measured

_MOST = 200  # departments in a manifest


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage to be written: from which parts and decisions, to where."""

    name: Any
    loaded: Loaded
    parts: tuple[Prepared, ...]
    decisions: Path
    out: Path
    corpus: str  # digest of the corpus

    @property
    def digest(self) -> str:
        """What decides the bytes of the folder."""
        return hashlib.sha256(f"{self.name} {self.corpus} {self.loaded.digest}".encode()).hexdigest()

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources whose rows it takes, by rank."""
        served = [item.source for item in self.loaded.ingredients]
        return tuple(source.name for source in served if self.name == "eval" or self.name in source.stages)

    @property
    def graph(self) -> shards.Merge | None:
        """What makes the graph that it is worded from."""
        return shards.graph_of(self.name, self.sources, self.parts, self.decisions)

    @property
    def folder(self) -> Path:
        """Where it belongs."""
        return self.out / str(self.name)

    @property
    def work(self) -> Path:
        """Where it is made."""
        return self.out / ".work" / "stages" / self.digest[:24]

    @property
    def partial(self) -> Path:
        """The folder before it is in its place."""
        return self.work / "folder"


@dataclass(frozen=True, slots=True)
class _Written:
    """The shards of a stage: rows, each piece with its split; digests by file; pairs and departments as its manifest
    tells them."""

    measured: list[tuple[Split, Measured]]
    files: dict[str, str]
    pairs: dict[str, dict[str, Any]]
    departments: dict[str, int]


def graphs(stages: Sequence[Stage]) -> list[shards.Merge]:
    """What makes the graphs that stages which are not there yet are worded from, each once."""
    return list({task.path: task for stage in stages if not _before(stage) if (task := stage.graph)}.values())


def publish(
    stages: Sequence[Stage],
    decisions: dict[str, Decision],
    ledger: Callable[[], tuple[Counts, Tally]],
    outcome: Outcome,
    pool: Engine,
    progress: Progress,
) -> None:
    """Write OUT/<stage> of each stage, manifest last; its manifest, or that no row goes into it, into the outcome.

    ledger: waits for the ledger that is written beside and gives its counts.
    The stages are rendered together, so that no worker waits for the last part of each.
    """
    finished = {stage.name: manifest for stage in stages if (manifest := _before(stage))}
    todo = [stage for stage in stages if stage.name not in finished]
    runs = _render(todo, decisions, outcome, pool, progress)
    written = _shards(todo, runs, outcome, pool, progress)
    outcome.counts, tally = ledger()
    cleared = []
    for stage in todo:
        if any(len(own.characters) for _, own in written[stage.name].measured):
            finished[stage.name] = _finish(stage, written[stage.name], tally, outcome, pool, progress)
        cleared.append(pool.submit(shutil.rmtree, stage.work))  # gigabytes of runs: beside the next stage
    for stage in stages:
        if stage.name in finished:
            outcome.stages[stage.name] = finished[stage.name]
        else:
            outcome.empty.append(stage.name)
    for removed in cleared:
        removed()


def _before(stage: Stage) -> dict[str, Any] | None:
    """The manifest of a stage that an earlier build has finished."""
    manifest = stage.folder / "manifest.json"
    if not manifest.exists():
        return None
    before: dict[str, Any] = json.loads(manifest.read_text())
    whole = before.get("digest") == stage.digest and all((stage.folder / name).exists() for name in before["files"])
    return before if whole else None


def _finish(
    stage: Stage, written: _Written, tally: Tally, outcome: Outcome, pool: Engine, progress: Progress
) -> dict[str, Any]:
    """Write card and manifest, and put the folder in its place."""
    content = _manifest(stage, written, outcome)
    content["files"] = {p.name: "" for p in sorted(stage.partial.iterdir())}
    found = Finished(stage.name, stage.partial, content)
    content |= describe(found, written.measured, stage.loaded, tally, pool, progress)
    paths = sorted(stage.partial.iterdir())
    content["files"] = {path.name: written.files.get(path.name) or shards.sha256(path) for path in paths}
    text = json.dumps(content, ensure_ascii=False, indent=1)
    (stage.partial / "manifest.json.partial").write_text(text + "\n", encoding="utf-8")
    (stage.partial / "manifest.json.partial").rename(stage.partial / "manifest.json")
    if stage.folder.exists():
        stage.folder.rename(stage.work / "before")
    stage.partial.rename(stage.folder)
    return content


def _choice(stage: Stage, decisions: dict[str, Decision]) -> shards.Choice:
    """Shares and caps as limits on the hash of an id: nested choices for nested shares, whatever the workers."""
    recipe = stage.loaded.recipe
    limits: dict[str, int] = {}
    caps: dict[str, int] = {}
    for item in stage.loaded.ingredients:
        source = item.source
        if source.name not in stage.sources:
            continue
        limits[source.name] = shards.limit(1.0 if stage.name == "eval" else item.share)
        if item.cap is None or stage.name == "eval":
            continue
        caps[source.name] = item.cap
        own = [
            number for number, part in enumerate(stage.parts) if part.source == source.name and part.split == "train"
        ]
        served = [decisions[shape] for shape in shards.feeds(stage.name) if shape != "fact"]
        kept = [d.id_hash[d.part(n)][d.stays[d.part(n)]] for d in served for n in own]
        hashes = np.sort(shards.scatter(np.concatenate(kept), 4 * recipe.seed + shards.CHOOSE)) if kept else np.zeros(0)
        if len(hashes) > item.cap:
            limits[source.name] = min(limits[source.name], int(hashes[item.cap - 1]))
    return shards.Choice(limits, caps, recipe.seed, recipe.validation, recipe.rag_length)


def _render(
    stages: Sequence[Stage],
    decisions: dict[str, Decision],
    outcome: Outcome,
    pool: Engine,
    progress: Progress,
) -> dict[str, list[shards.Runs]]:
    """The runs of each stage, in the order of the parts."""
    if not stages:
        return {}
    parts, corpus = stages[0].parts, stages[0].decisions  # the same for all of them
    choices = {stage.name: _choice(stage, decisions) for stage in stages}

    def target(stage: Stage, name: str) -> shards.Target:
        return shards.Target(stage.name, choices[stage.name], stage.work / name)

    def targets(part: Prepared, name: str) -> tuple[shards.Target, ...]:
        shapes = {shape for shape, count in part.kept.items() if count and shape != "fact"}
        return tuple(
            target(stage, name)
            for stage in stages
            if part.source in stage.sources
            if (part.split == "train") is (stage.name != "eval") and shapes.intersection(shards.feeds(stage.name))
        )

    # Facts of all parts are one graph: worded first, because that takes longest.
    tasks: list[shards.Render | shards.Word] = []
    tasks += shards.words([(graph.path, target(stage, "graph")) for stage in stages if (graph := stage.graph)])
    tasks += [
        shards.Render(part, number, corpus, own)
        for number, part in enumerate(parts)
        if (own := targets(part, f"{number:06d}"))
    ]
    advance = progress.step("render", len(tasks))
    seconds = 0.0
    found: dict[str, dict[str, shards.Runs]] = {stage.name: {} for stage in stages}
    for number, (runs, took) in pool.map(shards.run, tasks):
        for to, one in zip(tasks[number].targets, runs, strict=True):
            found[to.stage][to.folder.name] = one
        seconds += took
        advance(1)
    outcome.seconds["render"] = outcome.seconds.get("render", 0.0) + seconds
    return {name: [runs[folder] for folder in sorted(runs)] for name, runs in found.items()}


def _shards(
    stages: Sequence[Stage],
    runs: dict[str, list[shards.Runs]],
    outcome: Outcome,
    pool: Engine,
    progress: Progress,
) -> dict[str, _Written]:
    """Write the shards of every split of every stage."""
    tasks: list[shards.Shard] = []
    places: list[tuple[Any, Split]] = []
    pairs: dict[str, dict[str, dict[str, Any]]] = {}
    for stage in stages:
        own = runs[stage.name]
        balanced = stage.name == "dpo" and stage.loaded.recipe.length_balance
        pairs[stage.name], dropped = balance(own, stage.work) if balanced else ({}, None)
        shutil.rmtree(stage.partial, ignore_errors=True)
        stage.partial.mkdir(parents=True)
        for split in SPLITS:
            files = tuple(run.files[split] for run in own if split in run.files)
            count = max(1, -(-sum(run.size.get(split, 0) for run in own) // shards.SHARD_BYTES))
            for number in range(count if files else 0):
                path = stage.partial / f"{split}-{number:05d}-of-{count:05d}.parquet"
                tasks.append(shards.Shard(files, dropped, number, count, path))
                places.append((stage.name, split))
    advance = progress.step("write", len(tasks))
    found: dict[int, shards.Written] = {}
    for number, one in pool.map(shards.shard, tasks):
        found[number] = one
        advance(1)
    outcome.seconds["shards"] = sum(one.seconds for one in found.values())
    written = {stage.name: _Written([], {}, pairs[stage.name], _departments(runs[stage.name])) for stage in stages}
    for number, (name, split) in enumerate(places):
        written[name].measured.extend((split, piece) for piece in found[number].measured)
        written[name].files[tasks[number].path.name] = found[number].sha256
    return written


def _manifest(stage: Stage, written: _Written, outcome: Outcome) -> dict[str, Any]:
    megabytes, seconds, sources = outcome.bytes / 1e6, outcome.seconds, _sources(written.measured)
    rows = {split: total for split in SPLITS if (total := sum(own.get(split, 0) for own in sources.values()))}
    return {
        "stage": stage.name,
        "digest": stage.digest,
        "recipe_digest": stage.loaded.digest,
        "recipe": stage.loaded.recipe.model_dump(mode="json"),
        "rows": rows,
        "sources": sources,
        "licences": _licences(stage.loaded, sources),
        "counts": outcome.counts,
        "rejects": dict(sorted(outcome.reasons.items())),
        "masked": dict(sorted(outcome.masked.items())),
        **({"again": outcome.again} if outcome.again else {}),
        "files": {},
        "versions": _versions(),
        "commit": _commit(),
        # Measured, so the only part of a build that differs from one run to the next.
        "seconds": {step: round(value, 3) for step, value in seconds.items()},
        "mb_per_second": {step: round(megabytes / max(value, 1e-3), 1) for step, value in seconds.items()},
        "raw_mb": round(megabytes, 3),
        "pairs": written.pairs,
        "departments": written.departments,
    }


def _sources(measured: Sequence[tuple[Split, Measured]]) -> dict[str, dict[Split, int]]:
    """Rows by source and split."""
    rows: defaultdict[str, Counter[Split]] = defaultdict(Counter)
    for split, own in measured:
        for entry in own.source.value_counts().to_pylist():
            rows[entry["values"]][split] += entry["counts"]
    return {source: {split: own[split] for split in SPLITS if own[split]} for source, own in sorted(rows.items())}


def _departments(runs: list[shards.Runs]) -> dict[str, int]:
    """Rows by department, most first; a column of free text does not fill the manifest."""
    counts: Counter[str] = Counter()
    for own in runs:
        counts.update(own.departments)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST])


def _licences(loaded: Loaded, sources: Collection[str]) -> dict[str, dict[str, str]]:
    """What each of these sources is called, where it comes from and under which licence it is published."""
    named = {item.source.name: item.source for item in loaded.ingredients}
    return {
        name: {"title": own.title, "homepage": own.homepage, "license": own.license}
        for name in sources
        for own in [named[name]]
    }


def _versions() -> dict[str, str]:
    names = ("chimed", "pyarrow", "numpy", "numba", "opencc")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def _commit() -> str:
    """The commit of a source checkout, "" for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
