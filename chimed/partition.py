"""One part of the raw files on its way to clean records: read, parse, clean, mask, judge, key, check for leaks.

A part is worked on alone, in any process, and leaves a folder that is complete or absent (it is renamed into place):

    units.arrow          one row a unit, in reading order: id, shape, row, reason, detail. A unit is a record, or a raw
                         row or a record that was rejected; `row` is its place in the shape's tables, -1 for rejects
    <shape>.arrow        the records that passed, cleaned and masked
    <shape>.keys.arrow   their keys, row for row (see KEYS)
    held.arrow           questions of evaluation items without a key and their options, folded: rejected, but they
                         must not train
    rejects.arrow        the first rejects of each reason as text to look at, cleaned and masked
    done.json            counts, units a file, first rejects, seconds a step
"""

import gc
import json
import re
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from chimed import text
from chimed.errors import RowError, SourceError
from chimed.keys import KEYS, folded_options, key_table
from chimed.leakage import Index
from chimed.quality import verdicts
from chimed.recipe import Loaded, load_recipe
from chimed.records import (
    SCHEMAS,
    SHAPES,
    Body,
    Dialogue,
    Exam,
    Fact,
    Passage,
    Preference,
    Split,
    body_table,
    map_texts,
)
from chimed.sources.archives import stamp
from chimed.sources.readers import Fingerprint, RawFile, Slice, many
from chimed.sources.spec import Many, Row

BATCH_UNITS = 8192
BATCH_CHARS = 2 << 20  # about 6 MB of UTF-8, and a few times that while it is worked on
EXAMPLES = 5  # rejects kept a part, to show when there are too many
SHOWN, SHOWN_CHARS = 2, 1000  # rejects of a reason whose text is kept a part, and its longest
_NUMBERS = {name: number for number, name in enumerate(SHAPES)}

UNITS = pa.schema(
    [("id", pa.string()), ("shape", pa.int8()), ("row", pa.int32()), ("reason", pa.string()), ("detail", pa.string())]
)

NAMED = pa.schema([("id", pa.string()), ("text", pa.string())])
HELD = NAMED.append(pa.field("options", pa.string()))


@dataclass(frozen=True, slots=True)
class Part:
    """A task for `prepare`. It names the source by its rank in the recipe, since parsers do not travel.

    slices: a piece of a large file, or small files as they are.
    prints: what its files, and those that their rows are joined with, were when the build was planned.
    index: the evaluation texts that this part's rows are checked against, or None.
    """

    recipe: Path | None
    digest: str  # of the recipe
    rank: int
    slices: tuple[Slice, ...]
    prints: tuple[tuple[RawFile, Fingerprint], ...]
    split: Split
    folder: Path
    index: Path | None


@lru_cache(maxsize=1)
def _loaded(recipe: Path | None, digest: str) -> Loaded:
    loaded = load_recipe(recipe)
    if loaded.digest != digest:
        raise SourceError(f"{recipe}: changed while the build ran; run it again")
    return loaded


@lru_cache(maxsize=1)
def _index(path: Path) -> Index:
    return Index.load(path)


