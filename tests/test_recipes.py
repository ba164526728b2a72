"""Every recipe in the repository can be run as far as that can be told without its model: keys, values, shell."""

import os
import subprocess
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


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("eval.yaml")), ids=name)
def test_evaluation_recipe(path: Path) -> None:
    assert load_evaluation(path).stage == "eval"


@pytest.mark.parametrize("path", [*RECIPES.rglob("chimed.yaml"), *RECIPES.rglob("general.yaml")], ids=name)
def test_build_recipe(path: Path) -> None:
    assert load_build(path).ingredients


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("run.sh")), ids=name)
def test_story(path: Path) -> None:
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    text = path.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    assert "qilin " in text


@pytest.mark.parametrize("path", sorted((RECIPES / "accelerate").glob("*.yaml")), ids=name)
def test_accelerate_configuration(path: Path) -> None:
    pytest.importorskip("accelerate", reason="needs the train extra: pip install -e '.[train]'")
    from accelerate.commands.config.config_args import ClusterConfig

    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert ClusterConfig.from_yaml_file(str(path)).num_processes == said["num_processes"]
    assert said["num_processes"] == (8 if path.stem.endswith("-8") else 1)
