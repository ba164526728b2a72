"""Mirrors of stores: what is brought, what is not, and what no message says."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from chimed.corpus import Prepared
from chimed.errors import BuildError
from chimed.publish.upload import claim_store, upload
from chimed.recipe import load_recipe
from chimed.remote import Store
from chimed.shards import Runs
from chimed.spread import Away, Shared, each_path, paths, shared, work

pytest.importorskip("fsspec", reason="needs the s3 extra: pip install -e '.[s3]'")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A folder of this disk by its URL, with two raw files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("qa/a.jsonl", "qa/deep/b.jsonl", "other/c.jsonl"):
        (tmp_path / "far" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "far" / name).write_text(name)
    return Store(f"file://{tmp_path / 'far'}")


def _bring(store: Store) -> list[int]:
    """The bytes that were to be brought, and those that were."""
    told: list[int] = []

    def step(name: str, total: int) -> Callable[[int], None]:
        told.append(total)
        return told.append

    store.bring(["qa"], step)
    return told


def test_what_is_new_or_changed_is_brought_and_what_is_gone_goes(store: Store, tmp_path: Path) -> None:
    assert _bring(store) == [len("qa/a.jsonl") + len("qa/deep/b.jsonl"), len("qa/a.jsonl"), len("qa/deep/b.jsonl")]
    assert (store.root / "qa/deep/b.jsonl").read_text() == "qa/deep/b.jsonl"
    assert not (store.root / "other").exists()
    assert _bring(store) == [0]
    (tmp_path / "far/qa/a.jsonl").write_text("QA/A.JSONL")  # of the same size
    (tmp_path / "far/qa/deep/b.jsonl").unlink()
    assert _bring(store) == [10, 10]
    assert (store.root / "qa/a.jsonl").read_text() == "QA/A.JSONL"
    assert not (store.root / "qa/deep/b.jsonl").exists()


def test_copies_have_the_same_time_on_every_machine(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _bring(store)
    first = (store.root / "qa/a.jsonl").stat()
    monkeypatch.setenv("XDG_CACHE_HOME", f"{os.environ['XDG_CACHE_HOME']}-of-another")
    store.refresh("qa/a.jsonl")
    second = (store.root / "qa/a.jsonl").stat()
    assert (first.st_size, first.st_mtime_ns) == (second.st_size, second.st_mtime_ns)
    assert first.st_ino != second.st_ino


def test_what_was_cut_off_is_not_taken_for_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(self: Store, name: str, to: Path) -> None:
        to.write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Store, "_get", cut)
        with pytest.raises(KeyboardInterrupt):
            _bring(store)
        with pytest.raises(KeyboardInterrupt):
            store.pull("qa", ("qa/a.jsonl", "qa/done.json"))
    assert not list(store.root.rglob("*.jsonl"))
    assert not list(store.root.rglob("*.json"))

    with monkeypatch.context() as short:
        short.setattr(Store, "_get", lambda self, name, to: to.write_text("half"))
        with pytest.raises(BuildError, match="changed while it was brought"):
            _bring(store)
    assert not list(store.root.rglob("*.jsonl"))
    assert _bring(store)[0] > 0


def test_a_file_of_a_writer_that_was_killed_is_brought_whole(store: Store) -> None:
    (store.root / "qa").mkdir(parents=True)
    (store.root / "qa/a.jsonl").write_text("half")
    store.pull("qa/a.jsonl", ("qa/a.jsonl",), len("qa/a.jsonl"))
    assert (store.root / "qa/a.jsonl").read_text() == "qa/a.jsonl"


def _stage(store: Store, shards: dict[str, str]) -> None:
    folder = store.root / "sft"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in shards.items():
        (folder / name).write_text(text)
    (folder / "manifest.json").write_text(json.dumps({"files": shards}))
    (store.root / "ledger.parquet").write_text(str(len(shards)))


class _Silent:
    def step(self, name: str, total: int) -> Callable[[int], None]:
        return lambda amount: None


def test_a_stage_is_whole_in_the_store_or_has_no_manifest(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Store(f"file://{tmp_path / 'out'}")
    sft, put = tmp_path / "out" / "sft", Store._put
    claim_store(out)
    _stage(out, {f"train-0000{number}-of-00002.parquet": "old" for number in range(2)})
    upload(out, ["sft"], _Silent())
    assert len(list(sft.iterdir())) == 3

    _stage(out, {"train-00000-of-00001.parquet": "new", "README.md": "card"})
    with monkeypatch.context() as broken:
        broken.setattr(Store, "_put", lambda self, name: 1 / 0 if name.endswith("README.md") else put(self, name))
        with pytest.raises(ZeroDivisionError):
            upload(out, ["sft"], _Silent())
    assert not (sft / "manifest.json").exists()
    claim_store(out)  # what was cut off is still a build's
    upload(out, ["sft"], _Silent())
    assert sorted(path.name for path in sft.iterdir()) == ["README.md", "manifest.json", "train-00000-of-00001.parquet"]

    (sft / "README.md").write_text("cut")
    upload(out, ["sft"], _Silent())
    assert (sft / "README.md").read_text() == "card"
    with monkeypatch.context() as idle:
        idle.setattr(Store, "_put", lambda self, name: pytest.fail(f"{name} is there already"))
        upload(out, ["sft"], _Silent())


def test_a_store_that_holds_something_else_is_left_alone(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"far: holds something else \(other, qa\)"):
        claim_store(store)
    assert not (tmp_path / "far/.work").exists()


def test_a_folder_of_work_is_whole_in_the_store_before_others_see_it(store: Store, tmp_path: Path) -> None:
    part = store.root / ".work/parts/p"
    part.mkdir(parents=True)
    for name in ("units.arrow", "done.json", "a.partial"):
        (part / name).write_text(name)
    groups = {".work/parts/p": (".work/parts/p/units.arrow", ".work/parts/p/done.json")}
    assert store.groups(part) == store.groups(part / "units.arrow") == groups
    store.push(groups[".work/parts/p"][:1])
    assert store.finished(".work/parts", ".work/stages") == {}
    store.push(groups[".work/parts/p"])
    assert store.finished(".work/parts", ".work/stages") == groups
    store.remove([".work/parts/p/done.json"])
    assert not (tmp_path / "far/.work/parts/p/done.json").exists()


@pytest.mark.parametrize("name", ["../b", "a/../../b", "/etc/passwd", "a//b", "./a", "a\0b"])
def test_names_that_lead_out_are_refused(name: str, store: Store) -> None:
    with pytest.raises(BuildError, match=r"far: holds a file named .*, which is no path below it"):
        store._safe(name)


def _left(path: Path) -> Runs:
    (path / "done.json").parent.mkdir()
    (path / "done.json").write_text("{}")
    return Runs({"train": path / "train.arrow"}, {"train": 1}, {})


def test_a_task_names_the_mirrors_of_the_machine_it_runs_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Shared(None, store, "digest", ())
    roots, task = first.roots, store.root / ".work/stages/s/000001"
    monkeypatch.setenv("XDG_CACHE_HOME", f"{os.environ['XDG_CACHE_HOME']}-of-another")
    done = work(Away(_left, task, first, roots, {}))
    left = done.groups
    assert done.result.files == {"train": task / "train.arrow"}
    assert left == {".work/stages/s/000001": (".work/stages/s/000001/done.json",)}
    assert not task.exists()
    assert (store.root / ".work/stages/s/000001/done.json").exists()
    assert store.finished(".work/stages") == left


def test_raw_files_are_brought_to_a_machine_that_shares_the_folder_of_the_build(store: Store, tmp_path: Path) -> None:
    common = Shared(store, None, "digest", ())
    assert work(Away(Path.read_text, tmp_path / "first/qa/a.jsonl", common, [tmp_path / "first"], {})).result == (
        "qa/a.jsonl"
    )


_SOURCE = """
from chimed.sources.spec import Source, passage

