"""The build: raw files in, stage folders out, step by step, resumable.

    plan ─> prepare parts (test, then validation, then train, which are checked against the ones before)
         ─> decide duplicates and leaks once for the corpus ─> ledger ─> a folder a stage, manifest last

Everything that took time is kept below OUT/.work under a digest of what it was made from: a build that was killed goes
on from there, a changed raw file, recipe or version does that part anew.
"""

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from chimed import corpus, earlier, engine, ledger, shards
from chimed.corpus import Decision, Prepared, Undecided, settle
from chimed.earlier import Earlier
from chimed.errors import BuildError, SourceError
from chimed.evaluation import Evaluation
from chimed.outcome import Outcome, Progress
from chimed.partition import Part, prepare
from chimed.publish.stage import Stage, graphs, publish
from chimed.publish.statistics import account
from chimed.publish.upload import claim, claim_store, upload
from chimed.recipe import Ingredient, Loaded
from chimed.records import SHAPES, Split
from chimed.remote import Store, told
from chimed.sources import SAMPLE
from chimed.sources.readers import Fingerprint, RawFile, Slice, Unread, find, fingerprint, looked_up, slices
from chimed.spread import Mirrored, clear, shared

SMALL = 8 << 20  # bytes of raw files below which worker processes cost more than they bring
SMALL_FILE = 1 << 20  # bytes of a file below which it shares a part with its neighbours, SMALL bytes together
FEW = 20  # rejects that never stop a build, whatever their share


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for. raw=None builds from the embedded sample; cluster: a Ray cluster's address;
    against: folders of earlier builds, of which no row comes again; brought, sent: the stores of which `raw` and `out`
    are the mirrors."""

    loaded: Loaded
    recipe: Path | None
    raw: Path | None
    out: Path
    stages: tuple[str, ...]
    workers: int
    cluster: str | None = None
    against: tuple[Path, ...] = ()
    brought: Store | None = None
    sent: Store | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A raw file and the part of the recipe that it serves.

    prints: of the file, and of those that its rows are joined with.  digest: of all that decides its rows.
    """

    ingredient: Ingredient
    file: RawFile
    split: Split
    prints: tuple[tuple[RawFile, Fingerprint], ...]
    digest: str


def build(request: Request, progress: Progress) -> Outcome:
    """Build the stages that are asked for. Raises a ChimedError with one sentence on whatever stops it."""
    began = time.perf_counter()
    outcome = Outcome()
    try:
        with told(request.brought, request.sent):
            claim(request.out)
            if request.sent:
                claim_store(request.sent)
            known = _earlier(request)
            with _locked(request.out / ".work"):
                _build(request, known, outcome, progress)
    except OSError as error:
        raise BuildError(_disk(error, request.out)) from error
    outcome.wall = time.perf_counter() - began
    return outcome


def _build(request: Request, known: Earlier, outcome: Outcome, progress: Progress) -> None:
    if request.brought:
        request.brought.bring([item.source.name for item in request.loaded.ingredients], progress.step)
    planned = plan(request, outcome, progress)
    outcome.bytes = sum({(item.ingredient.rank, item.file.name): item.file.size for item in planned}.values())
    with _engine(request, request.workers if outcome.bytes > SMALL else 1) as pool:
        _run(request, planned, known, pool, outcome, progress)
    if request.sent:
        upload(request.sent, list(outcome.stages), progress)
        if request.cluster:
            clear(request.sent)


@contextmanager
def _engine(request: Request, workers: int) -> Iterator[engine.Engine]:
    with engine.start(workers, request.cluster) as pool:
        if request.cluster is None or not (request.brought or request.sent):
            yield pool
        else:
            common = shared(request.brought, request.sent, request.recipe, request.loaded)
            with engine.Processes(request.workers) as own:
                yield Mirrored(pool, own, common)


def _earlier(request: Request) -> Earlier:
    """The builds to compare with."""
    if request.against and request.loaded.recipe.repeats == "keep":
        raise BuildError("--against leaves out what comes again, and the recipe says `repeats: keep`; take one of them")
    if any(folder.resolve() == request.out.resolve() for folder in request.against):
        raise BuildError(f"{request.out}: is --out and --against at once; give the new build a folder of its own")
    return earlier.load(request.against)


def _disk(error: OSError, out: Path) -> str:
    what = f"{error.filename or out}: {error.strerror or error}"
    return f"{what}; make room or give another --out, then run the same command again: finished parts are kept"


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BuildError(
                f"{work.parent}: another build is writing here; wait for it or give another --out"
            ) from error
        yield


