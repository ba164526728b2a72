"""The data cards of the embedded sample: those of the repository are current, the Hub's classes read them, and
`chimed card` draws their plots without breaking what the build left."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chimed.publish import describe
from chimed.publish.card import card, front
from chimed.publish.finished import Finished, finished
from chimed.publish.statistics import statistics
from chimed.recipe import load_recipe
from chimed.sources.spec import STAGES
from chimed.stages import COLUMNS

CARDS = Path(__file__).resolve().parents[2] / "data_cards"


@pytest.fixture(scope="module")
def out(chimed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards") / "out"
    done = chimed("build", "--stage", "all", "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def stages(out: Path) -> dict[str, Finished]:
    """The stages of the build, before any test draws plots."""
    return {found.stage: found for found in finished(out)}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("stage", STAGES)
def test_the_cards_of_the_repository_are_current(stages: dict[str, Finished], stage: str) -> None:
    # A commit cannot hold its own name.
    plain = replace(stages[stage], manifest={**stages[stage].manifest, "commit": ""})
    if os.environ.get("UPDATE_GOLDEN"):
        (CARDS / f"{stage}.md").write_text(card(plain), encoding="utf-8")
    assert (CARDS / f"{stage}.md").read_text(encoding="utf-8") == card(plain), "run `make cards`"


@pytest.mark.parametrize("stage", STAGES)
def test_the_build_writes_the_card(stages: dict[str, Finished], stage: str) -> None:
    found = stages[stage]
    text = (found.folder / "README.md").read_text(encoding="utf-8")
    assert text == card(found)
    assert re.findall(r"^\| `(\w+)` \| .* \|$", text.partition("## Sources")[0], re.M) == COLUMNS[stage].names  # type: ignore[index]
    assert "![" not in text
    for name in found.manifest["sources"]:
        assert f"`{name}`" in text


@pytest.mark.parametrize("stage", STAGES)
def test_the_front_matter_is_the_hubs(stages: dict[str, Finished], stage: str) -> None:
    hub = pytest.importorskip("huggingface_hub")
    found = stages[stage]
    loaded = hub.DatasetCard.load(found.folder / "README.md")
    given = front(found)
    assert loaded.data.to_dict() == given
    assert hub.DatasetCardData(**given).to_dict() == given
    tasks = {"text-generation", "question-answering", "multiple-choice", "text-retrieval"}  # of the Hub's list
    assert set(given["task_categories"]) <= tasks
    assert given["size_categories"] == ["n<1K"]
    assert (given["license"], given["license_name"], given["license_link"]) == ("other", "mixed", "LICENSE.md")
    licences = (found.folder / "LICENSE.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in licences for name in found.manifest["sources"])


def test_sizes_and_counts_are_those_of_the_shards_and_of_the_ledger(out: Path, stages: dict[str, Finished]) -> None:
    for told in statistics(out)["stages"]:
        size = stages[told["stage"]].manifest["size"]
        assert size == {name: value for name, value in told.items() if name != "stage"}
        assert size["rows"] == sum(stages[told["stage"]].manifest["rows"].values())
    manifest = stages["sft"].manifest
    for source in manifest["sources"]:
        counts = list(manifest["counts"][source].values())
        for told, verdict in (("reasons", "rejected"), ("repeats", "repeated")):
            assert sum(manifest[told].get(source, {}).values()) == sum(own[verdict] for own in counts)
        leaked = sum(own.get(source, 0) for own in manifest["leaks"].values())
        assert leaked == sum(own["leaked"] for own in counts)


def test_the_code_of_a_card_runs(out: Path, stages: dict[str, Finished]) -> None:
    pytest.importorskip("datasets")
    text = (stages["sft"].folder / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.S)
    assert code
    away = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(out.parent / "cache")}
    command = [sys.executable, "-c", code[1]]
    done = subprocess.run(command, cwd=out.parent, capture_output=True, text=True, check=False, env=away)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("'messages'") == 1


def test_the_recipe_in_a_manifest_is_the_recipe(stages: dict[str, Finished], tmp_path: Path) -> None:
    manifest = stages["sft"].manifest
    (tmp_path / "recipe.yaml").write_text(json.dumps(manifest["recipe"]), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").digest == manifest["recipe_digest"]
    assert "--recipe" not in card(stages["sft"])
    other = replace(stages["sft"], manifest={**manifest, "recipe_digest": "0" * 64})
    assert "--raw RAW --recipe RECIPE" in card(other)


def test_card_draws_plots_and_the_folder_stays_whole(chimed: Any, out: Path, stages: dict[str, Finished]) -> None:
    pytest.importorskip("matplotlib")
    before = {stage: digests(found.folder) for stage, found in stages.items()}
    plots = ["plot-lengths.png", "plot-sources.png"]
    (told,) = describe.refresh(out / "sft")
    assert told == {"stage": "sft", "card": str(out / "sft" / "README.md"), "plots": plots}
    assert digests(out / "cpt") == before["cpt"]
    done = chimed("card", out, "--json")
    assert done.returncode == 0, done.stderr
    assert [own["plots"] for own in json.loads(done.stdout)] == [plots] * len(stages)
    for found in finished(out):
        after = digests(found.folder)
        assert after.keys() == before[found.stage].keys() | set(plots)
        assert {**found.manifest["files"], "manifest.json": after["manifest.json"]} == after
        assert all(after[name] == before[found.stage][name] for name in after if name.endswith(".parquet"))
        text = (found.folder / "README.md").read_text(encoding="utf-8")
        assert re.findall(r"\]\((plot-\w+\.png)\)", text) == plots
        assert all((found.folder / name).read_bytes().startswith(b"\x89PNG") for name in plots)
    inodes = {path: path.stat().st_ino for path in out.glob("*/*") if path.is_file()}
    describe.refresh(out / "sft")  # nothing differs, so nothing is written
    assert chimed("build", "--stage", "all", "--out", out).returncode == 0  # and a build finds its stages finished
    assert {path: path.stat().st_ino for path in inodes} == inodes


def test_a_broken_off_card_leaves_no_half_stage(
    chimed: Any, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    (copy / "sft" / "README.md").write_text("mine", encoding="utf-8")
    real, calls = Path.rename, []

    def once(path: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", once)
        with pytest.raises(KeyboardInterrupt):
            describe.refresh(copy / "sft")
    assert not (copy / "sft").exists()
    assert chimed("build", "--stage", "sft", "--out", copy).returncode == 0
    describe.refresh(copy / "sft")
    found = next(found for found in finished(copy) if found.stage == "sft")
    assert found.manifest["files"].keys() == {path.name for path in found.folder.iterdir()} - {"manifest.json"}


def test_a_stage_loads_with_plots_beside_it(out: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    describe.refresh(out / "dpo")
    loaded = datasets.load_dataset(str(out / "dpo"), cache_dir=str(tmp_path))
    assert {split: len(rows) for split, rows in loaded.items()} == finished(out)[2].manifest["rows"]


def test_card_says_what_is_wrong(chimed: Any, tmp_path: Path) -> None:
    done = chimed("card", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("chimed: ")
    assert done.stderr.count("\n") == 1
