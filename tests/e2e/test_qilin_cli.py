"""The command line of qilin: prepare and plan on a small base and data, its errors, and how quickly it answers."""

import ast
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from math import ceil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the train extra: pip install -e '.[train]'")
pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "pyarrow",
    "numba",
    "numpy",
    "pandas",
    "datasets",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "yaml",
}
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def lab(chimed: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample's stages in `out`, a tiny base model in `base`, and a recipe for each stage."""
    folder = tmp_path_factory.mktemp("lab")
    stages = ("--stage", "cpt", "--stage", "sft", "--stage", "dpo")
    built = chimed("build", *stages, "--recipe", ROOT / "recipes/tiny/chimed.yaml", "--out", folder / "out")
    assert built.returncode == 0, built.stderr
    spec = spec_from_file_location("tiny_model", ROOT / "recipes/tiny/model.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.make(folder / "out" / "cpt", folder / "base", width=32, layers=2)
    for stage in ("cpt", "sft", "dpo"):
        recipe = {
            "stage": stage,
            "model": {"path": "base", "template": None if stage == "cpt" else "chatml"},
            "data": {"path": f"out/{stage}", "length": 256},
            "peft": None if stage == "cpt" else {"r": 4, "target_modules": "all-linear", "init_lora_weights": "pissa"},
            "trainer": {
                "output_dir": f"runs/{stage}",
                "num_train_epochs": 2,
                "per_device_train_batch_size": 3,
                "gradient_accumulation_steps": 4,
            },
        }
        (folder / f"{stage}.yaml").write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML
    return folder


def as_process(folder: Path, *arguments: object) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "qilin.cli", *map(str, arguments)]
    where = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=where, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def qilin(folder: Path, *arguments: object, width: int = 80) -> tuple[int, str, str]:
    """Exit code, output and errors of `qilin ARGUMENTS…`, in this process: importing TRL takes seconds."""
    from qilin.cli import app, main

    code, out, err = 0, StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setenv("COLUMNS", str(width))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        try:
            main(lambda: app([str(argument) for argument in arguments], standalone_mode=False))
        except SystemExit as left:
            code = int(left.code or 0)
    return code, out.getvalue(), err.getvalue()


def planned(folder: Path, *arguments: object) -> dict[str, Any]:
    code, out, err = qilin(folder, "plan", *arguments, "--workers", 1, "--json")
    assert (code, err) == (0, "")
    return dict(json.loads(out))


def test_prepare_says_where_and_what(lab: Path) -> None:
    code, out, err = as_process(lab, "prepare", "sft.yaml", "--workers", 2)
    assert (code, err) == (0, "")
    folder, train, validation = out.splitlines()
    assert (lab / folder / "prepared.json").is_file()
    assert re.fullmatch(r"  train: rows [\d,]+, documents [\d,]+, tokens [\d,]+, trained .*", train)
    assert validation.startswith("  validation: ")
    again = json.loads(qilin(lab, "prepare", "sft.yaml", "--json")[1])
    assert again["folder"] == folder
    assert again["digest"].startswith(folder.rpartition("-")[2])


def test_a_plan_counts_what_training_will_do(lab: Path) -> None:
    from qilin.recipe import load_recipe

    found = planned(lab, "cpt.yaml", "--gpu", "H100")
    rows = found["splits"]["train"]["rows"]
    assert found["steps"] == 2 * ceil(ceil(rows / 3) / 4)
    assert found["rows_a_step"] == 12
    assert found["tokens"] == 2 * found["splits"]["train"]["tokens"]
    assert found["parameters"]["all"] == found["parameters"]["trained"]
    assert found["gpu"] == "H100"
    assert found["seconds"] > 0
    assert found["recipe"] == load_recipe(lab / "cpt.yaml").model_dump(mode="json")
    parts = [found["memory"][name] for name in ("weights", "gradients", "optimizer", "activations", "head", "overhead")]
    assert found["memory"]["total"] == pytest.approx(sum(parts))


def test_the_steps_are_those_of_the_trainer(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qilin.models import load_model, load_tokenizer
    from qilin.plan import Hardware, plan
    from qilin.prepare import prepare
    from qilin.recipe import load_recipe
    from qilin.stages import STAGES, settings

    monkeypatch.chdir(lab)
    recipe = load_recipe(Path("sft.yaml"))
    found = plan(recipe, Path("sft.yaml"), Hardware())
    quick = recipe.model_copy(update={"trainer": {**recipe.trainer, "use_cpu": True}})
    tokenizer = load_tokenizer(recipe.model, "sft")
    prepared = prepare(recipe, tokenizer)
    trainer = STAGES["sft"](quick, settings(quick), load_model(recipe.model), tokenizer, prepared)
    values = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())
    assert found.steps == values[-1]
    trained = [weight.numel() for weight in trainer.model.parameters() if weight.requires_grad]
    assert found.size.trained == sum(trained)
    assert found.size.parameters == sum(weight.numel() for weight in trainer.model.parameters()) - sum(trained)


@pytest.mark.parametrize("stage", ["cpt", "sft", "dpo"])
def test_the_preview_shows_what_carries_loss(lab: Path, stage: str) -> None:
    preview = planned(lab, f"{stage}.yaml")["preview"]
    kinds = [[passage["kind"] for passage in row] for row in preview]
    expected = {"cpt": ["trained"], "sft": ["prompt", "trained"], "dpo": ["prompt", "chosen", "rejected"]}[stage]
    assert len(kinds) == 3
    assert all(row[: len(expected)] == expected for row in kinds)
    for row in preview:
        for passage in row:
            if stage != "cpt" and passage["kind"] != "prompt":
                assert passage["text"].endswith("<|im_end|>")
                assert "<|im_start|>" not in passage["text"]


@pytest.mark.parametrize("width", [80, 40])
def test_a_plan_fits_the_terminal_and_needs_no_colours(lab: Path, width: int) -> None:
    from unicodedata import east_asian_width

    code, out, err = qilin(lab, "plan", "sft.yaml", "--gpu", "4090", width=width)
    assert (code, err) == (0, "")
    wide = [sum(1 + (east_asian_width(letter) in "WF") for letter in line) for line in out.splitlines()]
    assert max(wide) <= width
    assert "\x1b[" not in out, "no colours in a pipe"
    assert "⟦trained: " in out
    for word in ("steps", "learns", "memory", "time", "4090"):
        assert word in out


def test_colours_on_a_terminal(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from qilin.plan import Hardware, plan, show
    from qilin.recipe import load_recipe

    monkeypatch.chdir(lab)
    console = Console(force_terminal=True, color_system="standard", width=80, record=True)
    show(plan(load_recipe(Path("dpo.yaml")), Path("dpo.yaml"), Hardware()), console)
    text = console.export_text(styles=True)
    assert "\x1b[2m<|im_start|>user" in text, "the prompt is dim"
    assert "\x1b[32m" in text
    assert "\x1b[31m" in text
    assert "⟦" not in text


def test_more_gpus_share(lab: Path) -> None:
    one, eight = (
        planned(lab, "cpt.yaml", "--gpu", "A100"),
        planned(lab, "cpt.yaml", "--gpu", "A100", "--gpus", 8, "--sharding", "zero3"),
    )
    assert eight["rows_a_step"] == 8 * one["rows_a_step"]
    assert eight["steps"] < one["steps"]
    assert eight["memory"]["optimizer"] < one["memory"]["optimizer"]
    assert eight["seconds"] == pytest.approx(one["seconds"] / 8)


def test_a_plan_warns(lab: Path) -> None:
    recipe = json.loads((lab / "sft.yaml").read_text("utf-8"))
    recipe["data"]["length"] = 48
    recipe["peft"] = None
    recipe["model"]["dtype"] = "bfloat16"
    recipe["trainer"] |= {"gradient_accumulation_steps": 1000, "per_device_train_batch_size": 10**6}
    (lab / "warn.yaml").write_text(json.dumps(recipe), "utf-8")
    found = planned(lab, "warn.yaml", "--gpu", "T4")
    for words in ("GB do not fit into the 16 GB", "small steps vanish", "steps are few", "dropped or truncated"):
        assert any(words in warning for warning in found["warnings"]), words
    assert found["lost"]
    assert all(set(loss) == {"id", "what", "tokens"} for loss in found["lost"])
    told = qilin(lab, "plan", "warn.yaml")[1]
    assert "warning: " in told
    assert f"dropped: {found['lost'][0]['id']}" in told or f"truncated: {found['lost'][0]['id']}" in told


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        (
            {"trainer": {"leaning_rate": 1}},
            (),
            "wrong.yaml: trainer.leaning_rate: unknown key of SFTConfig; did you mean",
        ),
        ({"data": {"path": "out/dpo"}}, (), "out/dpo holds data for the stage dpo, not sft"),
        ({"data": {"path": "none"}}, (), "none is not a folder; give a stage folder that `chimed build` made"),
        ({"model": {"path": "none"}}, (), "none: is no folder here, and the Hub gives no such model"),
        (
            {"model": {"template": "llama3"}},
            (),
            "base: in the chat template no special token of the tokenizer follows a reply",
        ),
        (
            {"peft": {"target_modules": ["nothing"]}},
            (),
            "wrong.yaml: peft: Target modules {'nothing'} not found in the base",
        ),
        ({"trainer": {"load_best_model_at_end": True}}, (), "wrong.yaml: trainer: --load_best_model_at_end requires"),
        ({}, ("--gpu", "abacus"), "--gpu: found 'abacus'; known are A10, A100"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(
    lab: Path, change: dict[str, Any], arguments: tuple[str, ...], said: str
) -> None:
    recipe = json.loads((lab / "sft.yaml").read_text("utf-8"))
    for block, keys in change.items():
        recipe[block] |= keys
    (lab / "wrong.yaml").write_text(json.dumps(recipe), "utf-8")
    code, out, err = qilin(lab, "plan", "wrong.yaml", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"qilin: {said}")
    assert len(err.splitlines()) == 1


def test_a_bug_is_a_traceback() -> None:
    from qilin.cli import main
    from qilin.errors import RunError

    def fails(error: BaseException) -> Callable[[], None]:
        def run() -> None:
            raise error

        return run

    with pytest.raises(ZeroDivisionError):
        main(fails(ZeroDivisionError()))
    for error, code in ((RunError("the folder is in use"), 2), (KeyboardInterrupt(), 130)):
        with pytest.raises(SystemExit) as left:
            main(fails(error))
        assert left.value.code == code


def test_commands_are_those_of_the_design() -> None:
    code, out, _ = qilin(ROOT, "--help")
    commands = re.findall(r"^  ([a-z]+)  ", out.partition("Commands:")[2], re.MULTILINE)
    assert code == 0
    assert {"prepare", "plan", "train", "merge", "import"} <= set(commands)
    assert re.fullmatch(r"qilin \d+\.\d+\.\d+\n", qilin(ROOT, "--version")[1])


def test_commands_call_what_they_name(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qilin.merge import Merged

    def merge(run: Path, out: Path, dtype: str) -> Merged:
        return Merged(str(out), str(run), "base", dtype, 0.0, 0.0, 1.0)

    def train(recipe: Any, where: Path) -> Path:
        (lab / "run.json").write_text(json.dumps({"stage": recipe.stage, "recipe": where.name}) + "\n", "utf-8")
        return lab

    imported = []
    monkeypatch.setattr("qilin.merge.merge", merge)
    monkeypatch.setattr("qilin.train.train", train)
    monkeypatch.setattr("qilin.baichuan.import_model", lambda folder, out: imported.append((folder, out)))
    code, out, _ = qilin(lab, "merge", "runs/sft", "--out", "merged", "--dtype", "float16", "--json")
    told = json.loads(out)
    assert (code, told["run"], told["folder"], told["dtype"]) == (0, "runs/sft", "merged", "float16")
    assert qilin(lab, "merge", "runs/sft", "--out", "merged")[1].startswith("merged: base with the adapter of runs/sft")
    assert qilin(lab, "train", "sft.yaml")[:2] == (0, "")
    assert json.loads(qilin(lab, "train", "sft.yaml", "--json")[1]) == {"stage": "sft", "recipe": "sft.yaml"}
    assert qilin(lab, "import", "baichuan", "--out", "llama")[:2] == (0, "llama\n")
    assert imported == [(Path("baichuan"), Path("llama"))]


def measured(*arguments: str, cwd: Path = ROOT) -> tuple[float, str]:
    """CPU seconds of a fresh `qilin ARGUMENTS…`, and the packages that it imported."""
    show = (
        "import atexit, sys; atexit.register(lambda: print('\\n' + repr({m.partition('.')[0] for m in sys.modules})))"
    )
    code = f"{show}; sys.argv = {['qilin', *arguments]}; sys.path.insert(0, {str(ROOT)!r})"
    code += "; from qilin.cli import main; main()"
    out, err = os.pipe(), subprocess.DEVNULL
    child = subprocess.Popen([sys.executable, "-c", code], stdout=out[1], stderr=err, cwd=cwd)
    os.close(out[1])
    with os.fdopen(out[0]) as file:
        said = file.read()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime, said.splitlines()[-1]


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    measured("--help")  # writes the byte code
    runs = [measured("--help") for _ in range(3)]
    assert statistics.median(seconds for seconds, _ in runs) < 1
    loaded = set(ast.literal_eval(runs[0][1]))
    assert "qilin" in loaded
    assert not loaded & HEAVY


def test_a_typo_is_found_quickly(lab: Path) -> None:
    recipe = json.loads((lab / "sft.yaml").read_text("utf-8"))
    recipe["trainer"]["leaning_rate"] = 1
    (lab / "typo.yaml").write_text(json.dumps(recipe), "utf-8")
    seconds, loaded = measured("plan", "typo.yaml", cwd=lab)
    assert seconds < 3
    assert not set(ast.literal_eval(loaded)) & (HEAVY - {"yaml"})


def test_a_plan_leaves_data_and_model_alone(lab: Path) -> None:
    def digests() -> dict[str, str]:
        files = [path for name in ("out", "base") for path in (lab / name).rglob("*") if path.is_file()]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = digests()
    planned(lab, "sft.yaml")
    assert digests() == before
    assert not (lab / "runs" / "sft" / "begun.json").exists(), "nothing was run"