def code_digest() -> str:
    """sha256 of this package's code: work of another version is done anew."""
    digest = hashlib.sha256(f"{pa.__version__} {np.__version__}".encode())
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def plan(request: Request, outcome: Outcome, progress: Progress) -> list[Planned]:
    """The raw files of the recipe's sources by rank and name, each with a digest of all that decides its rows."""
    raw = request.raw or SAMPLE
    if not raw.is_dir():
        raise SourceError(f"{raw}: no such folder; --raw names the folder that holds a folder for each source")
    code, planned = code_digest(), []
    found = []
    for item in request.loaded.ingredients:
        if not (raw / item.source.name).is_dir():
            outcome.missing.append(item.source.name)
            continue
        files, unread = find(item.source, raw)
        skip = request.loaded.recipe.sources[item.rank].skip
        skipped = [file for file in files if any(fnmatch(file.name, glob) for glob in skip)]
        unread += [Unread(name, "skipped by the recipe") for name in dict.fromkeys(file.name for file in skipped)]
        files = [file for file in files if file not in skipped]
        if unread:
            outcome.unread[item.source.name] = unread
        if joined := looked_up(files):
            outcome.looked_up[item.source.name] = [file.name for file in joined]
        if not files:
            outcome.missing.append(item.source.name)
        found += [(item, file) for file in files]
    named = request.recipe is not None and request.raw is not None
    if outcome.missing and (named or not found):
        names = ", ".join(outcome.missing)
        raise SourceError(
            f"{raw}: no files of {names}; chimed sources --json says where to get them and what they are called"
        )
    own_rows: dict[int, Any] = {}
    known = _fingerprints([file for _, file in found], request.workers, progress)
    for item, file in found:
        needed = [file, *looked_up([file])]
        if item.rank not in own_rows:
            entry = request.loaded.recipe.sources[item.rank]
            others = {"share", "cap", "stages", "skip", "max_rejects", "license"}
            own_rows[item.rank] = entry.model_dump(mode="json", exclude=others)
        split = item.splits.get(file.split, file.split)
        content = [(one.name, known[one.path].sha256) for one in needed]
        digest = _digest(code, own_rows[item.rank], item.code, file.split, split, request.loaded.recipe.script, content)
        planned.append(Planned(item, file, split, tuple((one, known[one.path]) for one in needed), digest))
    return planned


def _fingerprints(files: Sequence[RawFile], workers: int, progress: Progress) -> dict[Path, Fingerprint]:
    """Those of the files, and of what they are joined with, by file on disk: members of an archive share one."""
    needed = {one.path: one for file in files for one in (file, *looked_up([file]))}
    advance = progress.step("hash raw files", sum(file.size for file in needed.values()))
    known = {}
    with ThreadPoolExecutor(workers) as threads:  # hashing holds no lock
        for one, found in zip(needed.values(), threads.map(fingerprint, needed.values()), strict=True):
            known[one.path] = found
            advance(one.size)
    return known


def _run(
    request: Request,
    planned: Sequence[Planned],
    known: Earlier,
    pool: engine.Engine,
    outcome: Outcome,
    progress: Progress,
) -> None:
    work = request.out / ".work"
    parts, items = _prepare_all(request, planned, pool, outcome, progress)
    _too_many_rejects(request.loaded, parts, outcome)
    prepared = tuple(part for part, _ in parts)
    near = request.loaded.recipe.near if request.loaded.recipe.repeats == "drop" else None
    every = (*prepared, *known.parts)
    digest = _digest([part.folder.name for part in every], near, *sorted({path.name for path in known.decisions}))
    folder = work / "corpus" / digest
    folder.mkdir(parents=True, exist_ok=True)
    undecided = {
        name: Undecided(
            name, every, known.gone(name), near, 1 if name == "fact" else request.workers, folder / f"{name}.arrow"
        )
        for name in SHAPES
    }
    stages = [Stage(name, request.loaded, prepared, folder, request.out, digest) for name in request.stages]
    decisions = _decide(undecided, stages, pool, outcome, progress)
    if request.against:
        outcome.again = {name: _again(decision, len(prepared)) for name, decision in decisions.items()}
    write = ledger.Write(prepared, known.parts, folder, items, request.out / "ledger.parquet")
    publish(stages, decisions, pool.submit(account, write), outcome, pool, progress)
    earlier.save(work, digest, prepared)
    if outcome.empty and not outcome.stages and any(outcome.again.values()):
        raise BuildError(
            f"{', '.join(outcome.empty)}: what the sources have is in an earlier build already; "
            "build without --against to have it again"
        )
    if outcome.empty and not outcome.stages:
        raise BuildError(
            f"{', '.join(outcome.empty)}: no row of the sources in the recipe goes into this stage; "
            "chimed sources shows which stages each source serves"
        )


def _decide(
    undecided: dict[str, Undecided], stages: Sequence[Stage], pool: engine.Engine, outcome: Outcome, progress: Progress
) -> dict[str, Decision]:
    """Decide for the rows of all shapes: for facts in the pool, which goes on to merge them, for the others here, since
    it may take more memory than a worker has."""
    advance = progress.step("find duplicates", len(undecided))
    merged = pool.submit(shards.graphs, shards.Graphs(undecided["fact"], tuple(graphs(stages))))
    seconds = 0.0
    for name, task in undecided.items():
        if name != "fact":
            seconds += settle(task)
            advance(1)
    facts, outcome.seconds["render"] = merged()
    advance(1)
    outcome.seconds["duplicates"] = seconds + facts
    return {name: corpus.read(task.path) for name, task in undecided.items()}


