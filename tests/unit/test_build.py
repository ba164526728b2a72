"""How a build cuts its raw files into parts, and what it takes from an earlier one."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from chimed import build, ledger
from chimed.outcome import Outcome
from chimed.recipe import load_recipe


class Silent:
    def step(self, name: str, total: int) -> Callable[[int], None]:
        return lambda amount: None


def built(out: Path, recipe: Path | None = None, raw: Path | None = None) -> Outcome:
    request = build.Request(load_recipe(recipe), recipe, raw, out, ("cpt", "sft", "eval"), 1)
    return build.build(request, Silent())


def parts(out: Path) -> list[Path]:
    return sorted((out / ".work" / "parts").iterdir())


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.glob("*/*.parquet"))}


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A recipe with a source of 300 small files, of which a few hold the evaluation set and one nothing."""
    folder = tmp_path / "raw" / "notes"
    folder.mkdir(parents=True)
    for number in range(300):
        name = f"test-{number}.txt" if number % 100 == 7 else f"{number}.txt"
        lines = [
            f"第{number}例第{line}次随访，血压{number + line}，建议低盐饮食并按时复查。"
            for line in range(number % 3 + 1)
        ]
        (folder / name).write_text("" if number == 11 else "\n".join(lines), encoding="utf-8")
    source = {"name": "notes", "shape": "passage", "files": {"test-*": "test", "*.txt": "train"}, "max_rejects": 1}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"near": 1, "sources": [source]}), encoding="utf-8")
    return recipe


def test_small_files_share_a_part_and_keep_their_names(notes: Path, tmp_path: Path) -> None:
    outcome = built(tmp_path / "out", notes, tmp_path / "raw")
    assert len(parts(tmp_path / "out")) == 1 + 3  # those that train, and each file of the evaluation set
    rows = pq.read_table(tmp_path / "out" / "ledger.parquet").to_pylist()
    assert all(row["id"].startswith(f"notes/{row['file']}#") for row in rows)
    counted = {name: own["read"] for name, own in outcome.counts["notes"].items()}
    assert counted["299.txt"] == 3 and counted["11.txt"] == 1 and len(counted) == 300
    assert sum(counted.values()) == len(rows)
    assert [row["reason"] for row in rows if row["file"] == "11.txt"] == ["empty-file"]
    assert not any(
        "test-" in row["id"] for row in pq.read_table(next((tmp_path / "out" / "cpt").glob("*.parquet"))).to_pylist()
    )


def test_how_files_share_parts_does_not_show(notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built(tmp_path / "shared", notes, tmp_path / "raw")
    monkeypatch.setattr(build, "SMALL_FILE", 0)
    built(tmp_path / "apart", notes, tmp_path / "raw")
    assert len(parts(tmp_path / "apart")) == 300
    monkeypatch.setattr(build, "SMALL_FILE", 1 << 20)
    monkeypatch.setattr(build, "SMALL", 1000)
    built(tmp_path / "few", notes, tmp_path / "raw")
    assert 10 < len(parts(tmp_path / "few")) < 300
    assert files(tmp_path / "shared") == files(tmp_path / "apart") == files(tmp_path / "few")


def test_very_many_files_are_counted_together(notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MOST", 99)
    counts = built(tmp_path / "out", notes, tmp_path / "raw").counts["notes"]
    assert list(counts) == ["300 files"]
    assert counts["300 files"]["read"] == len(pq.read_table(tmp_path / "out" / "ledger.parquet"))


def test_the_work_of_another_version_is_done_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is read: it is broken here."""
    built(tmp_path / "fresh")
    monkeypatch.setattr(build, "code_digest", lambda: "of another version")
    built(tmp_path / "out")
    before = parts(tmp_path / "out")
    for path in (tmp_path / "out" / ".work").rglob("*.arrow"):
        path.write_bytes(b"of another version")
    monkeypatch.undo()
    built(tmp_path / "out")
    assert len(parts(tmp_path / "out")) == 2 * len(before)
    assert files(tmp_path / "out") == files(tmp_path / "fresh")
