"""Upstream's files of one data set apart, questions, answers and splits, built from the command line."""

import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
Contents = Callable[[Path], dict[str, str]]

ROWS = 3_000
HAN = [chr(0x4E00 + number) for number in range(3_000)]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cMedQA2 in upstream's form, 9 MB of it. Questions 10, 20, … are of the test split, 11, 21, … of the
    validation split, the last ten of none; question 25 is that of test question 20."""
    folder = tmp_path_factory.mktemp("apart") / "cmedqa2"
    folder.mkdir()
    rng = random.Random(11)
    questions = ["".join(rng.choices(HAN, k=30)) for _ in range(ROWS)]
    questions[25] = questions[20]
    answers = ["".join(rng.choices(HAN, k=1_000)) for _ in range(ROWS)]
    write(folder / "question.csv", "question_id,content", [f"{n},{text}" for n, text in enumerate(questions)])
    write(folder / "answer.csv", "ans_id,question_id,content", [f"{n + 9},{n},{a}" for n, a in enumerate(answers)])
    split = {n: {0: "test", 1: "dev"}.get(n % 10, "train") for n in range(ROWS - 10)}
    for name, head in (("test", "ans_id,cnt,label"), ("dev", "ans_id,cnt,label"), ("train", "pos_ans_id,neg_ans_id")):
        rows = [f"{n},{n + 9},0{',1' * (name != 'train')}" for n, own in split.items() if own == name]
        write(folder / f"{name}_candidates.txt", f"question_id,{head}", rows)
    (folder.parent / "recipe.yaml").write_text("sources: [cmedqa2]\nvalidation: 0\n", encoding="utf-8")
    return folder.parent


def write(path: Path, head: str, rows: list[str]) -> None:
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")


def arguments(raw: Path, out: Path, workers: int = 1) -> list[object]:
    options = ["--raw", raw, "--recipe", raw / "recipe.yaml", "--out", out, "--workers", workers]
    return ["build", "--stage", "sft", "--stage", "eval", *options]


@pytest.fixture(scope="module")
def built(raw: Path, chimed: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("apart-built") / "out"
    done = chimed(*arguments(raw, out))
    assert done.returncode == 0, done.stderr
    assert "looked up for the rows of cmedqa2: dev_candidates.txt, question.csv, test_" in " ".join(done.stdout.split())
    assert "not read" not in done.stdout
    return out


def test_every_answer_is_counted_once_and_goes_where_the_lists_say(built: Path) -> None:
    manifest = json.loads((built / "eval" / "manifest.json").read_text(encoding="utf-8"))
    counts = manifest["counts"]["cmedqa2"]
    assert list(counts) == ["answer.csv"]
    # The train list has 2,392 of the 2,990 questions: one of them is a question of the test list.
    assert counts["answer.csv"] == {"read": ROWS, "kept": 2_989, "rejected": 10, "repeated": 0, "leaked": 1}
    assert manifest["rows"] == {"validation": 299, "test": 299}
    rows = pq.read_table(next((built / "sft").glob("*.parquet"))).to_pylist()
    numbers = {int(row["id"].partition("#")[2]) - 1 for row in rows}
    assert len(rows) == 2_391
    assert not [n for n in numbers if n % 10 < 2 or n == 25 or n >= ROWS - 10]


def test_why_names_the_file_that_a_row_would_need(built: Path, chimed: Run) -> None:
    done = chimed("why", f"cmedqa2/answer.csv#{ROWS}", "--out", built, "--json")
    (row,) = json.loads(done.stdout)
    assert (row["verdict"], row["reason"]) == ("rejected", "not-joined")
    assert row["detail"].startswith(f"question_id '{ROWS - 1}' does not stand in test_candidates.txt, dev_")
    assert row["meaning"] == "What completes the row stands in another file, which is not there or does not know it."


def test_two_workers_give_the_bytes_of_one(
    raw: Path, built: Path, chimed: Run, contents: Contents, tmp_path: Path
) -> None:
    done = chimed(*arguments(raw, tmp_path / "out", 2))
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(built)


def test_a_changed_question_prepares_its_answers_anew(raw: Path, built: Path, chimed: Run) -> None:
    parts = built / ".work" / "parts"
    before = set(parts.iterdir())
    assert chimed(*arguments(raw, built)).returncode == 0
    assert set(parts.iterdir()) == before
    path = raw / "cmedqa2" / "question.csv"
    old = path.read_text(encoding="utf-8")
    try:
        path.write_text(old.replace("\n33,", "\n33,新的问题"), encoding="utf-8")
        assert chimed(*arguments(raw, built)).returncode == 0
    finally:
        path.write_text(old, encoding="utf-8")
    assert len(set(parts.iterdir()) - before) == 3
    (row,) = (
        row for row in pq.read_table(next((built / "sft").glob("*.parquet"))).to_pylist() if row["id"].endswith("#34")
    )
    assert row["messages"][0]["content"].startswith("新的问题")


def test_without_the_test_list_the_build_stops_and_says_what_it_needs(raw: Path, chimed: Run, tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "cmedqa2"
    folder.mkdir(parents=True)
    for path in (raw / "cmedqa2").iterdir():
        if path.name != "test_candidates.txt":
            (folder / path.name).symlink_to(path)
    (tmp_path / "raw" / "recipe.yaml").write_text("sources: [cmedqa2]\n", encoding="utf-8")
    done = chimed(*arguments(tmp_path / "raw", tmp_path / "out"))
    assert done.returncode == 2
    assert "3,000 of 3,000 rows were rejected" in done.stderr
    assert "not-joined: needs test_candidates.*, which is not there, to be joined by question_id" in done.stderr
    listed = chimed("sources", "--raw", tmp_path / "raw").stdout
    assert "partly found, no test or test_candidates.* files" in listed
