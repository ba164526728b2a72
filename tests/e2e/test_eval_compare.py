"""`qilin compare`: finished evaluations of the same items side by side, and what cannot be compared."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("lm_eval", reason="needs the eval extra: pip install -e '.[eval]'")

ROOT = Path(__file__).resolve().parents[2]
FIELDS = ("explanation", "department", "discipline", "competency", "disease_group", "difficulty")


def row(source: str, number: int, rng: random.Random) -> dict[str, Any]:
    exam = source == "cmexam"
    own = {"id": f"{source}/{number}", "source": source, "kind": "exam" if exam else "open"}
    own |= {"question": f"第{number}例首先考虑", "options": ["发热", "咳嗽", "头痛", "乏力"] if exam else []}
    answer = rng.choice("ABCD") if exam else f"多喝水，多休息{number}"
    return own | {"answer": answer, "messages": []} | dict.fromkeys(FIELDS, "")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 items of one right answer of four, and 20 open ones, as `chimed build` writes them."""
    rng = random.Random(5)
    rows = [row("cmexam", number, rng) for number in range(300)] + [row("huatuo26m", n, rng) for n in range(20)]
    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    kinds = {"options": pa.list_(pa.string()), "messages": pa.list_(turn)}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in rows[0]])
    folder = tmp_path_factory.mktemp("stage") / "eval"
    folder.mkdir()
    file = folder / "test-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema), file)
    files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps({"stage": "eval", "rows": {"test": len(rows)}, "files": files}))
    return folder


def qilin(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    where = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "qilin.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=where, capture_output=True, text=True, check=False)


def evaluate(folder: Path, out: str, said: dict[str, Any]) -> None:
    (folder / "eval.yaml").write_text(json.dumps({"stage": "eval", "output_dir": out} | said), encoding="utf-8")
    done = qilin(folder, "eval", "eval.yaml")
    assert done.returncode == 0, done.stderr


def test_evaluations_are_compared_item_by_item(stage: Path, tmp_path: Path) -> None:
    data = {"path": str(stage), "sets": ["cmexam/test", "huatuo26m/test"], "rows": 300}
    exam = {"methods": ["letters", "generation"]}
    names = ("random", "constant", "oracle")
    for name in names:
        metrics = ["zh", "llamafactory"] if name != "random" else ["zh"]
        evaluate(tmp_path, name, {"baseline": name, "data": data, "exam": exam, "open": {"metrics": metrics}})
    done = qilin(tmp_path, "compare", *names, "--json")
    assert done.returncode == 0, done.stderr
    parts = {(part["set"], part["by"]): part["runs"] for part in json.loads(done.stdout)["parts"]}
    assert list(parts) == [("cmexam/test", "letters"), ("cmexam/test", "generation"), ("huatuo26m/test", "zh")]

    right = {}
    for name in names:
        rows = [json.loads(line) for line in (tmp_path / name / "items.jsonl").read_text("utf-8").splitlines()]
        right[name] = [row["methods"]["letters"]["correct"] for row in rows if row["set"] == "cmexam/test"]
    first, second, third = parts["cmexam/test", "letters"]
    assert "against" not in first
    assert first["accuracy"]["value"] == sum(right["random"]) / 300
    pair = third["against"]
    assert (pair["n"], pair["only_first"]) == (300, 0)
    assert pair["only_second"] == sum(right["oracle"]) - sum(right["constant"])
    assert pair["p"] < 1e-9
    assert second["against"]["p"] > 1e-4
    opened = parts["huatuo26m/test", "zh"][2]
    assert opened["scores"]["values"]["rouge-1"] == pytest.approx(100)
    assert opened["against"]["everything"]["difference"]["rouge-1"]["value"] == pytest.approx(100)
    assert opened["against"]["within"] is None  # no reply of one letter is nearly as long as an answer

    table = qilin(tmp_path, "compare", *names).stdout
    assert table.count("| oracle | letters | 300 |") == 1
    assert "## huatuo26m/test: closed" in table
    assert "Not for clinical use" in table


def test_what_cannot_be_compared_is_said(stage: Path, tmp_path: Path) -> None:
    for name, rows, source in (("a", 5, "cmexam"), ("b", 6, "cmexam"), ("c", 5, "huatuo26m")):
        data = {"path": str(stage), "sets": [f"{source}/test"], "rows": rows}
        evaluate(tmp_path, name, {"baseline": "constant", "data": data})
    shutil.copytree(tmp_path / "a", tmp_path / "changed")
    with (tmp_path / "changed/items.jsonl").open("a") as file:
        file.write("{}\n")
    faults = {
        ("a",): "one evaluation alone cannot be compared",
        ("a", "nowhere"): "nowhere: holds no finished evaluation",
        ("a", "b"): "a and b: cmexam/test was asked with other prompts in the arm closed",
        ("a", "c"): "a, c: have no set, arm and method in common",
        ("a", "changed"): "changed: items.jsonl is not the one that result.json speaks of",
    }
    for runs, fault in faults.items():
        done = qilin(tmp_path, "compare", *runs)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"qilin: {fault}")
