"""Retrieval measured with known items: an exam question finds the explanation that was written for it, or does not.

The rag stage names a passage "<row>@<part>", and an exam row's passages are its explanation without its question. So a
question of the eval stage whose id is the row of a passage has one right document. Questions are asked as they stand,
without options. In a run a document stands under the id of its row where its first passage is; its further passages
stand under their own ids, so that ranks count passages, and recall@k is the share of questions for which a passage of
the explanation is among the first k.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa

from qilin.data import open_stage
from qilin.errors import DataError
from qilin.rag.leaks import GRAM, SHARE
from qilin.rag.passages import read
from qilin.rag.retrieve import Mode, Retriever
from qilin.rag.tokens import fold, missing

DEPTH = 100  # passages a question finds at most
CUTS = (1, 3, 10, 100)

Run = Mapping[str, Sequence[str]]  # question -> documents, best first


@dataclass(frozen=True, slots=True)
class KnownItem:
    """A question with one right document. repeated: whether that document repeats it, which makes it easy to find."""

    id: str
    question: str
    repeated: bool


@dataclass(frozen=True, slots=True)
class Scores:
    """Means over n questions: recall by cut, nDCG@10, and the mean reciprocal rank within the first 100."""

    n: int
    recall: Mapping[int, float]
    ndcg: float
    mrr: float

    def __str__(self) -> str:
        recall = ", ".join(f"recall@{cut} {share:.3f}" for cut, share in self.recall.items())
        return f"{self.n:,} questions: {recall}, nDCG@10 {self.ndcg:.3f}, MRR {self.mrr:.3f}"


def known_items(eval_data: Path, retriever: Retriever, *, rows: int | None = None, seed: int = 0) -> list[KnownItem]:
    """The items of an eval stage whose explanations are in an index, by id; `rows` of them, drawn by id and seed.

    Raises DataError where there are none.
    """
    held = {id_.rpartition("@")[0] for id_ in retriever.ids()}
    items: list[KnownItem] = []
    for files in open_stage(eval_data, "eval").splits.values():
        for batch in read(files, ("id", "question", "explanation")):
            own = batch.filter(pa.array([id_ in held for id_ in batch["id"].to_pylist()], pa.bool_()))
            repeated = [share >= SHARE for share in _shares(own["question"], own["explanation"])]
            items += map(KnownItem, own["id"].to_pylist(), own["question"].to_pylist(), repeated)
    if not items:
        raise DataError(f"{retriever.folder} holds no explanation of an item of {eval_data}: index one that does")
    drawn = sorted(items, key=lambda item: hashlib.sha256(f"{seed} {item.id}".encode()).digest())[:rows]
    return sorted(drawn, key=lambda item: item.id)


def find(retriever: Retriever, items: Sequence[KnownItem], mode: Mode) -> dict[str, list[str]]:
    """The run of one mode: for each question, the documents found."""
    found = retriever.search([item.question for item in items], DEPTH, mode, leaked=True)
    return {item.id: _documents([hit.id for hit in hits]) for item, hits in zip(items, found, strict=True)}


def score(run: Run, items: Sequence[KnownItem]) -> Scores:
    """The scores of a run over these items; a question that the run lacks has found nothing."""
    try:
        import ir_measures
    except ModuleNotFoundError as error:
        raise missing("ir-measures") from error
    recall = {cut: ir_measures.R @ cut for cut in CUTS}
    ndcg, mrr = ir_measures.nDCG @ 10, ir_measures.RR
    qrels = [ir_measures.Qrel(item.id, item.id, 1) for item in items]
    ranked = [
        ir_measures.ScoredDoc(item.id, document, float(DEPTH - place))
        for item in items
        for place, document in enumerate(run.get(item.id, ()))
    ]
    found = ir_measures.calc_aggregate([*recall.values(), ndcg, mrr], qrels, ranked) if ranked else {}
    means = {cut: float(found.get(measure, 0.0)) for cut, measure in recall.items()}
    return Scores(len(items), means, float(found.get(ndcg, 0.0)), float(found.get(mrr, 0.0)))


def write_run(run: Run, path: Path, tag: str) -> None:
    """Write a run in TREC's format; the score of a line is what puts it at its rank, since evaluators sort by score."""
    with path.open("w", encoding="utf-8") as file:
        for query, documents in run.items():
            for place, document in enumerate(documents):
                file.write(f"{docno(query)} Q0 {docno(document)} {place + 1} {DEPTH - place} {tag}\n")


def write_qrels(items: Sequence[KnownItem], path: Path) -> None:
    """Write the right document of each question in TREC's format."""
    path.write_text("".join(f"{docno(item.id)} 0 {docno(item.id)} 1\n" for item in items), encoding="utf-8")


def docno(id_: str) -> str:
    """An id without blanks, which part the columns of TREC's files.

    >>> docno("guidelines/a b.txt#1")
    'guidelines/a%20b.txt#1'
    """
    return re.sub(r"\s|%", lambda blank: quote(blank[0]), id_)


def _documents(passages: Sequence[str]) -> list[str]:
    """Ids of documents where their first passage stands, of passages where a further one does."""
    seen: set[str] = set()
    documents = []
    for passage in passages:
        row = passage.rpartition("@")[0]
        documents.append(passage if row in seen else row)
        seen.add(row)
    return documents


def _shares(questions: pa.Array, explanations: pa.Array) -> list[float]:
    """The share of each question's 13-grams that stand in its explanation; of a shorter one, all or nothing."""
    shares = []
    for pair in zip(fold(questions).to_pylist(), fold(explanations).to_pylist(), strict=True):
        question, explanation = (text.replace(" ", "") for text in pair)
        grams = {question[place : place + GRAM] for place in range(len(question) - GRAM + 1)}
        parts = grams or {question}
        shares.append(sum(part in explanation for part in parts) / len(parts))
    return shares
