"""Retrieval of known items: engines side by side on the same tokens, ways to cut tokens, and fusion.

    chimed build --stage rag --recipe benchmarks/retrieval.yaml --raw RAW --out known
    chimed build --stage eval --raw RAW --out known
    python benchmarks/retrieval.py known/rag known/eval --out runs --encoder models/e5

A question of an exam is asked as it stands, without options; the one right document is its explanation, which the index
holds without the question (`qilin.rag.known_item`). Engines run in processes of their own on the same tokens: CPU
seconds to index them, questions a CPU second for ten passages each, and the peak memory of the whole process, in which
the tokens take the same room for all. Engines run with their own defaults. A question's tokens are given once each.
"""

import argparse
import hashlib
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qilin.rag.index import build
from qilin.rag.known_item import Run, find, known_items, score, write_qrels, write_run
from qilin.rag.retrieve import Retriever
from qilin.rag.tokens import Tokenizer, fold, joined, tokenizer
from qilin.rag.words import Searcher, Writer

Tokens = list[list[str]]
Found = list[list[int]]  # rows by question
K = 10
SLOW = 100  # questions for an engine that answers a few a second


class Row(NamedTuple):
    """A line of the table of engines."""

    seconds: float
    speed: float
    memory: float
    recall: float
    questions: int


def tantivy(passages: Tokens, questions: Tokens, folder: Path) -> tuple[float, float, Found]:
    """This project's index."""
    began = time.process_time()
    writer = Writer(folder / "bm25")
    writer.add(passages)
    writer.close()
    built = time.process_time()
    searcher = Searcher(folder / "bm25")
    found = [searcher.search(question, K)[0].tolist() for question in questions]
    return built - began, time.process_time() - built, found


def bm25s(passages: Tokens, questions: Tokens, folder: Path) -> tuple[float, float, Found]:
    """bm25s with its numba backend, compiled before the clock starts."""
    import bm25s as package  # noqa: PLC0415

    warm = package.BM25(backend="numba")
    warm.index(passages[:50], show_progress=False)
    warm.retrieve(questions[:2], k=K, show_progress=False)
    began = time.process_time()
    engine = package.BM25(backend="numba")
    engine.index(passages, show_progress=False)
    built = time.process_time()
    found = engine.retrieve(questions, k=K, show_progress=False).documents.tolist()
    return built - began, time.process_time() - built, found


def rank_bm25(passages: Tokens, questions: Tokens, folder: Path) -> tuple[float, float, Found]:
    """rank_bm25's BM25Okapi."""
    from rank_bm25 import BM25Okapi  # noqa: PLC0415

    began = time.process_time()
    engine = BM25Okapi(passages)
    built = time.process_time()
    found = [np.argsort(-engine.get_scores(question), kind="stable")[:K].tolist() for question in questions]
    return built - began, time.process_time() - built, found


ENGINES: dict[str, Callable[[Tokens, Tokens, Path], tuple[float, float, Found]]] = {
    "tantivy, as in qilin": tantivy,
    "bm25s, numba": bm25s,
    "rank_bm25": rank_bm25,
}


def pairs(text: str) -> list[str]:
    """Pairs of neighbours alone, other runs whole."""
    return [token for token in tokenizer("bigrams")(text) if len(token) > 1 or token < "\u2e80"]


CUTS: dict[str, Callable[[], Tokenizer]] = {
    "characters and pairs (bigrams)": lambda: tokenizer("bigrams"),
    "pairs alone": lambda: pairs,
    "rjieba's words (rjieba)": lambda: tokenizer("rjieba"),
}


def collection(data: Path, items: Path, out: Path, count: int, questions: int) -> Path:
    """A rag stage of `count` passages of another: all of the first `questions` known items, and others by chance."""
    table = pa.concat_tables([pq.read_table(path) for path in sorted(data.glob("train-*.parquet"))])
    asked = {id_ for path in items.glob("*.parquet") for id_ in pq.read_table(path, columns=["id"])["id"].to_pylist()}
    rows = [id_.rpartition("@")[0] for id_ in table["id"].to_pylist()]
    held = sorted(asked & set(rows), key=lambda id_: hashlib.sha256(f"0 {id_}".encode()).digest())
    drawn = set(held[:questions])
    needed = [row for row, id_ in enumerate(rows) if id_ in drawn]
    rest = np.array([row for row, id_ in enumerate(rows) if id_ not in drawn])
    others = np.random.default_rng(0).permutation(rest)[: max(count - len(needed), 0)]
    out.mkdir(parents=True, exist_ok=True)
    file = out / "train-00000-of-00001.parquet"
    chosen = table.take(pa.array(np.sort([*needed, *others])))
    pq.write_table(chosen, file)
    files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    manifest = {"stage": "rag", "rows": {"train": len(chosen)}, "files": files}
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


def texts(stage: Path) -> list[str]:
    """The folded texts of a stage's passages."""
    table = pq.read_table(stage / "train-00000-of-00001.parquet")
    return list(fold(joined(*(table[name].combine_chunks() for name in ("title", "text")))).to_pylist())


