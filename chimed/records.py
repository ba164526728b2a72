"""The five shapes a record can have, and the Arrow schema of each.

Shapes are named tuples, because a parser writes them by hand and millions of them: they cannot be changed, and are made
and taken apart again in C. Everything after the parser works on the Arrow tables made by `to_table`. A table of any
shape starts with the columns `id` (source/key) and `split`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, NamedTuple, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Turn(NamedTuple):
    """One turn of a conversation."""

    role: Role
    content: str


class Passage(NamedTuple):
    """Running text: a section of a textbook, encyclopedia, guideline or classic."""

    text: str
    title: str = ""


class Fact(NamedTuple):
    """An edge of a knowledge graph. `tail_type="text"` marks an attribute whose tail is prose, not an entity."""

    head: str
    relation: str
    tail: str
    head_type: str = ""
    tail_type: str = ""


class Dialogue(NamedTuple):
    """A conversation that ends with the assistant; a question-answer pair is a dialogue of two turns."""

    turns: tuple[Turn, ...]
    department: str = ""


class Exam(NamedTuple):
    """A multiple-choice item. `answer`: the letters of the right options, sorted: "BD". Options carry no letter."""

    question: str
    options: tuple[str, ...]
    answer: str
    explanation: str = ""
    department: str = ""
    discipline: str = ""
    competency: str = ""
    disease_group: str = ""
    difficulty: str = ""


class Preference(NamedTuple):
    """Two replies to one prompt, the better one first."""

    prompt: tuple[Turn, ...]
    chosen: str
    rejected: str


Body = Passage | Fact | Dialogue | Exam | Preference
SHAPES: dict[str, type[Body]] = {
    "passage": Passage,
    "fact": Fact,
    "dialogue": Dialogue,
    "exam": Exam,
    "preference": Preference,
}


@dataclass(frozen=True, slots=True)
class Record:
    """A body and where it came from: `key` is file#row, stable across builds."""

    source: str
    key: str
    split: Split
    body: Body

    @property
    def id(self) -> str:
        return f"{self.source}/{self.key}"


TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_ARROW: dict[Any, pa.DataType] = {
    str: pa.string(),
    tuple[str, ...]: pa.list_(pa.string()),
    tuple[Turn, ...]: TURNS,
}


def _schema(cls: type[Body]) -> pa.Schema:
    own = [(name, _ARROW[kind]) for name, kind in get_type_hints(cls).items()]
    return pa.schema([("id", pa.string()), ("split", pa.string()), *own])


SCHEMAS: dict[str, pa.Schema] = {name: _schema(cls) for name, cls in SHAPES.items()}

# The columns that hold text a person reads; cleaning and masking touch these and nothing else.
TEXTS: dict[str, tuple[str, ...]] = {
    "passage": ("text", "title"),
    "fact": ("head", "tail"),
    "dialogue": ("turns",),
    "exam": ("question", "options", "explanation"),
    "preference": ("prompt", "chosen", "rejected"),
}


_NAMES = {cls: name for name, cls in SHAPES.items()}


def shape_of(body: Body) -> str:
    """The name of a body's shape.

    >>> shape_of(Passage("百日咳是急性呼吸道传染病。"))
    'passage'
    """
    return _NAMES[type(body)]


def _offsets(lengths: Iterable[int]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(np.fromiter(lengths, dtype=np.int64))]).astype(np.int32))


def _column(kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    if kind == pa.string():
        return pa.array(values, pa.string())
    flat = list(chain.from_iterable(values))
    if kind == TURNS:
        inner = pa.StructArray.from_arrays(
            [pa.array(own, pa.string()) for own in zip(*flat, strict=True)] or [pa.array([], pa.string())] * 2,
            fields=list(kind.value_type),
        )
    else:
        inner = pa.array(flat, pa.string())
    return pa.ListArray.from_arrays(_offsets(map(len, values)), inner, type=kind)


def to_table(shape: str, records: Sequence[Record]) -> pa.Table:
    """The Arrow table of records that all have this shape; one row a record, in order."""
    ids, splits = ([getattr(record, name) for record in records] for name in ("id", "split"))
    return body_table(shape, pa.array(ids, pa.string()), pa.array(splits, pa.string()), [r.body for r in records])


def body_table(shape: str, ids: pa.StringArray, splits: pa.StringArray, bodies: Sequence[Body]) -> pa.Table:
    """The Arrow table of bodies that all have this shape, with the id and split of each."""
    schema, columns = SCHEMAS[shape], [ids, splits]
    values = zip(*bodies, strict=True) if bodies else [()] * (len(schema) - 2)
    columns += [_column(field.type, own) for field, own in zip(list(schema)[2:], values, strict=True)]
    return pa.Table.from_arrays(columns, schema=schema)


def from_table(shape: str, table: pa.Table) -> Iterator[Record]:
    """The records of a table made by `to_table`: its inverse."""
    cls = SHAPES[shape]
    for row in table.to_pylist():
        source, _, key = row.pop("id").partition("/")
        split = row.pop("split")
        for name, value in row.items():
            if isinstance(value, list):
                row[name] = tuple(Turn(**v) if isinstance(v, dict) else v for v in value)
        yield Record(source, key, split, cls(**row))


def _through(array: pa.Array, change: Callable[[pa.Array], pa.Array]) -> pa.Array:
    kind = array.type
    if pa.types.is_string(kind):
        return change(array)
    if pa.types.is_list(kind):
        start = array.offsets[0].as_py()
        offsets = array.offsets if start == 0 else pc.subtract(array.offsets, start)
        return pa.ListArray.from_arrays(offsets, _through(array.flatten(), change), type=kind)
    contents = _through(array.field("content"), change)
    return pa.StructArray.from_arrays([array.field("role"), contents], fields=list(kind))


def map_texts(shape: str, table: pa.Table, change: Callable[[pa.Array], pa.Array]) -> pa.Table:
    """The table with `change` applied to every text a person reads, however deep it lies: options, turns, prompts.

    `change` gets a string array and returns one of equal length; it is called once a column.
    """
    for name in TEXTS[shape]:
        column = table.column(name).combine_chunks()
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), _through(column, change))
    return table


def contents(turns: pa.ChunkedArray) -> pa.ListArray:
    """The contents of a column of turns as lists of strings."""
    column = turns.combine_chunks()
    start = column.offsets[0].as_py()
    return pa.ListArray.from_arrays(pc.subtract(column.offsets, start), column.flatten().field("content"))
