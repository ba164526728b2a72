"""From raw rows to an index that is searched: real stages, a real encoder in miniature, changes, kills, bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qilin.errors import DataError, ModelError, RunError
from qilin.rag.encode import find_encoder
from qilin.rag.index import build
from qilin.rag.known_item import find, known_items, score
from qilin.rag.retrieve import Retriever

pytest.importorskip("tantivy", reason="BM25 needs the extra eval")
pytest.importorskip("faiss", reason="vectors need the extra eval")
sentence_transformers = pytest.importorskip("sentence_transformers", reason="encoders need the extra eval")

pytestmark = pytest.mark.filterwarnings("ignore")

Run = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "benchmarks" / "retrieval.yaml"


@pytest.fixture(scope="module")
def sample(chimed: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build of the embedded sample."""
    out = tmp_path_factory.mktemp("sample")
    done = chimed("build", "--stage", "rag", "--stage", "eval", "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers model of 20,000 random weights, with prompts."""
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, set_seed

    folder = tmp_path_factory.mktemp("encoder")
    characters = [chr(code) for code in range(0x4E00, 0x5200)]
    vocabulary = {token: n for n, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    set_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(folder / "bert")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(folder / "bert")
    parts = [Transformer(str(folder / "bert"), max_seq_length=64), Pooling(16, "mean"), Normalize()]
    prompts = {"query": "一丁：", "document": "万丈："}
    model = sentence_transformers.SentenceTransformer(modules=parts, prompts=prompts, device="cpu")
    model.save_pretrained(str(folder / "model"))
    return folder / "model"


def restage(folder: Path, out: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    """A copy of a stage folder whose train split is changed."""
    import hashlib

    out.mkdir(parents=True)
    table = change(pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("train-*.parquet"))]))
    pq.write_table(table, out / "train-00000-of-00001.parquet")
    digest = hashlib.sha256((out / "train-00000-of-00001.parquet").read_bytes()).hexdigest()
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest |= {"rows": {"train": len(table)}, "files": {"train-00000-of-00001.parquet": digest}}
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


