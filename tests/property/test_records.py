"""Records survive the way through Arrow, whatever text they hold and wherever a table is cut."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimed.records import (
    SCHEMAS,
    SHAPES,
    SPLITS,
    TEXTS,
    Body,
    Dialogue,
    Exam,
    Fact,
    Passage,
    Preference,
    Record,
    Turn,
    from_table,
    map_texts,
    shape_of,
    to_table,
)

TEXT = st.text(max_size=12)
TURNS = st.lists(st.builds(Turn, st.sampled_from(["system", "user", "assistant"]), TEXT), max_size=4).map(tuple)
BODIES: dict[str, st.SearchStrategy[Body]] = {
    "passage": st.builds(Passage, TEXT, TEXT),
    "fact": st.builds(Fact, TEXT, TEXT, TEXT, TEXT, TEXT),
    "dialogue": st.builds(Dialogue, TURNS, TEXT),
    "exam": st.builds(
        Exam,
        question=TEXT,
        options=st.lists(TEXT, max_size=5).map(tuple),
        answer=TEXT,
        explanation=TEXT,
        department=TEXT,
        discipline=TEXT,
        competency=TEXT,
        disease_group=TEXT,
        difficulty=TEXT,
    ),
    "preference": st.builds(Preference, TURNS, TEXT, TEXT),
}
SOURCES = st.from_regex(r"[a-z0-9-]{1,8}", fullmatch=True)
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES)
FEW = settings(max_examples=40, deadline=None)


def records(shape: str) -> st.SearchStrategy[list[Record]]:
    return st.lists(st.builds(Record, SOURCES, TEXT, st.sampled_from(SPLITS), BODIES[shape]), max_size=6)


def test_every_shape_is_drawn() -> None:
    assert set(BODIES) == set(SHAPES) == set(SCHEMAS) == set(TEXTS)


@EACH_SHAPE
@FEW
@given(data=st.data())
def test_round_trip(shape: str, data: st.DataObject) -> None:
    given_records = data.draw(records(shape))
    table = to_table(shape, given_records)
    table.validate(full=True)
    assert table.schema == SCHEMAS[shape]
    assert list(from_table(shape, table)) == given_records
    assert all(shape_of(record.body) == shape for record in given_records)
    assert table.column("id").to_pylist() == [record.id for record in given_records]


@EACH_SHAPE
@FEW
@given(data=st.data())
def test_a_cut_table_holds_the_same_records(shape: str, data: st.DataObject) -> None:
    given_records = data.draw(records(shape))
    cut = data.draw(st.integers(0, len(given_records)))
    parts = [to_table(shape, given_records[:cut]), to_table(shape, given_records[cut:])]
    joined = pa.concat_tables(parts)
    assert list(from_table(shape, joined)) == given_records
    assert list(from_table(shape, joined.slice(cut))) == given_records[cut:]


@EACH_SHAPE
@FEW
@given(data=st.data())
def test_map_texts_reaches_every_text_and_nothing_else(shape: str, data: st.DataObject) -> None:
    given_records = data.draw(records(shape))
    start = data.draw(st.integers(0, len(given_records)))
    table = to_table(shape, given_records).slice(start)
    marked = map_texts(shape, table, lambda texts: pc.binary_join_element_wise(texts, "※", ""))
    marked.validate(full=True)
    back = map_texts(shape, marked, lambda texts: pc.utf8_slice_codeunits(texts, 0, -1))
    assert list(from_table(shape, back)) == given_records[start:]
    changed = [name for name in table.column_names if marked.column(name) != table.column(name)]
    assert set(changed) <= set(TEXTS[shape])
    count = sum(str(row).count("※") for row in marked.to_pylist()) - sum(
        str(row).count("※") for row in table.to_pylist()
    )
    assert count == sum(_texts(getattr(record.body, name)) for record in given_records[start:] for name in TEXTS[shape])


def _texts(value: object) -> int:
    """How many texts a field holds.

    >>> _texts((Turn("user", "头痛"), Turn("assistant", "多休息")))
    2
    """
    return len(value) if isinstance(value, tuple) else 1
