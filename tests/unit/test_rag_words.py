"""BM25 on disk against the formula."""

import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qilin.errors import RunError
from qilin.rag import words
from qilin.rag.words import Searcher, Writer

pytest.importorskip("tantivy", reason="BM25 needs the extra eval")

Passage = list[str]
TOKENS = st.sampled_from(["血", "压", "血压", "hba1c", "的", "AND"])
PASSAGES = st.lists(st.lists(TOKENS, max_size=12), min_size=1, max_size=8)


def index(folder: Path, passages: list[Passage]) -> Searcher:
    writer = Writer(folder)
    writer.add(passages)
    writer.close()
    return Searcher(folder)


def bm25(passages: list[Passage], query: Passage) -> dict[int, float]:
    """Lucene's BM25 with k1 = 1.2 and b = 0.75 (Robertson and Zaragoza 2009), each token of the query once."""
    average = sum(map(len, passages)) / len(passages)
    scores: dict[int, float] = {}
    for token in set(query):
        held = sum(token in passage for passage in passages)
        idf = math.log(1 + (len(passages) - held + 0.5) / (held + 0.5))
        for row, passage in enumerate(passages):
            if count := Counter(passage)[token]:
                length = 1.2 * (1 - 0.75 + 0.75 * len(passage) / average)
                scores[row] = scores.get(row, 0.0) + idf * count * 2.2 / (count + length)
    return scores


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PASSAGES, st.lists(st.sampled_from(["血", "血压", "hba1c", "AND", "无"]), max_size=4))
def test_scores_are_those_of_the_formula(
    tmp_path_factory: pytest.TempPathFactory, passages: list[Passage], query: Passage
) -> None:
    rows, scores = index(tmp_path_factory.mktemp("words") / "bm25", passages).search(query, 20)
    assert dict(zip(rows.tolist(), scores.tolist(), strict=True)) == pytest.approx(bm25(passages, query), rel=1e-4)
    assert sorted(scores.tolist(), reverse=True) == scores.tolist()


def test_what_most_passages_hold_is_asked_only_of_few_passages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passages = [["的", "血"], ["的", "压"], ["的"], ["的"], ["的"], ["的"]]
    assert len(index(tmp_path / "few", passages).search(["的", "血"], 10)[0]) == 6
    monkeypatch.setattr(words, "_FEW", 0)
    many = Searcher(tmp_path / "few")
    assert many.search(["的", "血"], 10)[0].tolist() == [0]
    assert len(many.search(["的"], 10)[0]) == 6, "a question of nothing else is still a question"


def test_the_same_passages_make_the_same_scores_in_any_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passages = [[f"词{n % 7}", f"字{n % 11}", *["的"] * (n % 5)] for n in range(300)]
    whole = index(tmp_path / "one", passages).search(["词3", "字4"], 300)
    writer = Writer(tmp_path / "many")
    for begin in range(0, 300, 100):
        writer.add(passages[begin : begin + 100])
        writer._writer.commit()
    writer.close()
    parts = Searcher(tmp_path / "many").search(["词3", "字4"], 300)
    assert dict(zip(*map(list, whole), strict=True)) == dict(zip(*map(list, parts), strict=True))


def test_a_damaged_index_is_one_sentence(tmp_path: Path) -> None:
    index(tmp_path / "bm25", [["血"]])
    (tmp_path / "bm25" / "meta.json").write_text("{")
    with pytest.raises(RunError, match=r"is damaged or of another tantivy .*; build the index again"):
        Searcher(tmp_path / "bm25")