SOURCE = Source(name="mine", title="Mine", homepage="", license="", files={"*": "train"}, parse=passage("text"),
                shapes=("passage",), stages=("cpt",))
"""


def _digest(recipe: Path) -> str:
    return load_recipe(recipe).digest


def test_the_recipe_and_the_files_it_names_travel_with_the_task(store: Store, tmp_path: Path) -> None:
    (home := tmp_path / "home").mkdir()
    (home / "recipes").mkdir()
    (home / "mine.py").write_text(_SOURCE)
    (home / "recipes" / "tokenizer.json").write_text("{}")
    (recipe := home / "recipes" / "recipe.yaml").write_text("tokenizer: tokenizer.json\nsources: [{file: ../mine.py}]")
    loaded = load_recipe(recipe)
    common, digest = shared(None, store, recipe, loaded), loaded.digest
    home.rename(tmp_path / "gone")
    for _ in range(2):
        assert work(Away(_digest, recipe, common, common.roots, {})).result == digest


def test_paths_are_found_wherever_a_task_has_them() -> None:
    part = Prepared(Path("/a/p"), "s", (("f", 1),), 0, "train", {"fact": 1})
    assert paths([part, {"x": (Path("/b"), None)}]) == [Path("/a/p"), Path("/b")]
    assert each_path(part, lambda path: path) is part
    assert each_path(part, lambda path: Path("/c") / path.name).folder == Path("/c/p")


@pytest.mark.parametrize(
    "url",
    [
        "nowhere://me:gehe%69m@host/raw",
        "nowhere://me:x@host/raw?user=me&token=geheim",
        "memory://me:geheim@host/raw#geheim",
        "s3://me:geheim@bucket/raw",
        "s3:/me:geheim@bucket",
    ],
)
def test_no_message_tells_a_secret(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(url)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    told = [repr(store)]
    if "://" in url:
        told.append(store._reason(OSError(f"GET {url} failed: geheim")))
    told.append(store._reason(OSError("no answer from 'http://key:geheim@minio:9000/b?x=1&Signature=geheim'")))
    if not url.startswith("s3://"):
        with pytest.raises(BuildError) as error:
            store.bring(["qa"], lambda name, total: lambda size: None)
        told.append(str(error.value))
    assert not [text for text in told if "geheim" in text or "gehe%69m" in text]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError("Forbidden"), "access is refused (Forbidden); let these credentials list, read and write"),
        (FileNotFoundError("bucket"), "not found (bucket); make the bucket first, or mend the name"),
        (TimeoutError("slow\nnetwork"), "cannot be used (TimeoutError: slow network); see to the network"),
    ],
)
def test_what_a_store_refuses_is_one_sentence(error: Exception, said: str, store: Store) -> None:
    with pytest.raises(BuildError) as told, store._used():
        raise error
    assert str(told.value).startswith(f"{store.shown}: {said}")


def test_without_fsspec_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(BuildError, match=r"s3://b/raw: a URL needs the package fsspec.*pip install 'chimed\[s3\]'"):
        Store("s3://b/raw").bring(["qa"], lambda name, total: lambda size: None)
