"""The texts, facts and exam items of raw folders, cut into pieces that new rows can be put together from.

`harvest` reads them with chimed's own sources; `Names` and `Pieces` draw from them by the batch, as Arrow arrays.
"""

import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from chimed.errors import RowError
from chimed.recipe import load_recipe
from chimed.records import Body, Dialogue, Exam, Fact, Passage
from chimed.signs import reworded
from chimed.sources.readers import Slice, find, rows

Ints = npt.NDArray[np.int64]
SENTENCE = re.compile(r"(?<=[。！？；!?;\n])")
CLAUSE = re.compile(r"(?<=[，。！？；!?;\n])")

_FROM = ("explaincpe", "guidelines", "xywy-kg", "disease-kg", "medkg-triples", "bentsao", "meddialog", "toyhom")
EVALUATION = ("cmexam", "huatuo26m")
_UNSAFE = re.compile(r"[\x00-\x1f\"\\,@\u2028\u2029\ufeff]")  # what CSV, JSON or a line would need quoted
SLOTS = {"疾病": 1, "药品": 2, "症状": 3, "食物": 4}  # entity type -> group of names that stand for each other
EQUAL, NEAR, LEAKED = 0.05, 0.05, 0.001  # shares of rows
KEPT, REMEMBERED = 512, 128  # rows of a batch that later rows may copy, and how many such batches are remembered
SHORTEST, LONGEST = 3, 8  # characters of the names that are exchanged


def line(*parts: pa.Array | str) -> pa.Array:
    """The parts put side by side, row by row."""
    return pc.binary_join_element_wise(*parts, "")


class Names:
    """Texts in groups, of which any can be drawn."""

    def __init__(self, groups: Iterable[Iterable[str]]) -> None:
        texts = [list(dict.fromkeys(group)) for group in groups]
        self.sizes = np.array([len(group) for group in texts])
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.values = pa.array([text for group in texts for text in group], pa.string())

    def draw(self, groups: Ints, rng: np.random.Generator) -> pa.Array:
        """A text of each of these groups."""
        places = self.starts[groups] + (rng.random(len(groups)) * self.sizes[groups]).astype(np.int64)
        return self.values.take(pa.array(places))


class Pieces:
    """Sentences or clauses with at most one name cut out, to be put together in any order with any names.

    known: the groups of `names` by name. sound: leave out pieces that show a sign of machine rewording.
    """

    def __init__(
        self, texts: list[str], cut: re.Pattern[str], known: dict[str, int], names: Names, *, sound: bool = True
    ) -> None:
        found = list(dict.fromkeys(piece.strip() for text in texts for piece in cut.split(text)))
        if sound:
            # One sign alone rejects no row, but many pieces with one each do: beside another it shows.
            signed = reworded(pa.array([[piece, "约莫"] for piece in found], pa.list_(pa.string())))
            found = [piece for piece, bad in zip(found, signed.tolist(), strict=True) if not bad]
        openings = {name[:SHORTEST] for name in known}
        parts = [_slot(piece, known, openings) for piece in found if 3 < len(piece) <= 200]
        if not parts:
            sys.exit("RAW lacks one of the folders that texts are made from; see --help")
        self.before, self.after = (pa.array([part[place] for part in parts], pa.string()) for place in (0, 2))
        self.group = np.array([part[1] for part in parts])
        self.names = names
        lengths = np.array([len(text) for text in texts if text], np.float64)
        self.lengths = np.minimum(lengths / lengths.mean(), 20.0)
        self.size = float(np.mean([len((part[0] + part[2]).encode()) + 12 * (part[1] > 0) for part in parts]))

    def texts(self, size: float, count: int, rng: np.random.Generator) -> pa.Array:
        """Texts with a mean of `size` bytes, their lengths spread as those of the real ones."""
        wanted = rng.choice(self.lengths, count) * size / self.size + rng.random(count)
        return self.put_together(np.maximum(1, wanted.astype(np.int64)), rng)

    def put_together(self, counts: Ints, rng: np.random.Generator) -> pa.Array:
        """Texts of these numbers of pieces."""
        places = rng.integers(len(self.group), size=int(counts.sum()))
        names = self.names.draw(self.group[places], rng)
        taken = pa.array(places)
        return joined(line(self.before.take(taken), names, self.after.take(taken)), counts, "")


def _slot(piece: str, known: dict[str, int], openings: set[str]) -> tuple[str, int, str]:
    """What stands before the first name in a piece, the group of the name, and what stands behind."""
    for start in range(len(piece) - SHORTEST + 1):
        if piece[start : start + SHORTEST] in openings:
            for stop in range(min(start + LONGEST, len(piece)), start + SHORTEST - 1, -1):
                if group := known.get(piece[start:stop]):
                    return piece[:start], group, piece[stop:]
    return piece, 0, ""


def joined(values: pa.Array, counts: Ints, between: str) -> pa.Array:
    """Runs of this many values, joined."""
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, values), between)


