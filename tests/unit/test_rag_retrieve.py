"""Search over a finished index: fusion, ties, leaks, odd questions, and folders that are no index."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qilin.errors import ModelError, RunError
from qilin.rag import index, retrieve
from qilin.rag.dense import Vectors
from qilin.rag.index import build
from qilin.rag.retrieve import Mode, Retriever, fuse
from qilin.rag.tokens import fold

pytest.importorskip("tantivy", reason="BM25 needs the extra eval")
pytest.importorskip("faiss", reason="vectors need the extra eval")

DISEASES = ["百日咳", "高血压", "糖尿病", "哮喘", "胃炎", "肺炎", "痛风", "贫血", "湿疹", "偏头痛"]
TEXTS = [f"{disease}的{what}，第{n}条。" for n in range(3) for disease in DISEASES for what in ("病因", "治疗")]
QUESTION = "男，72岁，排尿困难5年，夜尿4～5次，此患者选择哪项治疗方法最佳"


class Letters:
    """An encoder without a model: how often each of 64 classes of characters stands in a text."""

    digest = "letters"
    loaded = 0

    def load(self, device: str | None = None) -> "Letters":
        Letters.loaded += 1
        return self

    def documents(self, texts: Sequence[str]) -> Vectors:
        counts = np.zeros((len(texts), 64), np.float32)
        for row, text in enumerate(texts):
            np.add.at(counts[row], [ord(character) % 64 for character in text], 1)
        unit: Vectors = counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1)
        return unit

    queries = documents


def stage(folder: Path, name: str, table: pa.Table, split: str = "train") -> Path:
    """A stage folder as `chimed build` leaves it."""
    folder.mkdir(parents=True)
    pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    (folder / "manifest.json").write_text(json.dumps({"stage": name, "rows": {split: len(table)}, "files": files}))
    return folder


def passages(texts: Sequence[str], titles: Sequence[str] | None = None) -> pa.Table:
    ids = [f"book/page#{number}@0" for number in range(len(texts))]
    return pa.table({"id": ids, "source": ["book"] * len(texts), "title": titles or [""] * len(texts), "text": texts})


def items(*questions: str) -> pa.Table:
    same = {"source": "exam", "kind": "exam", "options": ["是", "否"], "answer": "A", "explanation": "", "messages": []}
    return pa.Table.from_pylist([{"id": f"exam/{n}", "question": asked} | same for n, asked in enumerate(questions)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of TEXTS and two leaked passages, with vectors."""
    made = tmp_path_factory.mktemp("index")
    rag = stage(made / "rag", "rag", passages([*TEXTS, f"{QUESTION}？选B。", f"真题：{QUESTION}"]))
    exams = stage(made / "eval", "eval", items(QUESTION, "哮喘"), "test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "find_encoder", lambda name: Letters())
        done = build(rag, made / "out", encoder="letters", eval_data=exams)
    assert done.leaked == {"question": 2}
    return made / "out"


@pytest.fixture(scope="module")
def retriever(folder: Path) -> Retriever:
    opened = Retriever(folder)
    opened.__dict__["_model"] = Letters()
    return opened


MODES: tuple[Mode, ...] = ("bm25", "dense", "fusion")


@pytest.mark.parametrize("mode", MODES)
def test_what_was_asked_for_comes_first(retriever: Retriever, mode: Mode) -> None:
    first = retriever.search(["高血压的病因，第1条"], 3, mode)[0]
    assert first[0].text == "高血压的病因，第1条。"
    assert [hit.rank for hit in first] == [1, 2, 3]
    assert (first[0].source, first[0].id) == ("book", f"book/page#{TEXTS.index(first[0].text)}@0")
    assert sorted((hit.score for hit in first), reverse=True) == [hit.score for hit in first]


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_finds_what_each_question_finds(retriever: Retriever, mode: Mode) -> None:
    queries = ["痛风", "", "怎么治疗百日咳？", "痛风", "zzz"]
    assert retriever.search(queries, 5, mode) == [retriever.search([query], 5, mode)[0] for query in queries]
    assert retriever.search([], 5, mode) == []


@pytest.mark.parametrize("mode", MODES)
def test_more_is_only_a_longer_list(retriever: Retriever, mode: Mode) -> None:
    short, long = (retriever.search(["哮喘的治疗"], k, mode)[0] for k in (4, 9))
    assert long[:4] == short
    assert len(retriever.search(["治疗"], 500, mode)[0]) <= len(TEXTS)


def test_ties_stand_in_the_order_of_the_index(retriever: Retriever) -> None:
    found = [hit.id for hit in retriever.search(["湿疹"], 6)[0]]
    scores = [hit.score for hit in retriever.search(["湿疹"], 6)[0]]
    rows = [int(id_.partition("#")[2].partition("@")[0]) for id_ in found]
    assert sorted(zip((-score for score in scores), rows, strict=True)) == [
        (-score, row) for score, row in zip(scores, rows, strict=True)
    ]
    assert len(set(scores)) < len(scores)


def test_a_tie_at_the_end_is_cut_in_the_order_of_the_index(tmp_path: Path) -> None:
    build(stage(tmp_path / "rag", "rag", passages(["相同的段落。"] * 90)), tmp_path / "out")
    found = Retriever(tmp_path / "out").search(["相同"], 20)[0]
    assert [hit.id for hit in found] == [f"book/page#{number}@0" for number in range(20)]


@pytest.mark.parametrize("mode", MODES)
def test_leaks_are_found_only_when_asked_for(retriever: Retriever, mode: Mode) -> None:
    assert not any(hit.leaked for hit in retriever.search([QUESTION], 50, mode)[0])
    both = retriever.search([QUESTION], 2, mode, leaked=True)[0]
    assert [hit.leaked for hit in both] == [True, True]
    assert {hit.id for hit in both} == {f"book/page#{len(TEXTS)}@0", f"book/page#{len(TEXTS) + 1}@0"}


def test_many_leaks_do_not_crowd_out_the_rest(tmp_path: Path) -> None:
    leaked = [f"{QUESTION}。第{number}次" for number in range(200)]
    rag = stage(tmp_path / "rag", "rag", passages([*leaked, "排尿困难的患者首选药物治疗。", "无关。"]))
    exams = stage(tmp_path / "eval", "eval", items(QUESTION), "test")
    assert build(rag, tmp_path / "out", eval_data=exams).leaked == {"question": 200}
    found = Retriever(tmp_path / "out").search([QUESTION], 3)[0]
    assert [hit.id for hit in found] == ["book/page#200@0"]


@settings(deadline=None, max_examples=40)
@given(st.text(st.sampled_from('高血压 AND OR NOT TO IN +-!(){}[]^"~*?:\\/<>=&|的病因\n'), max_size=40))
def test_no_character_of_a_question_is_an_operator(retriever: Retriever, query: str) -> None:
    plain: str = fold(pa.array([query]))[0].as_py()
    assert retriever.search([query]) == retriever.search([plain])
    retriever.search([query], mode="fusion")


def test_a_very_long_question_is_a_question(retriever: Retriever) -> None:
    long = "".join(map(chr, range(0x4E00, 0x8000))) + "高血压的病因，第1条"
    assert retriever.search([long], 1)[0][0].text == "高血压的病因，第1条。"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.permutations(range(6)), min_size=1, max_size=3))
