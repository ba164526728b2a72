"""Bad input ends as one clear sentence and exit code 2, or as a counted reject; never as a traceback or in silence."""

import json
import os
import resource
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

RECIPE = """
sources:
  - {name: mine, shape: dialogue, files: {"**": train}, columns: {question: q, answer: a}, max_rejects: 1}
"""
GOOD = {
    "q": "感冒发热三天了应该怎么办？",
    "a": "多喝水，注意休息，体温超过38.5度时可以服用退热药，三天不退请到医院就诊。",
}
LINE = json.dumps(GOOD, ensure_ascii=False)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a recipe for one source and its raw folder with one good file."""
    (tmp_path / "raw" / "mine").mkdir(parents=True)
    (tmp_path / "raw" / "mine" / "good.jsonl").write_text(LINE + "\n", encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def _build(chimed, place: Path, *more: object, **options: object):
    paths = ["--recipe", place / "recipe.yaml", "--raw", place / "raw", "--out", place / "out", "--workers", 1]
    return chimed("build", "--stage", "sft", *paths, *more, **options)


def _fails(done, *words: str) -> None:
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert done.stderr.startswith("chimed: "), done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def _verdicts(place: Path) -> dict[str, tuple[str, str]]:
    table = pq.read_table(place / "out" / "ledger.parquet").to_pylist()
    return {row["id"].removeprefix("mine/"): (row["verdict"], row["reason"]) for row in table}


def test_unknown_source_and_keys_are_all_named_at_once(chimed, place: Path) -> None:
    (place / "recipe.yaml").write_text("nearr: 0.8\nvalidation: 3\nsources: [{nam: cmexam}]\n", encoding="utf-8")
    _fails(_build(chimed, place), "did you mean 'near'", "did you mean 'name'", "validation")
    (place / "recipe.yaml").write_text("sources: [cmexan]\n", encoding="utf-8")
    _fails(_build(chimed, place), "unknown source 'cmexan'", "did you mean 'cmexam'")


def test_a_recipe_that_is_no_yaml(chimed, place: Path) -> None:
    (place / "recipe.yaml").write_text("sources: [", encoding="utf-8")
    _fails(_build(chimed, place), "recipe.yaml", "not YAML")


def test_missing_folder_and_missing_files(chimed, place: Path) -> None:
    _fails(
        chimed("build", "--stage", "sft", "--raw", place / "nowhere", "--out", place / "out"),
        "nowhere",
        "no such folder",
    )
    (place / "raw" / "mine" / "good.jsonl").unlink()
    _fails(_build(chimed, place), "no files of mine")


def test_unknown_stage_is_refused(chimed, place: Path) -> None:
    done = chimed("build", "--stage", "sftt")
    assert done.returncode == 2
    assert "sftt" in done.stderr


@pytest.mark.parametrize(
    ("name", "data", "key", "reason"),
    [
        ("empty.jsonl", b"", "empty.jsonl#0", "empty-file"),
        ("nul.jsonl", b"\0" * 4096, "nul.jsonl#1", "nul-bytes"),
        ("cut.json", f"[{LINE}, {LINE[:30]}".encode(), "cut.json#2", "broken-json"),
        ("cut.jsonl", f"{LINE}\n{LINE[:30]}".encode(), "cut.jsonl#2", "broken-json"),
        ("bytes.jsonl", (LINE + "\n").encode() + b'{"q": "\xff\xfe\xff", "a": "x"}\n', "bytes.jsonl#2", "bad-encoding"),
        ("no-answer.jsonl", b'{"q": "abc"}\n', "no-answer.jsonl#1", "no-a"),
        ("open.csv", 'q,a\n"感冒,多喝水\n'.encode(), "open.csv#1", "unclosed-quote"),
        ("other.jsonl", f'{LINE}\n[1, 2]\n"text"\n'.encode(), "other.jsonl#2", "not-an-object"),
    ],
)
def test_a_bad_file_is_a_counted_reject(chimed, place: Path, name: str, data: bytes, key: str, reason: str) -> None:
    (place / "raw" / "mine" / name).write_bytes(data)
    done = _build(chimed, place)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    verdicts = _verdicts(place)
    rejected = {own: entry for own, entry in verdicts.items() if own.startswith(name) and entry[0] == "rejected"}
    assert any(entry[1] == reason for entry in rejected.values()), (verdicts, reason, key)
    assert ("kept", None) in verdicts.values()


def test_csv_in_gb18030_with_line_ends_inside_a_cell(chimed, place: Path) -> None:
    text = 'q,a\r\n"感冒了\r\n怎么办才好？","多喝水，\r\n多休息，体温高时用退热药，三天不退就去医院看看。"\r\n'
    (place / "raw" / "mine" / "table.csv").write_bytes(text.encode("gb18030"))
    assert _build(chimed, place).returncode == 0
    assert _verdicts(place)["table.csv#1"] == ("kept", None)


def test_a_field_of_100_mb_is_rejected_in_bounded_memory(chimed, place: Path) -> None:
    with (place / "raw" / "mine" / "huge.jsonl").open("w", encoding="utf-8") as file:
        file.write(
            '{"q": "感冒怎么办？", "a": "' + "多喝水。" * 8_500_000 + '"}\n' + LINE.replace("感冒", "咳嗽") + "\n"
        )
    done = _build(chimed, place)
    assert done.returncode == 0, done.stderr
    verdicts = _verdicts(place)
    assert verdicts["huge.jsonl#1"] == ("rejected", "row-too-large")
    assert "huge.jsonl#2" in verdicts


def test_a_zip_that_points_outside_is_a_reject(chimed, place: Path) -> None:
    with zipfile.ZipFile(place / "raw" / "mine" / "talks.zip", "w") as archive:
        archive.writestr("../../escape.jsonl", LINE)
        archive.writestr("inside.jsonl", LINE.replace("感冒", "咳嗽"))
    assert _build(chimed, place).returncode == 0
    verdicts = _verdicts(place)
    assert ("rejected", "unsafe-path") in verdicts.values()
    assert not (place / "escape.jsonl").exists()
    assert any(own.startswith("talks.zip!inside.jsonl") for own in verdicts)


def test_an_output_folder_that_holds_something_else_is_left_alone(chimed, place: Path) -> None:
    (place / "out").mkdir()
    (place / "out" / "thesis.txt").write_text("mine")
    _fails(_build(chimed, place), "holds something else (thesis.txt)")
    assert [p.name for p in (place / "out").iterdir()] == ["thesis.txt"]
    (place / "file").write_text("x")
    _fails(chimed("build", "--stage", "sft", "--out", place / "file"), "is a file")


def test_too_many_rejects_stop_with_the_first_examples(chimed, place: Path) -> None:
    (place / "recipe.yaml").write_text(RECIPE.replace("max_rejects: 1", "max_rejects: 0.1"), encoding="utf-8")
    (place / "raw" / "mine" / "odd.jsonl").write_text('{"question": "x", "answer": "y"}\n' * 50)
    _fails(
        _build(chimed, place), "50 of 51 rows were rejected", "odd.jsonl#1: no-q", "found the columns question, answer"
    )


def test_a_full_disk_keeps_what_was_finished(chimed, large: Path, tmp_path: Path) -> None:
    def small_files() -> None:
        # No file may grow beyond this: the same error path as a disk that is full.
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))

    paths = ["--recipe", large / "recipe.yaml", "--raw", large / "raw", "--out", tmp_path / "out", "--workers", 1]
    _fails(chimed("build", "--stage", "sft", *paths, preexec_fn=small_files), "finished parts are kept")
    assert not (tmp_path / "out" / "sft").exists()
    finished = [p for p in (tmp_path / "out" / ".work" / "parts").iterdir() if p.suffix != ".partial"]
    assert finished
    before = {p: p.stat().st_mtime_ns for p in finished}
    done = chimed("build", "--stage", "sft", *paths)
    assert done.returncode == 0, done.stderr
    assert {p: p.stat().st_mtime_ns for p in finished} == before


def test_an_unwritable_output_folder(chimed, place: Path) -> None:
    if os.geteuid() == 0:
        target = Path("/proc/chimed-out")  # not even root can make a folder here
    else:
        (place / "locked").mkdir(mode=0o500)
        target = place / "locked" / "out"
    _fails(chimed("build", "--stage", "sft", "--out", target), str(target))


def test_a_stage_without_rows(chimed, place: Path) -> None:
    paths = ["--recipe", place / "recipe.yaml", "--raw", place / "raw", "--out", place / "out"]
    _fails(chimed("build", "--stage", "dpo", *paths), "dpo: no row")
    assert not (place / "out" / "dpo").exists()


def test_why_and_show_say_what_is_missing(chimed, place: Path) -> None:
    _fails(chimed("why", "mine/good.jsonl#1", "--out", place / "nothing"), "no ledger")
    _fails(chimed("show", place / "raw"), "no manifest.json")
    assert _build(chimed, place).returncode == 0
    _fails(chimed("why", "mine/good.jsonl#77", "--out", place / "out"), "no row")
