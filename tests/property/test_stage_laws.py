"""Laws of verdicts, of stages and of graphs, whatever the rows."""

import unicodedata
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimed import graph
from chimed.cuts import cut
from chimed.quality import REASONS, verdicts
from chimed.records import Body, Dialogue, Exam, Fact, Passage, Preference, Record, Turn, to_table
from chimed.sources.relations import RELATIONS
from chimed.stages import COLUMNS, STAGES, Stage, measure, render, serves
from tests.unit import graphs

FEW = settings(max_examples=40, deadline=None)
# Characters that matter: Han, sentence and clause ends, closing marks, line ends, beyond the basic plane.
CHARACTERS = st.sampled_from("百日咳谢医药病。！？，、；：”）\n .a1-😀𠮷")
TEXT = st.text(CHARACTERS, min_size=1, max_size=40).filter(lambda text: bool(text.strip()))


@st.composite
def dialogues(draw: st.DrawFn) -> Dialogue:
    pairs = draw(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
    turns = [Turn("system", draw(TEXT))] if draw(st.booleans()) else []
    for asked, answer in pairs:
        turns += [Turn("user", asked), Turn("assistant", answer)]
    return Dialogue(tuple(turns), draw(st.sampled_from(["", "内科"])))


@st.composite
def exams(draw: st.DrawFn) -> Exam:
    options = tuple(draw(st.lists(TEXT, min_size=1, max_size=10)))
    answer = draw(st.sets(st.sampled_from("ABCDEFGHIJ"[: len(options)]), min_size=1))
    return Exam(draw(TEXT), options, "".join(sorted(answer)), draw(st.just("") | TEXT))


BODIES: dict[str, st.SearchStrategy[Any]] = {
    "passage": st.builds(Passage, TEXT, st.just("") | TEXT),
    "dialogue": dialogues(),
    "exam": exams(),
    "preference": st.builds(
        lambda asked, chosen, other: Preference((Turn("user", asked),), chosen, other), *[TEXT] * 3
    ),
    "fact": st.builds(
        Fact,
        st.sampled_from(["百日咳", "哮喘", "当归"]),
        st.sampled_from([*RELATIONS, "归经"]),
        TEXT | st.sampled_from(["是", "否", "98%", "无传染性"]),
        st.sampled_from(["疾病", "中药", ""]),
        st.sampled_from(["text", "症状"]),
    ),
}


def rows(shape: str, most: int = 6) -> st.SearchStrategy[pa.Table]:
    def numbered(bodies: list[Body]) -> pa.Table:
        records = [Record(f"s{number % 2}", f"a/b#{number}", "train", body) for number, body in enumerate(bodies)]
        return to_table(shape, records)

    return st.lists(BODIES[shape], min_size=1, max_size=most).map(numbered)


def sourced(facts: pa.Table) -> pa.Table:
    return facts.append_column("source", pc.list_element(pc.split_pattern(facts["id"], "/", max_splits=1), 0))


def fed(stage: Stage, shape: str, table: pa.Table) -> pa.Table:
    """A table as the build hands it to `render`."""
    if shape != "fact":
        return table
    return (graphs.questions if stage == "sft" else graphs.documents)(sourced(table))


PATHS = [(stage, shape) for stage in STAGES for shape in serves(stage)]
EACH_PATH = pytest.mark.parametrize(("stage", "shape"), PATHS)


@EACH_PATH
@given(data=st.data())
@FEW
def test_rendering_does_not_hang_on_batches(stage: Stage, shape: str, data: st.DataObject) -> None:
    table = fed(stage, shape, data.draw(rows(shape)))
    place = data.draw(st.integers(0, len(table)))
    whole = render(stage, shape, table, length=12)
    assert whole.schema == COLUMNS[stage]
    parts = [render(stage, shape, part, length=12) for part in (table.slice(0, place), table.slice(place))]
    assert pa.concat_tables(parts).to_pylist() == whole.to_pylist()


@EACH_PATH
@given(data=st.data())
@FEW
def test_rows_keep_their_order_and_their_source(stage: Stage, shape: str, data: st.DataObject) -> None:
    table = fed(stage, shape, data.draw(rows(shape)))
    rendered = render(stage, shape, table, length=12)
    ids = [row_id.rpartition("@")[0] if stage == "rag" else row_id for row_id in rendered["id"].to_pylist()]
    assert list(dict.fromkeys(ids)) == [row_id for row_id in table["id"].to_pylist() if row_id in ids]
    assert len(set(rendered["id"].to_pylist())) == len(rendered)
    assert rendered["source"].to_pylist() == [row_id.partition("/")[0] for row_id in ids]


def texts(value: Any) -> list[str]:
    """Every text in a row."""
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value or []
    return [text for item in items for text in texts(item)]


SOURCE_TEXTS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "passage": lambda row: [row["text"]],
    "dialogue": lambda row: [turn["content"] for turn in row["turns"]],
    "exam": lambda row: [row["question"], *row["options"], row["explanation"]],
    "preference": lambda row: [row["prompt"][0]["content"], row["chosen"], row["rejected"]],
}


