"""The whole story of recipes/tiny: from raw sample to judged model, as a reader would run it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the train extra: pip install -e '.[train]'")
pytest.importorskip("lm_eval", reason="needs the eval extra: pip install -e '.[eval]'")

ROOT = Path(__file__).resolve().parents[2]
RUN = ("README.md", "begun.json", "curves.png", "metrics.jsonl", "qilin.json", "run.json", "tokenizer.json")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that run.sh leaves, and what it said."""
    folder = tmp_path_factory.mktemp("tiny")
    commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    began = time.monotonic()
    done = subprocess.run(
        ["bash", str(ROOT / "recipes" / "tiny" / "run.sh")],
        cwd=folder,
        env={**os.environ, "PATH": commands, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    print(f"recipes/tiny/run.sh took {time.monotonic() - began:.0f} s")
    return folder / "tiny", done.stdout + done.stderr


def logs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def test_every_file_is_there(story: tuple[Path, str]) -> None:
    folder, _ = story
    for stage in ("cpt", "sft", "dpo"):
        assert not [name for name in RUN if not (folder / stage / name).exists()]
        assert any((folder / stage).glob("checkpoint-*"))
        assert (folder / stage / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "cpt" / "model.safetensors").exists()
    for stage in ("sft", "dpo"):
        assert (folder / stage / "adapter_model.safetensors").exists()
        assert (folder / f"{stage}-merged" / "model.safetensors").exists()
        assert (folder / f"{stage}-merged" / "chat_template.jinja").exists()


def test_losses_fall(story: tuple[Path, str]) -> None:
    folder, _ = story
    for stage in ("cpt", "sft", "dpo"):
        losses = [row["loss"] for row in logs(folder / stage) if "loss" in row]
        assert losses[-1] < losses[0], stage
        assert all(isinstance(loss, float) for loss in losses)
    for stage in ("cpt", "sft"):
        done = json.loads((folder / stage / "run.json").read_text("utf-8"))
        assert done["end"]["validation"]["loss"] < 0.95 * done["start"]["validation"]["loss"], stage
    margins = [row["rewards/margins"] for row in logs(folder / "dpo") if "rewards/margins" in row]
    assert margins[-1] > margins[0]


def test_the_lineage_goes_back_to_the_base(story: tuple[Path, str]) -> None:
    folder, _ = story
    done = json.loads((folder / "dpo" / "run.json").read_text("utf-8"))
    stages = [parent["stage"] for parent in done["lineage"]["parents"]]
    assert stages[:3] == ["base", "cpt", "sft"]
    manifest = json.loads((folder / "out" / "dpo" / "manifest.json").read_text("utf-8"))
    assert done["data"]["rows"] == manifest["rows"]
    templates = {json.loads((folder / name / "qilin.json").read_text("utf-8"))["template"] for name in ("sft", "dpo")}
    assert len(templates) == 1
    for key in ("torch", "trl", "transformers", "peft", "python"):
        assert key in done["versions"]
    assert done["seed"] == 42
    assert done["tokens"] > 0


def test_the_card_says_where_it_comes_from_and_what_it_is_not_for(story: tuple[Path, str]) -> None:
    folder, _ = story
    card = (folder / "dpo" / "README.md").read_text("utf-8")
    for words in (
        "Not for clinical use",
        "## Lineage",
        "## Data",
        "## Results on held-out rows",
        "tiny/cpt",
        "curves.png",
    ):
        assert words in card


def test_the_merged_model_loads_and_ends_its_replies(story: tuple[Path, str]) -> None:
    folder, _ = story
    code = (
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T\n"
        f"path = {str(folder / 'dpo-merged')!r}\n"
        "model, tokenizer = M.from_pretrained(path), T.from_pretrained(path)\n"
        "chat = [{'role': 'user', 'content': '高血压要注意什么？'}]\n"
        "ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors='pt', return_dict=True)\n"
        "print(model.generation_config.eos_token_id, model.generate(**ids, max_new_tokens=8).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[0, 2] ")


def test_the_exams_are_scored(story: tuple[Path, str]) -> None:
    folder, said = story
    result = json.loads((folder / "eval" / "result.json").read_text("utf-8"))
    run = json.loads((folder / "dpo" / "run.json").read_text("utf-8"))
    assert result["answerer"]["template"] == run["lineage"]["template"]
    for method, scores in result["exam"]["cmexam/test"]["closed"].items():
        assert 0 <= scores["accuracy"]["low"] <= scores["accuracy"]["high"] <= 1, method
        assert scores["n"] > 0
    assert result["open"]["huatuo26m/test"]["closed"]["zh"]["n"] > 0
    assert "| letters |" in said
    text = result["texts"]["held-out"]
    lines = [json.loads(line) for line in (folder / "eval" / "texts.jsonl").read_text("utf-8").splitlines()]
    assert text["n"] == len(lines) > 1
    assert text["tokens"] == sum(line["tokens"] for line in lines)
    assert 0 < text["bits_per_byte"]["low"] < text["bits_per_byte"]["value"] < text["bits_per_byte"]["high"] < 8
    assert "| held-out |" in said


def test_the_same_command_again_does_nothing(story: tuple[Path, str]) -> None:
    folder, said = story
    assert "Traceback" not in said
    before = (folder / "cpt" / "run.json").stat().st_mtime_ns
    command = [sys.executable, "-m", "qilin.cli", "train", str(ROOT / "recipes" / "tiny" / "cpt.yaml")]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "finished already; 208 steps" in done.stderr
    assert (folder / "cpt" / "run.json").stat().st_mtime_ns == before
