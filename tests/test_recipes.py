"""Every recipe in the repository can be run as far as that can be told without its model: keys, values, shell."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from chimed.recipe import load_recipe as load_build
from qilin.evaluate.recipe import load_recipe as load_evaluation
from qilin.recipe import load_recipe

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
STAGES = sorted(path for stage in ("cpt", "sft", "dpo") for path in RECIPES.rglob(f"{stage}.yaml"))


def name(path: Path) -> str:
    return str(path.relative_to(RECIPES))


@pytest.mark.parametrize("path", STAGES, ids=name)
def test_training_recipe(path: Path) -> None:
    pytest.importorskip("trl", reason="its keys are checked against the installed TRL: pip install -e '.[train]'")
    recipe = load_recipe(path)
    assert recipe.stage == path.stem
    assert path.read_text(encoding="utf-8").startswith("# "), "a recipe begins with what it is for"


@pytest.mark.parametrize("path", [*RECIPES.rglob("eval.yaml"), *RECIPES.rglob("rag.yaml")], ids=name)
def test_evaluation_recipe(path: Path) -> None:
    assert load_evaluation(path).stage == "eval"


def overlay(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(RECIPES / "overlay.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("size", ["small", "gpu", "full"])
@pytest.mark.parametrize("stage", ["cpt", "sft", "dpo", "eval", "rag"])
def test_recipe_in_a_size(size: str, stage: str, tmp_path: Path) -> None:
    """Sizes change a recipe into one that is as right as itself, and name no recipe that is not there."""
    pytest.importorskip("trl", reason="its keys are checked against the installed TRL: pip install -e '.[train]'")
    folder = RECIPES / "qwen-0.5b"
    done = overlay(str(folder / f"{stage}.yaml"), size, "model.path=elsewhere/model")
    assert done.returncode == 0, done.stderr
    (tmp_path / "recipe.yaml").write_text(done.stdout, encoding="utf-8")
    recipe = (load_recipe if stage in ("cpt", "sft", "dpo") else load_evaluation)(tmp_path / "recipe.yaml")
    assert recipe.model is not None
    assert recipe.model.path == "elsewhere/model"
    sizes = yaml.safe_load((folder / "sizes.yaml").read_text(encoding="utf-8"))
    assert set(sizes[size]) <= {"cpt", "sft", "dpo", "eval", "rag"}
    said = yaml.safe_load((folder / f"{stage}.yaml").read_text(encoding="utf-8")) | {"model": None}
    changed = yaml.safe_load(done.stdout) | {"model": None}
    assert (changed != said) is bool(sizes[size].get(stage))


def test_overlay_changes_and_takes_away(tmp_path: Path) -> None:
    (tmp_path / "sizes.yaml").write_text("small: {cpt: {data: {rows: 9}}}\nfull: {}\n", encoding="utf-8")
    (tmp_path / "cpt.yaml").write_text("data: {path: a, replay: {share: 0.1}}\nrate: 2e-4\n", encoding="utf-8")
    done = overlay(str(tmp_path / "cpt.yaml"), "small", "data.path=b", "data.replay=null")
    assert yaml.safe_load(done.stdout) == {"data": {"path": "b", "rows": 9}, "rate": "2e-4"}
    assert "allowed are small, full" in overlay(str(tmp_path / "cpt.yaml"), "tiny").stderr
    assert overlay(str(tmp_path / "cpt.yaml"), "full", "data.path").returncode == 1


@pytest.mark.parametrize("path", [*RECIPES.rglob("chimed.yaml"), *RECIPES.rglob("general.yaml")], ids=name)
def test_build_recipe(path: Path) -> None:
    assert load_build(path).ingredients


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.sh")), ids=name)
def test_story(path: Path) -> None:
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    text = path.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    assert "qilin " in text or "run.sh" in text
    bases = [path.parent] if "own=$(" in text else [path.parent / base for base in re.findall(r"BASE=(\w+)", text)]
    named = {base / file for base in bases for file in re.findall(r"\$own/([\w./-]+)", text)}
    assert not [file for file in named if not file.is_file()]


@pytest.mark.parametrize("path", sorted((RECIPES / "accelerate").glob("*.yaml")), ids=name)
def test_accelerate_configuration(path: Path) -> None:
    pytest.importorskip("accelerate", reason="needs the train extra: pip install -e '.[train]'")
    from accelerate.commands.config.config_args import ClusterConfig

    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert ClusterConfig.from_yaml_file(str(path)).num_processes == said["num_processes"]
    assert said["num_processes"] == (8 if path.stem.endswith("-8") else 1)


@pytest.mark.parametrize(("script", "first"), [("table.py", "run.sh"), ("ablations.py", "ablations.sh")])
def test_a_table_of_what_was_not_run_is_one_sentence(script: str, first: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, RECIPES / script, "model"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (
        done.stderr.startswith("model: holds no whole") and f"run recipes/qwen-0.5b/{first} here first" in done.stderr
    )