@pytest.mark.parametrize(("stage", "shape"), [(s, h) for s, h in PATHS if h != "fact" and s in ("cpt", "sft", "dpo")])
@given(data=st.data())
@FEW
def test_training_rows_lose_no_text(stage: Stage, shape: str, data: st.DataObject) -> None:
    table = data.draw(rows(shape))
    rendered = render(stage, shape, table).to_pylist()
    assert len(rendered) == len(table)
    for row, made in zip(table.to_pylist(), rendered, strict=True):
        said = "\0".join(texts(made))
        assert all(text in said for text in SOURCE_TEXTS[shape](row))


@EACH_PATH
@given(data=st.data())
@FEW
def test_rows_are_measured_by_what_a_person_reads(stage: Stage, shape: str, data: st.DataObject) -> None:
    rendered = render(stage, shape, fed(stage, shape, data.draw(rows(shape)))).combine_chunks()
    labels = {"id", "source", "kind", "part", "department", "discipline", "competency", "disease_group", "difficulty"}
    told = [
        [text for name in row.keys() - labels for text in texts(_unnamed(row[name]))] for row in rendered.to_pylist()
    ]
    for batch in rendered.to_batches():
        found = measure(batch)
        assert found.source.to_pylist() == rendered["source"].to_pylist()
        assert found.characters.tolist() == [len("".join(row)) for row in told]
        assert found.foreign == sum(
            not any(unicodedata.name(c, "").startswith("CJK UNI") for c in "".join(row)) for row in told
        )
        assert found.facts == (len(rendered) if shape == "fact" else 0)


def _unnamed(value: Any) -> Any:
    """Turns without their roles."""
    return [item["content"] if isinstance(item, dict) else item for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("shape", serves("sft"))
@given(data=st.data())
@FEW
def test_conversations_alternate_and_end_with_the_assistant(shape: str, data: st.DataObject) -> None:
    for row in render("sft", shape, fed("sft", shape, data.draw(rows(shape)))).to_pylist():
        roles = [turn["role"] for turn in row["messages"] if turn["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and roles
        assert all(turn["content"] for turn in row["messages"])


@given(table=rows("dialogue"))
@FEW
def test_an_open_question_is_a_turn_and_its_reply(table: pa.Table) -> None:
    for row, item in zip(table.to_pylist(), render("eval", "dialogue", table).to_pylist(), strict=True):
        turns = [
            *item["messages"],
            {"role": "user", "content": item["question"]},
            {"role": "assistant", "content": item["answer"]},
        ]
        assert turns == row["turns"][: len(turns)]


@given(texts=st.lists(st.text(CHARACTERS, max_size=120), max_size=5), length=st.integers(1, 50))
@FEW
def test_parts_are_short_and_together_the_text(texts: list[str], length: int) -> None:
    parts, counts = cut(pa.array(texts, pa.string()), length)
    found, at = parts.to_pylist(), 0
    for text, count in zip(texts, counts.tolist(), strict=True):
        own = found[at : at + count]
        assert "".join(own) == text
        assert all(len(part) <= length for part in own)
        assert count == 1 or all(len(part) >= max(1, min(16, length // 2)) for part in own)
        at += count
    assert at == len(found)


@given(table=rows("fact", most=12), data=st.data())
@FEW
def test_graphs_read_the_same_in_any_order(table: pa.Table, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(table))))
    for make in (graphs.documents, graphs.questions):
        whole = make(sourced(table))
        assert make(sourced(table.take(order))).equals(whole)
        assert whole["id"].to_pylist() and len(set(whole["id"].to_pylist())) == len(whole)
        assert not any("{" in text for text in whole[whole.column_names[-1]].to_pylist())


@given(table=rows("fact"), trust=st.permutations(["s0", "s1", "s2", "s3"]))
@FEW
def test_sources_without_facts_have_no_say_in_a_graph(table: pa.Table, trust: list[str]) -> None:
    facts = sourced(table)
    own = [name for name in trust if name in facts["source"].to_pylist()]
    assert graph.canonical(facts, trust).equals(graph.canonical(facts, own))


def direct(table: pa.Table) -> list[dict[str, Any]]:
    """Documents, and questions on one head alone: those that go back or on along edges hang on other heads too."""
    return [row for row in table.to_pylist() if not row["id"].endswith(("#reverse", "#signs", "#two-hop"))]


@given(table=rows("fact", most=12))
@FEW
def test_a_graph_is_worded_head_by_head(table: pa.Table) -> None:
    heads = sorted(set(table["head"].to_pylist()))
    for make in (graphs.documents, graphs.questions):
        alone = [direct(make(sourced(table.filter(pc.equal(table["head"], head))))) for head in heads]
        assert [row for rows in alone for row in rows] == direct(make(sourced(table)))


@pytest.mark.parametrize("shape", BODIES)
@given(data=st.data())
@FEW
def test_verdicts_judge_each_row_alone(shape: str, data: st.DataObject) -> None:
    table = data.draw(rows(shape))
    found = verdicts(shape, table).to_pylist()
    assert [verdicts(shape, table.slice(number, 1)).to_pylist()[0] for number in range(len(table))] == found
    assert set(found) <= {None, *REASONS}