def test_the_sample_is_indexed_and_searched(sample: Path, encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    done = build(sample / "rag", out, encoder=str(encoder), eval_data=sample / "eval")
    rows = pq.read_metadata(next((sample / "rag").glob("train-*.parquet"))).num_rows
    assert (done.passages, done.added, done.removed, done.dimensions) == (rows, rows, 0, 16)
    assert str(done) == (
        f"{out}: {rows:,} passages (BM25 by bigrams, 16 dimensions of {encoder}); {rows:,} added, 0 removed, "
        f"{done.encoded:,} encoded; 0 purged for holding evaluation items"
    )
    assert {path.name for path in out.iterdir()} == {"index.json", ".lock", f"index-{done.digest[:16]}"}
    retriever = Retriever(out)
    table = pq.read_table(next((sample / "rag").glob("train-*.parquet"))).to_pylist()
    by_id = {row["id"]: row for row in table}
    for mode in retriever.modes:
        hits = retriever.search([row["text"] for row in table[:20]], 3, mode, leaked=True)
        for hit in (hit for found in hits for hit in found):
            assert {name: getattr(hit, name) for name in ("id", "source", "title", "text")}.items() <= by_id[
                hit.id
            ].items()
    first = [found[0].id for found in retriever.search([row["text"] for row in table[:20]], 1)]
    assert sum(id_ == row["id"] for id_, row in zip(first, table, strict=False)) >= 19
    again = build(sample / "rag", out, encoder=str(encoder), eval_data=sample / "eval")
    assert (again.added, again.encoded, again.digest) == (0, 0, done.digest)


def test_prompts_of_the_model_are_used(encoder: Path) -> None:
    model = find_encoder(str(encoder)).load("cpu")
    bare = sentence_transformers.SentenceTransformer(
        str(encoder), device="cpu", model_kwargs={"dtype": getattr(__import__("torch"), model.dtype)}
    )
    for mine, prompt in ((model.queries, "一丁："), (model.documents, "万丈：")):
        np.testing.assert_allclose(mine(["下一步"]), bare.encode([f"{prompt}下一步"], prompt=""), atol=1e-2)
    assert not np.allclose(model.queries(["下一步"]), model.documents(["下一步"]), atol=1e-3)


def test_a_change_of_the_data_is_all_that_is_encoded(sample: Path, encoder: Path, tmp_path: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()[5:]
        rows[0]["text"] += "新增。"
        return pa.Table.from_pylist([*rows, rows[1] | {"id": "new/1@0", "text": "全新的一段。"}], table.schema)

    out = tmp_path / "index"
    first = build(sample / "rag", out, encoder=str(encoder))
    changed = restage(sample / "rag", tmp_path / "changed", change)
    done = build(changed, out, encoder=str(encoder))
    assert (done.passages, done.added, done.removed, done.encoded) == (first.passages - 4, 2, 6, 2)
    fresh = build(changed, tmp_path / "fresh", encoder=str(encoder))
    assert fresh.digest == done.digest
    queries = ["下肢水肿怎么办", "全新的一段", "百日咳"]
    old, new = Retriever(out), Retriever(tmp_path / "fresh")
    assert old.search(queries) == new.search(queries)
    for one, other in zip(old.search(queries, 5, "dense"), new.search(queries, 5, "dense"), strict=True):
        assert [hit.score for hit in one] == pytest.approx([hit.score for hit in other], abs=1e-2)
    assert len(list(out.glob("index-*"))) == 1
    shrunk = restage(changed, tmp_path / "shrunk", lambda table: table.slice(0, 9))
    least = build(shrunk, out, encoder=str(encoder))
    assert (least.passages, least.added, least.encoded) == (9, 0, 0)


def test_a_killed_build_goes_on(sample: Path, encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    code = f"""
import os, signal, sys
from pathlib import Path
from qilin.rag import dense, index
dense.SHARD = 16
def watch(done, total, what):
    if what == "encode" and done >= 48:
        os.kill(os.getpid(), signal.SIGKILL)
index.build(Path({str(sample / "rag")!r}), Path({str(out)!r}), encoder={str(encoder)!r}, progress=watch)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(RunError, match="is an unfinished index"):
        Retriever(out)
    resumed = build(sample / "rag", out, encoder=str(encoder))
    whole = build(sample / "rag", tmp_path / "whole", encoder=str(encoder))
    assert resumed.encoded == whole.encoded - 48
    query = ["下肢水肿怎么办"]
    assert Retriever(out).search(query, mode="bm25") == Retriever(tmp_path / "whole").search(query, mode="bm25")
    assert not list(out.glob("encode-*"))


def test_the_old_index_serves_until_the_new_one_is_whole(sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    build(sample / "rag", out)
    before = Retriever(out).search(["百日咳"])

    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    changed = restage(sample / "rag", tmp_path / "changed", lambda table: table.slice(0, 9))
    with pytest.raises(KeyboardInterrupt):
        build(changed, out, progress=stop)
    assert Retriever(out).search(["百日咳"]) == before
    assert build(changed, out).passages == 9


def test_a_damaged_index_is_built_again(sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    first = build(sample / "rag", out)
    file = out / f"index-{first.digest[:16]}" / "passages.arrow"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(RunError, match=r"passages\.arrow is missing or damaged .*; build the index again"):
        Retriever(out)
    assert build(sample / "rag", out).added == first.passages
    assert len(Retriever(out)) == first.passages


def test_two_processes_do_not_write_one_index(sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    code = f"""
import time
from pathlib import Path
from qilin.rag.index import build
build(Path({str(sample / "rag")!r}), Path({str(out)!r}), progress=lambda *_: (print("in", flush=True), time.sleep(60)))
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert other.stdout and other.stdout.readline() == "in\n"
        with pytest.raises(RunError, match="another process writes this index"):
            build(sample / "rag", out)
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    assert build(sample / "rag", out).passages


def test_bad_input_is_one_sentence(sample: Path, encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    with pytest.raises(DataError, match="has no manifest"):
        build(tmp_path, out)
    with pytest.raises(DataError, match="holds data for the stage eval, not rag"):
        build(sample / "eval", out)
    with pytest.raises(DataError, match="holds data for the stage rag, not eval"):
        build(sample / "rag", out, eval_data=sample / "rag")
    with pytest.raises(DataError, match="the split train is empty"):
        build(restage(sample / "rag", tmp_path / "empty", lambda table: table.slice(0, 0)), out)
    with pytest.raises(ModelError, match=r"is neither a folder nor an encoder on the Hugging Face Hub"):
        build(sample / "rag", out, encoder="./nowhere")
    with pytest.raises(ModelError, match="is no sentence-transformers model"):
        build(sample / "rag", out, encoder=str(sample))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        build(sample / "rag", tmp_path / "file")
    assert not out.exists() or not (out / "index.json").exists()


def qilin(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qilin.cli", "index", *map(str, arguments)]
    where = os.environ | {"PYTHONPATH": str(ROOT)} | more
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=where)


def test_the_command_says_what_it_did(sample: Path, encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    questions = pq.read_table(next((sample / "eval").glob("test-*.parquet")))["question"].to_pylist()

    def leak(table: pa.Table) -> pa.Table:
        texts = table["text"].to_pylist()
        texts[0] = f"{texts[0]}。{max(questions, key=len)}"
        return table.set_column(table.column_names.index("text"), "text", pa.array(texts))

    leaky = restage(sample / "rag", tmp_path / "leaky", leak)
    rows = pq.read_table(leaky / "train-00000-of-00001.parquet").num_rows
    done = qilin(leaky, "--out", out, "--eval", sample / "eval", "--encoder", encoder)
    assert (done.returncode, done.stderr) == (0, "")
    held = f"{out}: {rows:,} passages (BM25 by bigrams, 16 dimensions of {encoder})"
    assert done.stdout.startswith(f"{held}; {rows:,} added, 0 removed, ")
    purged = "1 purged for holding evaluation items (question 1)\n"
    assert done.stdout.endswith(f" encoded; {purged}")
    again = qilin(leaky, "--out", out, "--eval", sample / "eval", "--encoder", encoder)
    assert again.stdout == f"{held}; nothing new, so nothing was done; {purged}"
    fewer = restage(sample / "rag", tmp_path / "fewer", lambda table: leak(table).slice(2))
    less = qilin(fewer, "--out", out, "--encoder", encoder, "--json")
    assert {"passages": rows - 2, "added": 0, "removed": 2, "encoded": 0, "leaked": None}.items() <= json.loads(
        less.stdout
    ).items()


def test_bad_input_to_the_command_ends_with_2(sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    for arguments, sentence in (
        ((tmp_path / "nowhere",), "nowhere is not a folder"),
        ((sample / "eval",), "holds data for the stage eval, not rag"),
        ((sample / "rag", "--encoder", tmp_path / "nowhere"), "is neither a folder nor an encoder"),
        ((sample / "rag", "--words", "jieba"), "'jieba' is not one of 'bigrams', 'rjieba'"),
    ):
        done = qilin(*arguments, "--out", out)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert sentence in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("module", "package", "options"),
    [
        ("tantivy", "tantivy", []),
        ("rjieba", "rjieba", ["--words", "rjieba"]),
        ("faiss", "faiss-cpu", ["--encoder"]),
        ("sentence_transformers", "sentence-transformers", ["--encoder"]),
    ],
)
def test_a_missing_package_is_named(
    module: str, package: str, options: list[str], sample: Path, encoder: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{module!r}] = None\n")
    given = [*options, encoder] if options == ["--encoder"] else options
    done = qilin(sample / "rag", "--out", tmp_path / "out", *given, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 2
    assert (
        done.stderr == f"qilin: this needs the package {package}, which is not installed: pip install 'chimed[eval]'\n"
    )
    assert not (tmp_path / "out").exists()


def test_an_encoder_never_brings_code(sample: Path, encoder: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(encoder, copy)
    modules = json.loads((copy / "modules.json").read_text())
    modules[1]["type"] = "modeling_evil.Evil"
    (copy / "modules.json").write_text(json.dumps(modules))
    (copy / "modeling_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    with pytest.raises(ModelError, match="the encoder cannot be loaded"):
        find_encoder(str(copy)).load("cpu")
    assert not (tmp_path / "ran").exists()


def test_words_are_another_index(sample: Path, tmp_path: Path) -> None:
    pytest.importorskip("rjieba", reason="words need the extra eval")
    grams, cut = build(sample / "rag", tmp_path / "one"), build(sample / "rag", tmp_path / "two", words="rjieba")
    assert grams.digest != cut.digest
    assert Retriever(tmp_path / "two").search(["高血压患者的饮食"])[0]


@pytest.mark.slow
def test_known_items_of_real_data_are_found(chimed: Run, raw: Path, tmp_path: Path) -> None:
    """recall@10 is at or above 0.80 over more than 100,000 real passages."""
    for arguments in (["--stage", "rag", "--recipe", RECIPE], ["--stage", "eval"]):
        done = chimed("build", *arguments, "--raw", raw, "--out", tmp_path)
        assert done.returncode == 0, done.stderr
    began = time.process_time()
    index = build(tmp_path / "rag", tmp_path / "index")
    assert index.passages >= 100_000
    assert time.process_time() - began < 300
    retriever = Retriever(tmp_path / "index")
    items = known_items(tmp_path / "eval", retriever, rows=2500)
    assert len(items) == 2500
    assert score(find(retriever, items, "bm25"), items).recall[10] >= 0.80