def prepare(part: Part) -> dict[str, Any]:
    """Work on one part and leave its folder; returns what done.json holds. A part that is done is not done again."""
    done = part.folder / "done.json"
    if not done.exists():
        partial = part.folder.with_name(part.folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with _uncollected():
            _Work(part, partial).run()
        for file, seen in part.prints:
            if stamp(file) != (seen.size, seen.mtime_ns):
                raise SourceError(f"{file.path}: changed while it was read; run again when nothing writes to it")
        partial.rename(part.folder)
    return json.loads(done.read_text())  # type: ignore[no-any-return]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for cycles, of which records have none: it would walk over all of a batch again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# The shape of a body and its characters, near enough for a batch: exam items and preference pairs are all of one size.
_KINDS: dict[type[Body], tuple[str, Callable[[Any], int]]] = {
    Dialogue: ("dialogue", lambda body: sum([len(turn.content) for turn in body.turns])),
    Fact: ("fact", lambda body: len(body.tail)),
    Passage: ("passage", lambda body: len(body.text)),
    Exam: ("exam", lambda _: 512),
    Preference: ("preference", lambda _: 512),
}


class _Work:
    """The state of one part: the units and records of the batch at hand, open files, counts."""

    def __init__(self, part: Part, folder: Path) -> None:
        loaded = _loaded(part.recipe, part.digest)
        self.part, self.folder, self.script = part, folder, loaded.recipe.script
        self.source = loaded.ingredients[part.rank].source
        self.index = _index(part.index) if part.index else None
        self.files: dict[str, pa.ipc.RecordBatchFileWriter] = {}
        self.kept: Counter[str] = Counter()
        self.masked: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.unparsed: Counter[str] = Counter()  # rows that gave no record, by reason
        self.examples: list[str] = []
        self.held: list[tuple[str, str, tuple[str, ...]]] = []
        self.shown: dict[str, list[tuple[str, str]]] = defaultdict(list)  # reason -> (id, text)
        self.counts = Counter(rows=0, units=0)
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.clock = time.process_time()
        self._next()

    def _next(self) -> None:
        self.ids: list[str] = []
        self.rejects: dict[int, RowError] = {}
        self.texts: dict[str, str] = {}  # of rejects, by id
        # Of each shape the places of its records among the units, and their bodies.
        self.batch: dict[str, tuple[list[int], list[Body]]] = {name: ([], []) for name in SHAPES}
        self.many: dict[str, list[tuple[npt.NDArray[np.int64], tuple[pa.Array, ...]]]] = {name: [] for name in SHAPES}
        self.chars = 0

    def lap(self, step: str) -> None:
        now = time.process_time()
        self.seconds[step] += now - self.clock
        self.clock = now

    def run(self) -> None:
        units: dict[str, int] = {}
        for piece in self.part.slices:
            before = self.counts["units"] + len(self.ids)
            named = f"{self.source.name}/{piece.file.name}#"
            for number, row in many(self.source, piece):
                if isinstance(row, Many):
                    self.take_many(named, number, row)
                else:
                    self.counts["rows"] += 1
                    self.take(f"{named}{number}", row)
                if len(self.ids) >= BATCH_UNITS or self.chars >= BATCH_CHARS:
                    self.flush()
            units[piece.file.name] = self.counts["units"] + len(self.ids) - before
        self.flush()
        if self.held:
            ids, asked, options = zip(*self.held, strict=True)
            questions = text.fold(text.clean(pa.array(asked, pa.string())))
            given = folded_options(pa.array(options, pa.list_(pa.string())))
            self.write("held", HELD, pa.Table.from_arrays([pa.array(ids, pa.string()), questions, given], schema=HELD))
        if shown := [named for reason in sorted(self.shown) for named in self.shown[reason]]:
            ids, texts = (pa.array(column, pa.string()) for column in zip(*shown, strict=True))
            masked, _ = text.mask(text.clean(texts, script=self.script))
            self.write("rejects", NAMED, pa.Table.from_arrays([ids, masked], schema=NAMED))
        for file in self.files.values():
            file.close()
        done: dict[str, Any] = {**self.counts, "files": units, "held": len(self.held)}
        for name in ("kept", "masked", "reasons", "seconds"):
            done[name] = dict(sorted(getattr(self, name).items()))
        (self.folder / "done.json").write_text(json.dumps({**done, "examples": self.examples}, ensure_ascii=False))

    def take(self, own: str, row: Row | RowError) -> None:
        """Add the units of one raw row to the batch. own: the id of the row."""
        if isinstance(row, RowError):
            return self.reject(own, row)
        try:
            bodies = tuple(self.source.parse(row))
        except RowError as error:
            return self.reject(own, error, row)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            return self.reject(own, RowError("parse-failed", f"{type(error).__name__}: {error}"), row)
        if not bodies:
            return self.reject(own, RowError("no-record"), row)
        one = len(bodies) == 1
        for number, body in enumerate(bodies, 1):
            shape, size = _KINDS[type(body)]
            places, held = self.batch[shape]
            places.append(len(self.ids))
            held.append(body)
            self.ids.append(own if one else f"{own}/{number}")
            self.chars += size(body)
        return None

    def take_many(self, named: str, first: int, found: Many) -> None:
        """Add the units of rows that were parsed at once; first: the number of the first of them."""
        self.counts["rows"] += found.count
        places, at = [], 0
        for place, row in sorted(found.alone.items()):
            places.append(np.arange(place - at) + len(self.ids))
            self.ids += [f"{named}{number}" for number in range(first + at, first + place)]
            self.take(f"{named}{first + place}", row)
            at = place + 1
        places.append(np.arange(found.count - at) + len(self.ids))
        self.ids += [f"{named}{number}" for number in range(first + at, first + found.count)]
        self.many[found.shape].append((np.concatenate(places), found.columns))
        self.chars += sum(column.nbytes for column in found.columns) // 3

    def reject(self, own: str, error: RowError, row: Row | None = None) -> None:
        self.rejects[len(self.ids)] = error
        self.ids.append(own)
        self.unparsed[error.reason] += row is not None
        if row is not None and self.unparsed[error.reason] <= SHOWN:
            self.texts[self.ids[-1]] = _shown(row)
        if error.held and self.part.split != "train":
            self.held.append((self.ids[-1], error.held, error.options))

    def flush(self) -> None:
        self.lap("read")
        named = pa.array(self.ids, pa.string())
        places, shapes = np.full(len(self.ids), -1, np.int32), np.full(len(self.ids), -1, np.int8)
        for shape, (units, bodies) in sorted(self.batch.items()):
            if not bodies and not self.many[shape]:
                continue
            shapes[units] = _NUMBERS[shape]
            at, table = self.mixed(shape, named, *self.table(shape, named, units, bodies))
            shapes[at] = _NUMBERS[shape]
            reasons = self.judge(shape, table) if len(at) else pa.array([], pa.string())
            passed = pc.is_null(reasons)
            for place, reason in zip(at[~_numpy(passed)], reasons.drop_null().to_pylist(), strict=True):
                self.rejects[int(place)] = RowError(reason)
            kept = at[_numpy(passed)]
            places[kept] = self.kept[shape] + np.arange(len(kept))
            self.kept[shape] += len(kept)
        self.write_units(named, shapes, places)
        self._next()

    def table(
        self, shape: str, named: pa.StringArray, places: list[int], bodies: list[Body]
    ) -> tuple[npt.NDArray[np.int64], pa.Table]:
        """The batch's records of one shape and their places; a record that Arrow does not take is rejected."""

        def made(places: list[int], bodies: list[Body]) -> pa.Table:
            return body_table(
                shape, named.take(pa.array(places, pa.int64())), pa.repeat(self.part.split, len(places)), bodies
            )

        try:
            return np.array(places, np.int64), made(places, bodies)
        except (pa.ArrowException, TypeError, UnicodeError):
            good = [place for place in range(len(places)) if self._fits(made, places[place], bodies[place])]
        kept = [places[place] for place in good]
        return np.array(kept, np.int64), made(kept, [bodies[place] for place in good])

    def mixed(
        self, shape: str, named: pa.StringArray, places: npt.NDArray[np.int64], table: pa.Table
    ) -> tuple[npt.NDArray[np.int64], pa.Table]:
        """The table with the records that were parsed at once, in the order of their places."""
        if not self.many[shape]:
            return places, table
        tables, every = [table], [places]
        for own, columns in self.many[shape]:
            fixed = [named.take(pa.array(own)), pa.repeat(self.part.split, len(own))]
            tables.append(pa.Table.from_arrays([*fixed, *columns], schema=SCHEMAS[shape]))
            every.append(own)
        places, table = np.concatenate(every), pa.concat_tables(tables).combine_chunks()
        order = np.argsort(places)
        return places[order], table.take(pa.array(order)) if len(every[0]) else table

    def _fits(self, made: Callable[[list[int], list[Body]], pa.Table], place: int, body: Body) -> bool:
        try:
            made([place], [body])
        except UnicodeError as error:
            self.rejects[place] = RowError("bad-encoding", str(error)[:200])
        except (pa.ArrowException, TypeError) as error:
            self.rejects[place] = RowError("not-text", str(error)[:200])
        return place not in self.rejects

    def judge(self, shape: str, table: pa.Table) -> pa.Array:
        """Clean, mask and judge a table, write what passed with its keys; the reasons, null where a row passed."""

        def mask(texts: pa.Array) -> pa.Array:
            masked, counts = text.mask(texts)
            self.masked.update({kind: int(pc.sum(count).as_py() or 0) for kind, count in counts.items()})
            return masked

        table = map_texts(shape, table, lambda texts: text.clean(texts, script=self.script))
        self.lap("clean")
        table = map_texts(shape, table, mask)
        self.lap("mask")
        reasons = verdicts(shape, table, trains=self.part.split == "train")
        for reason in pc.unique(reasons.drop_null()).to_pylist():
            few = table.filter(pc.equal(reasons, reason)).slice(0, SHOWN).to_pylist()
            self.texts |= {row.pop("id"): _shown(row) for row in few}
        table = table.filter(pc.is_null(reasons)).combine_chunks()
        self.lap("judge")
        if len(table):
            keys = key_table(shape, table, self.part.split == "train", self.index, self.lap)
            self.write(shape, SCHEMAS[shape], table)
            self.write(f"{shape}.keys", KEYS, keys)
            self.lap("write")
        return reasons

    def write_units(self, named: pa.StringArray, shapes: npt.NDArray[np.int8], places: npt.NDArray[np.int32]) -> None:
        reasons: list[str | None] = [None] * len(self.ids)
        details = [""] * len(self.ids)
        for place, error in sorted(self.rejects.items()):
            reasons[place], details[place] = error.reason, error.detail[:200]
            self.reasons[error.reason] += 1
            if self.ids[place] in self.texts and len(self.shown[error.reason]) < SHOWN:
                self.shown[error.reason].append((self.ids[place], self.texts[self.ids[place]]))
            if len(self.examples) < EXAMPLES:
                self.examples.append(f"{self.ids[place]}: {error}"[:300])
        self.counts["units"] += len(self.ids)
        columns = [
            pa.array(own, kind) for own, kind in zip((shapes, places, reasons, details), UNITS.types[1:], strict=True)
        ]
        self.write("units", UNITS, pa.Table.from_arrays([named, *columns], schema=UNITS))
        self.lap("write")

    def write(self, name: str, schema: pa.Schema, table: pa.Table) -> None:
        if name not in self.files:
            self.files[name] = pa.ipc.new_file(self.folder / f"{name}.arrow", schema)
        self.files[name].write_table(table)


def _shown(row: Row) -> str:
    """A row that gives no record as text to read, a line a column; a cut never lies within a number or an address.

    >>> print(_shown({"split": "train", "question": "百日咳？", "options": ["A", "B"], "answer": ""}))
    question: 百日咳？
    options: ["A", "B"]
    """
    lines = []
    for name, value in row.items():
        if name != "split" and value not in ("", None, [], ()):
            told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            lines.append(f"{name}: {told[: SHOWN_CHARS + 1]}")
    told = "\n".join(lines)
    if len(told) > SHOWN_CHARS:
        told = re.sub(r"[!-~ ]{1,64}$", "", told[:SHOWN_CHARS]) + "…"
    return told.encode("utf-8", "replace").decode()  # JSON may hold halves of surrogate pairs


def _numpy(mask: pa.Array) -> npt.NDArray[np.bool_]:
    return np.asarray(mask.to_numpy(zero_copy_only=False), bool)
