"""Known items: what is found where, by hand."""

from math import log2
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qilin.rag.known_item import KnownItem, _documents, _shares, docno, score, write_qrels, write_run

ir_measures = pytest.importorskip("ir_measures", reason="retrieval metrics need the extra eval")

ITEMS = [KnownItem(f"exam/{number}", "问题", False) for number in range(5)]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 120), min_size=5, max_size=5))
def test_scores_are_those_computed_by_hand(ranks: list[int]) -> None:
    """Rank 0 and what lies behind 100 is not found."""
    found = [rank if 0 < rank <= 100 else 0 for rank in ranks]
    run = {
        item.id: [item.id if place == rank else f"other/{place}" for place in range(1, 101)]
        for item, rank in zip(ITEMS, found, strict=True)
    }
    scores = score(run, ITEMS)
    assert scores.n == 5
    for cut, share in scores.recall.items():
        assert share == pytest.approx(sum(0 < rank <= cut for rank in found) / 5)
    assert scores.mrr == pytest.approx(sum(1 / rank for rank in found if rank) / 5)
    gains = [1 / log2(1 + rank) if 0 < rank <= 10 else 0.0 for rank in found]
    assert scores.ndcg == pytest.approx(sum(gains) / 5)


def test_a_question_that_the_run_lacks_has_found_nothing() -> None:
    scores = score({ITEMS[0].id: [ITEMS[0].id], ITEMS[1].id: []}, ITEMS)
    assert scores.recall[10] == pytest.approx(0.2)
    assert score({}, ITEMS).mrr == 0


def test_ranks_count_passages_and_a_document_stands_once() -> None:
    assert _documents(["a#1@2", "b#1@0", "a#1@0", "b#1@1", "c@0"]) == ["a#1", "b#1", "a#1@0", "b#1@1", "c"]


def test_trec_files_give_the_same_scores(tmp_path: Path) -> None:
    items = [KnownItem(f"guide lines/{number}%.txt", "问题", False) for number in range(3)]
    run = {item.id: ["x", items[0].id, "y 1"][:number] for number, item in enumerate(items, 1)}
    write_run(run, tmp_path / "run.trec", "bm25")
    write_qrels(items, tmp_path / "qrels.trec")
    assert (tmp_path / "run.trec").read_text("utf-8").splitlines()[2] == (
        "guide%20lines/1%25.txt Q0 guide%20lines/0%25.txt 2 99 bm25"
    )
    read = (
        ir_measures.read_trec_qrels(str(tmp_path / "qrels.trec")),
        ir_measures.read_trec_run(str(tmp_path / "run.trec")),
    )
    found = ir_measures.calc_aggregate([ir_measures.RR, ir_measures.R @ 10], *read)
    scores = score(run, items)
    assert (scores.mrr, scores.recall[10]) == pytest.approx((found[ir_measures.RR], found[ir_measures.R @ 10]))


def test_ids_stay_apart_without_blanks() -> None:
    assert len({docno(id_) for id_ in ("a b", "a%20b", "a\tb", "a\u3000b", "ab")}) == 5
    assert not any(character.isspace() for character in docno("a b\tc\u3000d\n"))


def test_an_explanation_that_repeats_its_question_is_known() -> None:
    question = "百日咳痉咳期的临床表现中错误的是哪一项"
    explanations = [f"本题问{question}，故选B。", "百日咳痉咳期可见阵发性痉挛性咳嗽。", ""]
    assert _shares(pa.array([question] * 3), pa.array(explanations)) == [1, 0, 0]
    assert _shares(pa.array(["脾破裂", "脾破裂"]), pa.array(["脾破裂多由外伤引起", "多由外伤引起"])) == [1, 0]