def shared(folded: Sequence[str], cut: Tokenizer, known: dict[str, str]) -> Tokens:
    """Tokens, each a string that is held once however often it stands."""
    return [[known.setdefault(token, token) for token in cut(text)] for text in folded]


def measure(engine: str, cut: str, stage: Path, asked: Sequence[tuple[str, str]], answer: Any) -> None:
    """Send what one engine does with one way to cut tokens; runs in a process of its own."""
    known: dict[str, str] = {}
    cutter = CUTS[cut]()
    passages = shared(texts(stage), cutter, known)
    folded = fold(pa.array([question for _, question in asked])).to_pylist()
    questions = [list(dict.fromkeys(tokens)) for tokens in shared(folded, cutter, known)]
    count = min(SLOW, len(asked)) if engine == "rank_bm25" else len(asked)
    with tempfile.TemporaryDirectory() as folder:
        index, query, found = ENGINES[engine](passages, questions[:count], Path(folder))
    ids = [id_.rpartition("@")[0] for id_ in pq.read_table(stage / "train-00000-of-00001.parquet")["id"].to_pylist()]
    hits = [id_ in {ids[row] for row in rows} for (id_, _), rows in zip(asked, found, strict=False)]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    answer.send(Row(index, count / query, memory, sum(hits) / count, count))


def apart(engine: str, cut: str, stage: Path, asked: Sequence[tuple[str, str]]) -> Row:
    """One measurement in a fresh process."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(engine, cut, stage, asked, send))
    process.start()
    send.close()
    row: Row = receive.recv()
    process.join()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="rag stage with explanations of exam items")
    parser.add_argument("eval", type=Path, help="eval stage with those items")
    parser.add_argument("--out", type=Path, required=True, help="folder for collections, indexes, runs and qrels")
    parser.add_argument("--encoder", help="sentence-transformers model: measures dense search and fusion too")
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=2_500)
    parser.add_argument("--dense", type=int, default=20_000, help="passages that are encoded")
    args = parser.parse_args()
    stage = collection(args.data, args.eval, args.out / "words", args.passages, args.questions)
    began = time.process_time()
    index = build(stage, args.out / "words-index")
    seconds = time.process_time() - began
    print(f"{index.passages:,} passages indexed from texts in {seconds:.1f} CPU seconds\n")
    modes(args.out / "words-index", args.eval, args.questions, args.out)
    asked = [(item.id, item.question) for item in known(args.out / "words-index", args.eval, args.questions)]
    engines(stage, asked)
    if args.encoder:
        part = collection(args.data, args.eval, args.out / "dense", args.dense, args.questions)
        began = time.process_time()
        index = build(part, args.out / "dense-index", encoder=args.encoder)
        seconds = time.process_time() - began
        print(f"{index.passages:,} passages, {index.encoded:,} encoded in {seconds:.0f} CPU seconds\n")
        modes(args.out / "dense-index", args.eval, args.questions, args.out)


def known(index: Path, items: Path, questions: int) -> Any:
    return known_items(items, Retriever(index), rows=questions)


def modes(index: Path, items: Path, questions: int, out: Path) -> None:
    """Print the scores of every mode of an index, and write its runs and qrels."""
    retriever = Retriever(index)
    asked = known_items(items, retriever, rows=questions)
    write_qrels(asked, out / f"{index.name}.qrels.trec")
    print("| mode | questions | n | recall@1 | recall@3 | recall@10 | recall@100 | nDCG@10 | MRR | a CPU second |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    groups = {"all": asked, "not repeated by the explanation": [item for item in asked if not item.repeated]}
    for mode in retriever.modes:
        retriever.search([asked[0].question], 1, mode)
        began = time.process_time()
        retriever.search([item.question for item in asked], K, mode)
        speed = len(asked) / (time.process_time() - began)
        run: Run = find(retriever, asked, mode)
        write_run(run, out / f"{index.name}.{mode}.trec", mode)
        for name, group in groups.items():
            scores = score(run, group)
            cells = [*scores.recall.values(), scores.ndcg, scores.mrr]
            print(f"| {mode} | {name} | {scores.n:,} | {' | '.join(f'{cell:.3f}' for cell in cells)} | {speed:,.0f} |")
    print()


def engines(stage: Path, asked: Sequence[tuple[str, str]]) -> None:
    """Print the tables of engines and of ways to cut tokens."""
    first = next(iter(CUTS))
    print("| engine | tokens | index, CPU s | questions a CPU second | peak memory, GiB | recall@10 | of questions |")
    print("|---|---|---|---|---|---|---|")
    for engine, cut in [
        *((engine, first) for engine in ENGINES),
        *(("tantivy, as in qilin", cut) for cut in [*CUTS][1:]),
    ]:
        row = apart(engine, cut, stage, asked)
        speed = f"{row.speed:,.0f}" if row.speed >= 10 else f"{row.speed:.1f}"
        cells = f"{row.seconds:.1f} | {speed} | {row.memory:.2f} | {row.recall:.3f} | {row.questions:,}"
        print(f"| {engine} | {cut} | {cells} |", flush=True)
    print()


if __name__ == "__main__":
    main()
