"""The laws of training: what must give the same weights, to the bit or nearly, and how a run ends that cannot go on."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from qilin import run
from qilin.errors import ModelError, RecipeError, RunError
from qilin.recipe import Recipe

torch = pytest.importorskip("torch", reason="needs the train extra: pip install -e '.[train]'")
pytest.importorskip("trl", reason="needs the train extra: pip install -e '.[train]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's own imports warn

ROOT = Path(__file__).resolve().parents[2]
MAIN = """
import sys
from pathlib import Path
from qilin.errors import QilinError
from qilin.recipe import load_recipe
from qilin.train import train
if __name__ == "__main__":
    try:
        train(load_recipe(Path(sys.argv[1])), Path(sys.argv[1]))
    except QilinError as error:
        sys.exit(f"qilin: {error}")
"""
TRAINER = {
    "use_cpu": True,
    "per_device_train_batch_size": 2,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "cosine",
    "max_steps": 8,
    "logging_steps": 2,
    "save_steps": 3,
    "activation_checkpointing": False,
}
LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": "all-linear"}


class Lab:
    """A tiny base model, the sample's stages, and recipes over them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.base, self.data = folder, folder / "base", folder / "out"

    def recipe(self, name: str, stage: str, peft: dict[str, Any] | None = None, **trainer: Any) -> Any:
        model = {"path": str(trainer.pop("path", self.base)), "template": None if stage == "cpt" else "chatml"}
        data = {"path": self.data / stage, "length": 192, "prepared": self.folder / "prepared"}
        given = {**TRAINER, "output_dir": str(self.folder / name), **trainer}
        return Recipe(stage=stage, model=model, data=data, peft=peft, trainer=given)  # type: ignore[arg-type]

    def train(self, name: str, stage: str, peft: dict[str, Any] | None = None, **trainer: Any) -> Path:
        from qilin.train import train

        return train(self.recipe(name, stage, peft, **trainer), Path("recipe.yaml"))

    def fork(self, recipe: Any) -> Any:
        """The same in a process of its own, from one that has TRL imported already."""
        from qilin.train import train

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["trl.trainer.sft_trainer", "trl.trainer.dpo_trainer", "qilin.train"])
        process = context.Process(target=train, args=(recipe, Path("recipe.yaml")))
        process.start()
        return process

    def start(self, recipe: Any, *launcher: str) -> "subprocess.Popen[str]":
        """The same as a command."""
        path = Path(f"{recipe.output_dir}.yaml")
        path.write_text(recipe.model_dump_json(), encoding="utf-8")  # JSON is YAML
        script = self.folder / "main.py"
        script.write_text(MAIN)
        command = [sys.executable, *launcher, str(script), str(path)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    torch.set_num_threads(before)
    del os.environ["OMP_NUM_THREADS"]


@pytest.fixture(scope="module")
def lab(chimed: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Lab:
    made = Lab(tmp_path_factory.mktemp("lab"))
    stages = ("--stage", "cpt", "--stage", "sft", "--stage", "dpo")
    built = chimed("build", *stages, "--recipe", ROOT / "recipes/tiny/chimed.yaml", "--out", made.data)
    assert built.returncode == 0, built.stderr
    spec = spec_from_file_location("tiny_model", ROOT / "recipes/tiny/model.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.make(made.data / "cpt", made.base, width=32, layers=2)
    return made


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    name = "adapter_model.safetensors" if (folder / "adapter_model.safetensors").exists() else "model.safetensors"
    return load_file(folder / name)


def far(one: Path, other: Path) -> float:
    """The largest difference between the weights of two runs."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def done(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def losses(folder: Path) -> list[Any]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


@pytest.mark.parametrize(("stage", "peft"), [("cpt", None), ("sft", None), ("sft", LORA), ("dpo", LORA)])
def test_batch_one_accumulated_four_times_equals_a_batch_of_four(lab: Lab, stage: str, peft: Any) -> None:
    peft = peft and {**peft, "lora_dropout": 0.0}  # the masks of dropout are drawn a batch
    name = f"{stage}-{bool(peft)}"
    one = lab.train(
        f"{name}-1x4", stage, peft, per_device_train_batch_size=1, gradient_accumulation_steps=4, max_steps=4
    )
    four = lab.train(f"{name}-4x1", stage, peft, per_device_train_batch_size=4, max_steps=4)
    assert losses(one)[-1][1] == pytest.approx(losses(four)[-1][1], abs=1e-5)
    assert far(one, four) < 2e-4
    moved = max(float(tensor.abs().max()) for tensor in weights(one).values())
    assert moved > 1e-2


@pytest.mark.parametrize(("stage", "peft"), [("cpt", None), ("sft", LORA), ("dpo", None), ("dpo", LORA)])
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(lab: Lab, stage: str, peft: Any) -> None:
    name = f"{stage}-{bool(peft)}"
    more = {"max_steps": 40, "num_train_epochs": 99, "save_total_limit": 2}
    whole = lab.train(f"{name}-whole", stage, peft, **more)
    recipe = lab.recipe(f"{name}-killed", stage, peft, **more)
    killed = recipe.output_dir
    process = lab.fork(recipe)
    wait_for(lambda: any(killed.glob("checkpoint-*")), process.is_alive)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (killed / "run.json").exists()
    lab.train(f"{name}-killed", stage, peft, **more)
    assert far(whole, killed) == 0
    assert losses(whole) == losses(killed)
    first, second = done(whole), done(killed)
    for key in ("weights", "tokens", "steps", "start", "end"):
        assert first[key] == second[key]


def wait_for(condition: Callable[[], bool], alive: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not condition():
        assert alive()
        assert time.monotonic() - began < 240
        time.sleep(0.005)


def test_sigterm_in_a_step_saves_a_checkpoint_and_says_how_to_go_on(lab: Lab) -> None:
    more = {"max_steps": 3000, "num_train_epochs": 999, "save_steps": 1_000_000, "logging_steps": 1}
    recipe = lab.recipe("terminated", "sft", LORA, **more)
    process = lab.start(recipe)
    metrics = recipe.output_dir / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and '"loss"' in metrics.read_text(), lambda: process.poll() is None)
    process.terminate()
    _, said = process.communicate()
    (made,) = recipe.output_dir.glob("checkpoint-*")
    assert process.returncode == 1
    assert "Traceback" not in said
    assert f"stopped by a signal; {made.name} is saved and the same command goes on from it" in said.splitlines()[-1]
    state = json.loads((made / "trainer_state.json").read_text())
    assert made.name == f"checkpoint-{state['global_step']}"


def test_a_cut_checkpoint_is_put_aside_and_the_run_goes_on_from_the_one_before(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = lab.train("uncut", "sft", LORA)
    for name in ("adapter_model.safetensors", "trainer_state.json"):
        folder = lab.folder / f"cut-{name}"
        shutil.copytree(whole, folder)
        (folder / "run.json").unlink()
        (folder / "adapter_model.safetensors").unlink()
        path = folder / "checkpoint-8" / name
        path.write_bytes(path.read_bytes()[:100])
        lab.train(folder.name, "sft", LORA)
        said = capsys.readouterr().err
        assert "put aside as half-checkpoint-8" in said
        assert "goes on from checkpoint-6" in said
        assert far(whole, folder) == 0


def test_a_run_killed_after_its_last_step_takes_no_step_more(lab: Lab) -> None:
    folder = lab.train("late", "sft", LORA, max_steps=4)  # in the middle of an epoch
    before = weights(folder)
    (folder / "run.json").unlink()
    (folder / "adapter_model.safetensors").unlink()
    lab.train("late", "sft", LORA, max_steps=4)
    assert done(folder)["steps"] == 4
    assert all(bool((before[name] == tensor).all()) for name, tensor in weights(folder).items())


def test_a_finished_run_is_left_as_it_is_and_another_recipe_is_refused(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = lab.train("finished", "sft", LORA, max_steps=2)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}
    capsys.readouterr()
    lab.train("finished", "sft", LORA, max_steps=2, report_to="none", save_steps=99)  # nothing that changes a weight
    assert "finished already; 2 steps" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"} == before
    with pytest.raises(RunError, match=r"holds a finished run of something else: .*trainer\.max_steps was 2, is 3"):
        lab.train("finished", "sft", LORA, max_steps=3)


def test_a_run_that_was_begun_with_another_recipe_is_refused(lab: Lab) -> None:
    folder = lab.train("begun", "sft", LORA, max_steps=3)
    (folder / "run.json").unlink()
    with pytest.raises(RunError, match=r"holds checkpoint-3 of a run of something else: .*learning_rate was 0\.005"):
        lab.train("begun", "sft", LORA, max_steps=3, learning_rate=1e-3)
    (folder / "begun.json").unlink()
    with pytest.raises(RunError, match="a run that qilin did not begin"):
        lab.train("begun", "sft", LORA, max_steps=3)
    with pytest.raises(RecipeError, match=r"recipe\.yaml: trainer, peft: Target modules .* not found"):
        lab.train("misnamed", "sft", {"target_modules": ["queries"]})


def test_two_processes_one_folder(lab: Lab) -> None:
    with run.hold(lab.folder / "held"), pytest.raises(RunError, match="another process"):
        lab.train("held", "sft")


def test_a_full_disk_while_saving_ends_in_a_sentence_and_keeps_the_checkpoint_before(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def full(thing: Any, path: Any, *rest: Any, **more: Any) -> None:
        if "checkpoint-6" in str(path) and str(path).endswith("optimizer.pt"):
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(thing, path, *rest, **more)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match=r"the disk is full .* goes on from checkpoint-3"):
        lab.train("full", "sft", LORA)
    assert sorted(path.name for path in (lab.folder / "full").glob("*checkpoint-*")) == ["checkpoint-3"]
    monkeypatch.undo()
    whole = lab.train("roomy", "sft", LORA)
    assert far(lab.train("full", "sft", LORA), whole) == 0


def test_a_truly_full_disk(lab: Lab, tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1100k", "tmpfs", str(tmp_path)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        with pytest.raises(RunError, match="the disk is full"):
            lab.train("x", "cpt", output_dir=str(tmp_path / "run"), save_steps=1)
        assert not (tmp_path / "run" / "run.json").exists()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_loss_that_explodes_stops_with_a_diagnosis(lab: Lab) -> None:
    with pytest.raises(RunError, match=r"step \d+: .*(exploded|nan|inf).*Try trainer\.learning_rate"):
        lab.train("exploded", "cpt", learning_rate=1e6, max_grad_norm=1e9, max_steps=60, logging_steps=1)
    assert not (lab.folder / "exploded" / "run.json").exists()


def trainer_of(lab: Lab, recipe: Any) -> Any:
    from qilin import models
    from qilin.prepare import prepare
    from qilin.stages import STAGES, settings

    args, tokenizer = settings(recipe), models.load_tokenizer(recipe.model, recipe.stage)
    model, prepared = models.load_model(recipe.model), prepare(recipe, tokenizer)
    return STAGES[recipe.stage](recipe, args, model, tokenizer, prepared)


def plain(lab: Lab) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(lab.base)


def reply_logps(model: Any, batch: Any) -> Any:
    """Log-probabilities of the replies of a batch of pairs, by the plainest means."""
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    found = logits[:, :-1].log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])[..., 0]
    return (found * batch["completion_mask"][:, 1:]).sum(1)


def moved(trainer: Any) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)


def test_the_reference_of_an_adapter_is_the_model_of_the_stage_before(lab: Lab) -> None:
    trainer = trainer_of(lab, lab.recipe("reference", "dpo", LORA))
    moved(trainer)  # as if it had trained: the adapter says something by now
    batch = next(iter(trainer.get_train_dataloader()))
    found = torch.cat(trainer.compute_ref_log_probs(trainer.model, dict(batch)))
    before = reply_logps(plain(lab), batch)
    assert torch.allclose(found, before, atol=1e-4)
    assert not torch.allclose(reply_logps(trainer.model, batch), before, atol=1e-2)


def test_the_reference_of_a_full_model_is_a_frozen_copy_of_it(lab: Lab) -> None:
    copy = plain(lab)
    for shift in ({}, {"ld_alpha": 0.3}):  # TRL would file the second under the name of the first
        trainer = trainer_of(lab, lab.recipe("precomputed", "dpo", **shift))
        assert trainer.ref_model is None
        moved(trainer)
        batch = next(iter(trainer.get_train_dataloader()))
        found = torch.cat([batch["ref_chosen_logps"], batch["ref_rejected_logps"]])
        whole = reply_logps(copy, batch)
        if not shift:
            assert torch.allclose(found, whole, atol=1e-4)
        else:
            assert not torch.allclose(found, whole, atol=1e-1)


def test_held_out_numbers_do_not_depend_on_the_batch(lab: Lab) -> None:
    for stage in ("sft", "dpo"):
        found = []
        for size in (1, 3, 8):
            trainer = trainer_of(lab, lab.recipe("batches", stage, LORA, per_device_eval_batch_size=size))
            moved(trainer)
            found.append(trainer.evaluate())
        for key in [key for key in found[0] if key.endswith(("loss", "perplexity", "preferred", "rewards/margins"))]:
            assert [metrics[key] for metrics in found] == pytest.approx([found[0][key]] * 3, rel=1e-5, abs=1e-5), key


def test_the_held_out_loss_is_the_mean_over_trained_tokens(lab: Lab) -> None:
    trainer = trainer_of(lab, lab.recipe("plain", "sft"))
    model, total, count = plain(lab), 0.0, 0
    for row in trainer.eval_dataset["validation"]:
        begin = 0
        for length in row["seq_lengths"]:  # each conversation alone, packed with nothing
            ids = torch.tensor([row["input_ids"][begin : begin + length]])
            labels = torch.tensor(row["labels"][begin : begin + length])[1:]
            with torch.no_grad():
                logps = model(ids).logits[0, :-1].log_softmax(-1)
            kept = labels != -100
            total -= float(logps[kept].gather(1, labels[kept][:, None]).sum())
            count += int(kept.sum())
            begin += length
    assert trainer.evaluate()["eval_validation_loss"] == pytest.approx(total / count, rel=1e-5)


def test_two_processes_equal_one(lab: Lab) -> None:
    one = lab.train("one", "sft", per_device_train_batch_size=4, max_steps=4)
    recipe = lab.recipe("two", "sft", per_device_train_batch_size=2, max_steps=4)
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29551")
    process = lab.start(recipe, *launcher)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert done(recipe.output_dir)["processes"] == 2
    assert done(recipe.output_dir)["tokens"] == done(one)["tokens"]
    assert far(one, recipe.output_dir) < 2e-4


def test_the_template_is_checked_from_stage_to_stage(lab: Lab) -> None:
    folder = lab.train("tuned", "sft", max_steps=1)
    lineage = json.loads((folder / "qilin.json").read_text())
    assert lineage["template"] == done(folder)["identity"]["template"]
    (folder / "qilin.json").write_text(json.dumps({**lineage, "template": "0" * 64}))
    with pytest.raises(ModelError, match="was tuned with the chat template 0000"):
        lab.train("preferred", "dpo", path=folder, max_steps=1)
    (folder / "qilin.json").write_text(json.dumps(lineage))
    after = lab.train("preferred", "dpo", path=folder, max_steps=1)
    assert [parent["stage"] for parent in done(after)["lineage"]["parents"]] == ["base", "sft"]
