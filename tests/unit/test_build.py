"""How a build cuts its raw files into parts, and what it takes from an earlier one."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from chimed import build, earlier, ledger
from chimed.errors import BuildError
from chimed.outcome import Outcome
from chimed.recipe import load_recipe


class Silent:
    def step(self, name: str, total: int) -> Callable[[int], None]:
        return lambda amount: None


def built(out: Path, recipe: Path | None = None, raw: Path | None = None, *against: Path) -> Outcome:
    request = build.Request(load_recipe(recipe), recipe, raw, out, ("cpt", "sft", "eval"), 1, None, against)
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


def rows(out: Path, stage: str = "cpt") -> set[str]:
    return {row["id"] for path in (out / stage).glob("*.parquet") for row in pq.read_table(path).to_pylist()}


def verdicts(out: Path) -> dict[str, tuple[str, str]]:
    return {row["id"]: (row["verdict"], row["by"]) for row in pq.read_table(out / "ledger.parquet").to_pylist()}


@pytest.fixture
def editions(tmp_path: Path) -> dict[str, Path]:
    """Raw folders of two editions of a source, the second with the rows of the first in another file and more."""
    own = [
        f"病例{number}：" + "".join(chr(0x4E00 + (number * 97 + k * 31) % 3000) for k in range(60))
        for number in range(9)
    ]
    near = own[3][:-1] + "囉"
    folders = {}
    for edition, lines in {"first": own[:6], "second": [*own[6:], near, *own[:2], own[8]], "third": own}.items():
        folder = tmp_path / edition / "notes"
        folder.mkdir(parents=True)
        (folder / f"{edition}.txt").write_text("\n".join(lines), encoding="utf-8")
        folders[edition] = tmp_path / edition
    source = {"name": "notes", "shape": "passage", "files": {"*.txt": "train"}, "max_rejects": 1}
    folders["recipe"] = tmp_path / "editions.yaml"
    folders["recipe"].write_text(json.dumps({"validation": 0, "sources": [source]}), encoding="utf-8")
    return folders


def test_what_an_earlier_build_has_does_not_come_again(editions: dict[str, Path], tmp_path: Path) -> None:
    recipe, first, second, third = editions["recipe"], tmp_path / "a", tmp_path / "b", tmp_path / "c"
    built(first, recipe, editions["first"])
    outcome = built(second, recipe, editions["second"], first)
    assert rows(second) == {f"notes/second.txt#{number}" for number in (1, 2, 3)}
    found = verdicts(second)
    assert found["notes/second.txt#4"] == ("repeated", "notes/first.txt#4")  # nearly
    assert found["notes/second.txt#5"] == ("repeated", "notes/first.txt#1")
    assert found["notes/second.txt#7"] == ("repeated", "notes/second.txt#3")
    assert outcome.again["passage"] == 3 and outcome.stages["cpt"]["again"]["passage"] == 3
    assert "3 rows of the corpus repeat one of an earlier build" in (second / "cpt" / "README.md").read_text("utf-8")
    with pytest.raises(BuildError, match="is in an earlier build already; build without --against"):
        built(third, recipe, editions["third"], first, second)


def test_an_earlier_build_changes_nothing_else(editions: dict[str, Path], tmp_path: Path) -> None:
    """Rows that it does not have come as they would without it."""
    recipe = editions["recipe"]
    built(tmp_path / "a", recipe, editions["first"])
    built(tmp_path / "b", recipe, editions["third"], tmp_path / "a")
    built(tmp_path / "whole", recipe, editions["third"])
    assert rows(tmp_path / "b") == rows(tmp_path / "whole") - {f"notes/third.txt#{number}" for number in range(1, 7)}
    again, told = files(tmp_path / "b"), (tmp_path / "b/.work/build.json").stat().st_ino
    built(tmp_path / "b", recipe, editions["third"], tmp_path / "a")
    assert files(tmp_path / "b") == again and (tmp_path / "b/.work/build.json").stat().st_ino == told


def test_a_build_that_cannot_be_compared_with_is_refused(
    editions: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = editions["recipe"], tmp_path / "a"
    (tmp_path / "empty").mkdir()
    with pytest.raises(BuildError, match=r"empty: no finished build to compare with; --against names the --out of one"):
        built(out, recipe, editions["first"], tmp_path / "empty")
    built(out, recipe, editions["first"])
    with pytest.raises(BuildError, match="is --out and --against at once"):
        built(out, recipe, editions["second"], out)
    keep = tmp_path / "keep.yaml"
    keep.write_text(json.dumps({**json.loads(recipe.read_text("utf-8")), "repeats": "keep"}), encoding="utf-8")
    with pytest.raises(BuildError, match="`repeats: keep`; take one of them"):
        built(tmp_path / "b", keep, editions["second"], out)
    for part in parts(out):
        part.rename(part.with_name("lost"))
    with pytest.raises(BuildError, match="is gone; build that folder again"):
        built(tmp_path / "b", recipe, editions["second"], out)
    monkeypatch.setattr(earlier, "_keys_digest", lambda: "of another version")
    with pytest.raises(BuildError, match="by a version whose keys cannot be compared"):
        built(tmp_path / "b", recipe, editions["second"], out)
