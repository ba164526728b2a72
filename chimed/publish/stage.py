"""A stage's folder: shuffled shards, card and manifest, complete or absent."""

import hashlib
import importlib.metadata
import json
import platform
import shutil
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chimed import shards
from chimed.corpus import Decision, Prepared
from chimed.engine import Engine
from chimed.outcome import Outcome, Progress
from chimed.publish.balance import balance
from chimed.publish.describe import describe
from chimed.publish.finished import Finished
from chimed.recipe import Loaded
from chimed.records import SPLITS

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


def publish(
    stage: Stage, decisions: dict[str, Decision], outcome: Outcome, pool: Engine, progress: Progress
) -> dict[str, Any] | None:
    """Write OUT/<stage>, manifest last; the manifest, or None when no row goes into the stage."""
    folder = stage.out / stage.name
    manifest = folder / "manifest.json"
    if manifest.exists():
        before: dict[str, Any] = json.loads(manifest.read_text())
        if before.get("digest") == stage.digest and all((folder / name).exists() for name in before["files"]):
            return before
    work = stage.out / ".work" / "stages" / stage.digest[:24]
    shutil.rmtree(work, ignore_errors=True)
    began = time.perf_counter()
    runs = _render(stage, decisions, work, pool, progress)
    pairs, dropped = balance(runs, work) if stage.name == "dpo" and stage.loaded.recipe.length_balance else ({}, None)
    rendered = time.perf_counter()
    partial = work / "folder"
    partial.mkdir(parents=True)
    sources = _shards(stage, runs, dropped, partial, pool, progress)
    rows: dict[str, int] = {
        split: total for split in SPLITS if (total := sum(own.get(split, 0) for own in sources.values()))
    }
    if not rows:
        shutil.rmtree(work)
        return None
    seconds = {**outcome.seconds, "render": rendered - began, "shards": time.perf_counter() - rendered}
    content = _manifest(stage, rows, sources, outcome, seconds)
    content["pairs"] = pairs
    content["departments"] = _departments(runs)
    content["files"] = {p.name: "" for p in sorted(partial.iterdir())}
    found = Finished(stage.name, partial, content)
    content |= describe(found, stage.loaded, stage.out / "ledger.parquet", pool, progress)
    content["files"] = {p.name: _sha256(p) for p in sorted(partial.iterdir())}
    text = json.dumps(content, ensure_ascii=False, indent=1)
    (partial / "manifest.json.partial").write_text(text + "\n", encoding="utf-8")
    (partial / "manifest.json.partial").rename(partial / "manifest.json")
    if folder.exists():
        folder.rename(work / "before")
    partial.rename(folder)
    shutil.rmtree(work)
    return content


def _choice(stage: Stage, decisions: dict[str, Decision]) -> shards.Choice:
    """Shares and caps as limits on the hash of an id: nested choices for nested shares, whatever the workers."""
    recipe = stage.loaded.recipe
    limits: dict[str, int] = {}
    caps: dict[str, int] = {}
    for item in stage.loaded.ingredients:
        source = item.source
        if stage.name != "eval" and stage.name not in source.stages:
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
    stage: Stage, decisions: dict[str, Decision], work: Path, pool: Engine, progress: Progress
) -> list[shards.Runs]:
    choice = _choice(stage, decisions)
    served = [
        (number, part)
        for number, part in enumerate(stage.parts)
        if part.source in choice.limits and (part.split == "train") == (stage.name != "eval")
    ]
    tasks: list[shards.Render | shards.Graph] = [
        shards.Render(stage.name, number, part, stage.decisions, choice, work / f"{number:06d}")
        for number, part in served
        if any(part.kept.get(shape) for shape in shards.feeds(stage.name) if shape != "fact")
    ]
    if "fact" in shards.feeds(stage.name) and any(part.kept.get("fact") for _, part in served):
        # First, because it takes longest.
        tasks.insert(0, shards.Graph(stage.name, stage.parts, stage.decisions, choice, work / "graph"))
    advance = progress.step(f"render {stage.name}", len(tasks))
    runs: dict[int, shards.Runs] = {}
    for number, run in pool.map(shards.run, tasks):
        runs[number] = run
        advance(1)
    return [runs[number] for number in sorted(runs)]


def _shards(
    stage: Stage,
    runs: list[shards.Runs],
    dropped: Path | None,
    folder: Path,
    pool: Engine,
    progress: Progress,
) -> dict[str, dict[str, int]]:
    """Write the shards of every split; rows by source and split."""
    tasks, splits = [], []
    for split in SPLITS:
        files = tuple(run.files[split] for run in runs if split in run.files)
        if files:
            count = max(1, -(-sum(run.size.get(split, 0) for run in runs) // shards.SHARD_BYTES))
            for number in range(count):
                path = folder / f"{split}-{number:05d}-of-{count:05d}.parquet"
                tasks.append(shards.Shard(files, dropped, number, count, path))
                splits.append(split)
    advance = progress.step(f"write {stage.name}", len(tasks))
    rows: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for number, written in pool.map(shards.shard, tasks):
        for source, count in written.items():
            rows[source][splits[number]] += count
        advance(1)
    return {source: {s: own[s] for s in SPLITS if own[s]} for source, own in sorted(rows.items())}


def _manifest(
    stage: Stage,
    rows: dict[str, int],
    sources: dict[str, dict[str, int]],
    outcome: Outcome,
    seconds: dict[str, float],
) -> dict[str, Any]:
    megabytes = outcome.bytes / 1e6
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
        "files": {},
        "versions": _versions(),
        "commit": _commit(),
        # Measured, so the only part of a build that differs from one run to the next.
        "seconds": {step: round(value, 3) for step, value in seconds.items()},
        "mb_per_second": {step: round(megabytes / max(value, 1e-3), 1) for step, value in seconds.items()},
        "raw_mb": round(megabytes, 3),
    }


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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
