"""`chimed dedup` as a process: a folder, a sentence or JSON, exit codes."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.e2e.conftest import Run


def texts(count: int) -> list[str]:
    rng = random.Random(5)
    words = ["".join(map(chr, rng.choices(range(0x4E00, 0x9FA5), k=4))) for _ in range(300)]
    return ["".join(rng.choices(words, k=30)) for _ in range(count)]


def test_dedup(chimed: Run, tmp_path: Path) -> None:
    rows = texts(400)
    near = [text[:60] + "改" + text[61:] for text in rows[:50]]
    pq.write_table(pa.table({"body": rows + rows[:20]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"body": text, "n": 1}) + "\n" for text in near))
    command = ["dedup", "a.parquet", "b.jsonl", "--column", "body", "--out", "out"]
    done = chimed(*command, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["rows"], found["equal"], found["near"], found["kept"]) == (470, 20, 50, 400)
    assert pq.read_table(tmp_path / "out/kept/a.parquet")["body"].to_pylist() == rows
    assert (tmp_path / "out/kept/b.jsonl").read_text() == ""
    assert chimed(*command, cwd=tmp_path).stdout.startswith("400 of 470 rows kept; 20 equal and 50 near-equal")


def test_what_a_user_can_mend_is_one_sentence(chimed: Run, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "感冒"}\n')
    done = chimed("dedup", tmp_path / "a.jsonl", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no column 'text'; it has question" in done.stderr
    assert not (tmp_path / "out").exists()