def _again(decision: Decision, own: int) -> int:
    """How many rows of the first `own` parts repeat one of the others."""
    first = decision.starts[own]
    return int((decision.by[:first] >= first).sum())


def _prepare_all(
    request: Request, planned: Sequence[Planned], pool: engine.Engine, outcome: Outcome, progress: Progress
) -> tuple[list[tuple[Prepared, dict[str, Any]]], pa.Array]:
    """Prepare evaluation sets first, then what is checked against them; the parts in plan order, and the items."""
    work = request.out / ".work"
    advance = progress.step("read, clean, mask, key", sum(entry.file.size for entry in planned))
    done: dict[int, list[tuple[Prepared, dict[str, Any]]]] = {}
    evaluation = Evaluation()
    index: Path | None = None
    for split, pieces in _cut(planned):
        tasks, places = [], []
        for place, entries, own in pieces:
            made_of = [(e.digest, piece.start, piece.stop) for e, piece in zip(entries, own, strict=True)]
            folder = work / "parts" / _digest(*made_of, index and index.name)
            whose = (request.recipe, request.loaded.digest, entries[0].ingredient.rank)
            prints = tuple(dict.fromkeys(one for entry in entries for one in entry.prints))
            tasks.append(Part(*whose, own, prints, split, folder, index))
            places.append(place)
        results: dict[int, dict[str, Any]] = {}
        for number, result in pool.map(prepare, tasks):
            results[number] = result
            advance(sum(map(_span, tasks[number].slices)))
        for number, task in enumerate(tasks):
            source, result = planned[places[number]].ingredient.source.name, results[number]
            files = tuple(result["files"].items())
            part = Prepared(task.folder, source, files, task.rank, task.split, result["kept"])
            done.setdefault(places[number], []).append((part, results[number]))
        if split != "train":
            for part, result in (entry for place in sorted(set(places)) for entry in done[place]):
                evaluation.add(part, result["held"] > 0)
            index = evaluation.index(work, code_digest())
    parts = [part for place in sorted(done) for part in done[place]]
    for _, result in parts:
        _add(outcome.seconds, result["seconds"])
        _add(outcome.reasons, result["reasons"])
        _add(outcome.masked, result["masked"])
    return parts, pa.array(evaluation.ids, pa.string())


_Pieces = tuple[int, tuple[Planned, ...], tuple[Slice, ...]]


def _cut(planned: Sequence[Planned]) -> Iterator[tuple[Split, list[_Pieces]]]:
    """What the parts of each split read, evaluation sets first. To cut training files takes reading them for their line
    ends: that is done while evaluation sets are worked on.
    """
    order: tuple[Split, ...] = ("test", "validation", "train")
    with ThreadPoolExecutor(1) as thread:
        cut = [thread.submit(lambda split: list(_pieces(planned, split)), split) for split in order]
        for split, pieces in zip(order, cut, strict=True):
            yield split, pieces.result()


def _pieces(planned: Sequence[Planned], split: Split) -> Iterator[_Pieces]:
    """What the parts of a split read: the place of the first file, and of each piece the file that it is of.

    A part is a piece of one file, or neighbouring small files of one source. Files of evaluation sets stay apart: two
    of them may be two forms of one set.
    """
    few: list[tuple[int, Planned, Slice]] = []
    size = 0
    for place, entry in enumerate(planned):
        if entry.split != split:
            continue
        small = split == "train" and entry.file.size <= SMALL_FILE
        fits = small and size + entry.file.size <= SMALL and few[:1] and few[0][1].ingredient is entry.ingredient
        if few and not fits:
            yield _together(few)
            few, size = [], 0
        pieces = slices(entry.ingredient.source, entry.file)
        if small:
            few.append((place, entry, pieces[0]))
            size += entry.file.size
        else:
            yield from ((place, (entry,), (piece,)) for piece in pieces)
    if few:
        yield _together(few)


def _together(few: Sequence[tuple[int, Planned, Slice]]) -> _Pieces:
    places, entries, pieces = zip(*few, strict=True)
    return places[0], entries, pieces


def _span(piece: Slice) -> int:
    return piece.file.size if piece.stop < 0 else piece.stop - piece.start


def _add(total: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def _too_many_rejects(loaded: Loaded, parts: Sequence[tuple[Prepared, dict[str, Any]]], outcome: Outcome) -> None:
    """Stop when a source loses more rows than it may: its format has changed, or the folder holds something else."""
    for item in loaded.ingredients:
        own = [result for part, result in parts if part.source == item.source.name]
        units = sum(result["units"] for result in own)
        rejects = sum(sum(result["reasons"].values()) - result["held"] for result in own)
        if rejects > max(FEW, item.source.max_rejects * units):
            examples = [example for result in own for example in result["examples"]][:3]
            raise BuildError(
                f"{item.source.name}: {rejects:,} of {units:,} rows were rejected, {item.source.max_rejects:.0%} are "
                "allowed; look at the first ones and mend the files, or raise max_rejects in the recipe:\n  "
                + "\n  ".join(examples)
            )