def test_fusion_is_the_formula(rankings: list[list[int]]) -> None:
    fused = fuse([[(row, 0.0) for row in ranking] for ranking in rankings])
    expected = {row: sum(1 / (61 + ranking.index(row)) for ranking in rankings) for row in range(6)}
    assert dict(fused) == pytest.approx(expected)
    assert fused == sorted(fused, key=lambda pair: (-pair[1], pair[0]))


def test_random_passages_hang_on_the_name_and_the_seed_alone(retriever: Retriever) -> None:
    one, two = retriever.random(["a", "b"], 5)
    assert retriever.random(["b"], 5) == [two]
    assert one != two
    assert retriever.random(["a"], 5, seed=1) != [one]
    assert len({hit.id for hit in one}) == 5
    every = retriever.random(["a"], 500)[0]
    assert len(every) == len(TEXTS)
    assert not any(hit.leaked for hit in every)


def test_bm25_opens_at_once_and_without_torch(folder: Path) -> None:
    code = f"""
import time, sys
from pathlib import Path
from qilin.rag.retrieve import Retriever
found = Retriever(Path({str(folder)!r})).search(["高血压的病因"], 1)
assert found[0][0].text.startswith("高血压"), found
heavy = {{"torch", "transformers", "sentence_transformers", "faiss", "numba"}} & set(sys.modules)
assert not heavy, heavy
print(time.process_time())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1


def test_what_is_no_index(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(RunError, match=r"nowhere is no index; build one with `qilin index DATA --out .*nowhere`"):
        Retriever(tmp_path / "nowhere")
    (tmp_path / "begun" / "index-0123").mkdir(parents=True)
    with pytest.raises(RunError, match=r"begun is an unfinished index; run the same `qilin index` again, it goes on"):
        Retriever(tmp_path / "begun")
    for content, said in (
        ("{", "cannot be read"),
        ("[]", "of format None"),
        ('{"format": 99}', "of format 99, this version reads format 1"),
    ):
        (tmp_path / "begun" / "index.json").write_text(content)
        with pytest.raises(RunError, match=said):
            Retriever(tmp_path / "begun")
    copy = json.loads((folder / "index.json").read_text())
    (tmp_path / "begun" / "index.json").write_text(json.dumps(copy | {"folder": "index-0123"}))
    with pytest.raises(RunError, match=r"passages\.arrow is missing or damaged .*; build the index again"):
        Retriever(tmp_path / "begun")


def test_modes_and_encoders_that_do_not_fit(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(stage(tmp_path / "rag", "rag", passages(TEXTS)), tmp_path / "out")
    plain = Retriever(tmp_path / "out")
    assert plain.modes == ("bm25",)
    for mode in ("dense", "fusion"):
        with pytest.raises(RunError, match="has no vectors for the mode"):
            plain.search(["a"], mode=mode)
    with pytest.raises(ModelError, match="is neither a folder nor an encoder"):
        Retriever(folder).search(["a"], mode="dense")
    other = Letters()
    other.digest = "other"
    monkeypatch.setattr(retrieve, "find_encoder", lambda name: other)
    with pytest.raises(ModelError, match="was built with another encoder than letters"):
        Retriever(folder).search(["a"], mode="fusion")