@dataclass(slots=True)
class Material:
    """What RAW gives: texts by kind, tails by relation, heads, exam stems, options and evaluation items."""

    texts: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    tails: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    heads: dict[str, None] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)  # questions and replies of evaluation sets
    items: list[Exam] = field(default_factory=list)

    def take(self, source: str, trains: bool, body: Body) -> None:
        """Add a record."""
        match body:
            case Fact() if body.tail_type == "text" and len(body.tail) > 40:
                self.texts["prose"].append(_safe(body.tail))
                self.texts[body.relation].append(_safe(body.tail))
            case Fact() if not _UNSAFE.search(body.head + body.tail) and len(body.tail) <= 20:
                self.heads[body.head] = None
                self.tails[body.relation].append(body.tail)
                for name, kind in ((body.head, body.head_type), (body.tail, body.tail_type)):
                    if kind in SLOTS and SHORTEST <= len(name) <= LONGEST:
                        self.known[name] = SLOTS[kind]
            case Passage():
                self.texts["prose"].append(_safe(body.text))
            case Dialogue() if trains:
                self.texts[f"{source} whole"].append("\n".join(turn.content for turn in body.turns))
                for turn in body.turns:
                    self.texts[f"{source} {turn.role}"].append(_safe(turn.content))
            case Dialogue():
                self.asked.append((plain(body.turns[0].content), plain(body.turns[-1].content)))
            case Exam() if trains:
                self.texts["stem"].append(_safe(body.question))
                self.texts["explanation"].append(_safe(body.explanation))
                self.tails["option"] += map(plain, body.options)
            case Exam():
                self.items.append(body)


def plain(text: str) -> str:
    """A text on one line, without what CSV and JSON would need quoted."""
    return " ".join(_safe(text).split("\n"))


def _safe(text: str) -> str:
    return _UNSAFE.sub(lambda found: {",": "，", "\n": "\n"}.get(found[0], ""), text)


def harvest(raw: Path) -> Material:
    """The records of the sources that texts are made from, and of the evaluation sets."""
    material = Material()
    for item in load_recipe(None).ingredients:
        source = item.source
        if source.name not in (*_FROM, *EVALUATION) or not (raw / source.name).is_dir():
            continue
        for file in find(source, raw)[0]:
            if (file.split == "train") == (source.name in _FROM):
                for _, row in rows(source, Slice(file)):
                    try:
                        bodies = () if isinstance(row, RowError) else tuple(source.parse(row))
                    except RowError:
                        continue
                    for body in bodies:
                        material.take(source.name, file.split == "train", body)
    return material


def exam_lines(items: list[Exam]) -> pa.Array:
    """Evaluation items as rows of CMExam's table."""
    found = []
    for item in items:
        options = "\n".join(f"{letter} {plain(text)}" for letter, text in zip("ABCDEFGHIJ", item.options, strict=False))
        found.append(f'{plain(item.question)},"{options}",{item.answer},{plain(item.explanation)}\n')
    return pa.array(found, pa.string())


class Earlier:
    """Rows that later ones equal or nearly equal, and the questions and replies of evaluation sets."""

    def __init__(self, rng: np.random.Generator, chance: random.Random, evaluation: list[tuple[str, str]]) -> None:
        self.rng, self.chance = rng, chance
        self.evaluation = [pa.array(column, pa.string()) for column in zip(*evaluation, strict=True)]
        self.kept: dict[str, list[list[pa.Array]]] = defaultdict(list)

    def shared(self, length: str, asked: pa.Array, reply: pa.Array) -> tuple[pa.Array, pa.Array]:
        """Questions and replies, some exchanged for earlier ones, for near-copies of such, for evaluation items.

        Sources whose texts are about equally long have one `length`: they share rows.
        """
        kind = self.rng.random(len(asked))
        copies, near = kind < EQUAL + NEAR, (kind >= EQUAL) & (kind < EQUAL + NEAR)
        earlier = bool(self.kept[length])
        asked, reply = self._exchanged(length, [asked, reply], copies)
        if earlier:
            changed = [self._vary(text) for text in reply.filter(pa.array(near)).to_pylist()]
            reply = pc.replace_with_mask(reply, pa.array(near), pa.array(changed, pa.string()))
        leak = kind > 1 - LEAKED
        items = pa.array(self.rng.integers(len(self.evaluation[0]), size=int(leak.sum())))
        leaked = [own.take(items) for own in self.evaluation]
        found = [pc.replace_with_mask(*row) for row in zip((asked, reply), [pa.array(leak)] * 2, leaked, strict=True)]
        return found[0], found[1]

    def repeated(self, source: str, lines: pa.Array) -> pa.Array:
        """Lines of which some equal earlier ones of the same source."""
        return self._exchanged(source, [lines], self.rng.random(len(lines)) < EQUAL)[0]

    def _exchanged(self, name: str, columns: list[pa.Array], copies: npt.NDArray[np.bool_]) -> list[pa.Array]:
        """The columns with earlier rows in place of those of `copies`; some of these rows are kept for later."""
        few = pa.array(np.arange(min(KEPT, len(copies))))
        slots, fresh = self.kept[name], [column.take(few) for column in columns]  # a slice would hold the whole batch
        if slots:
            old = slots[self.rng.integers(len(slots))]
            other = len(copies) + self.rng.integers(len(old[0]), size=len(copies))
            place = pa.array(np.where(copies, other, np.arange(len(copies))))
            columns = [pa.concat_arrays(both).take(place) for both in zip(columns, old, strict=True)]
        if len(slots) < REMEMBERED:
            slots.append(fresh)
        else:
            slots[self.rng.integers(REMEMBERED)] = fresh
        return columns

    def _vary(self, text: str) -> str:
        """A copy without one clause or with one clause said twice: the longer it is, the more alike."""
        clauses = CLAUSE.split(text)
        at = self.chance.randrange(len(clauses))
        clauses[at : at + 1] = [clauses[at]] * 2 if self.chance.random() < 0.5 else []
        return "".join(clauses) or text
