"""Train one stage: the frame around TRL's trainer in which a run cannot go wrong in silence.

A killed run goes on where it was with the same command. A finished one says so and does nothing.
"""

import hashlib
import logging
import os
import platform
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from qilin import models, run, template
from qilin.errors import RecipeError, RunError
from qilin.recipe import Recipe
from qilin.watch import Guard, Interrupted, Journal, Progress, Signals, bars, callback, clock, told

PACKAGES = ("chimed", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers")
PATHS = {
    "model": {"path"},
    "data": {"path": True, "prepared": True, "replay": {"path"}},
}  # a folder may move: its digest says what it holds


def train(recipe: Recipe, where: Path) -> Path:
    """Run a recipe to its end, from its last checkpoint if there is one; gives the run's folder.

    where: the recipe's file, for messages. Raises RunError, DataError, ModelError or RecipeError with one sentence on
    what to do. SIGTERM or Ctrl-C saves a checkpoint first. Under `accelerate launch` every process calls this.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    folder, first = recipe.output_dir, os.environ.get("RANK", "0") == "0"
    with Signals() as signals, ExitStack() as stack:
        if first:
            stack.enter_context(run.hold(folder))
        stack.enter_context(run.room(folder))
        try:
            _train(recipe, where, signals, _say if first else _nothing)
        except Interrupted as error:
            raise RunError(f"{folder}: stopped by {error} between two steps; the same command goes on") from None
    return folder


def _say(text: str) -> None:
    print(f"qilin: {text}", file=sys.stderr, flush=True)


def _nothing(_: str) -> None:
    pass


def _train(recipe: Recipe, where: Path, signals: Signals, say: Any) -> None:
    from qilin import processor
    from qilin.data import open_stage
    from qilin.prepare import prepare
    from qilin.stages import STAGES, settings

    _quiet()
    folder = recipe.output_dir
    with _named(where, "trainer"):
        args = settings(recipe)
    stage = open_stage(recipe.data.path, recipe.stage)
    tokenizer = models.load_tokenizer(recipe.model, recipe.stage)
    with args.main_process_first(desc="prepare"), bars() as progress:
        prepared = prepare(recipe, tokenizer, workers=os.cpu_count() or 1, progress=progress)
    identity = _identity(recipe, tokenizer, stage.digest, prepared.digest)
    if finished := run.read_json(folder / run.DONE):
        run.check_same(folder, finished, identity, "a finished run")
        say(f"{folder}: finished already; {_summary(finished)}")
        return
    if recipe.peft is None and recipe.model.dtype == "bfloat16":
        say(
            "all weights are trained in bfloat16, where small steps vanish: "
            "better model.dtype float32 and trainer.bf16 true"
        )
    model = models.load_model(recipe.model)
    processor.install()
    with _named(where, "trainer, peft"):
        trainer = STAGES[recipe.stage](recipe, args, model, tokenizer, prepared)
    with args.main_process_first(desc="checkpoint"):
        checkpoint = _go_on(folder, identity, args, say)
    args.eval_on_start = checkpoint is None and trainer.eval_dataset is not None
    watched = _watch(recipe, trainer, signals, say)
    if args.eval_on_start:
        held = ", ".join(f"{len(rows):,} of {name}" for name, rows in trainer.eval_dataset.items())
        say(f"{folder}: before the first step, the held-out rows: {held}")
    with suppress(Complete):
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    if signals.stopping:
        step = trainer.state.global_step
        raise RunError(
            f"{folder}: stopped by a signal; checkpoint-{step} is saved and the same command goes on from it"
        )
    _judge(trainer)
    weights = _gathered(trainer)
    if trainer.is_world_process_zero():
        done = _done(recipe, trainer, identity, watched, stage=stage, prepared=prepared)
        _leave(trainer, tokenizer, weights, done)
        say(f"{folder}: {_summary(done)}")
    trainer.accelerator.wait_for_everyone()


@contextmanager
def _named(where: Path, block: str) -> Iterator[None]:
    """Say in which file and block of it a value stands that TRL or PEFT refuses."""
    try:
        yield
    except (TypeError, ValueError, ImportError) as error:
        raise RecipeError(str(where), [f"{block}: {' '.join(str(error).split())}"]) from error


def _quiet() -> None:
    """Take away what is no more than noise: bars of loading, and what one library deprecates in another."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # PEFT imports it, whether it is used or not
    import datasets
    from transformers.utils import logging as transformers

    transformers.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing", FutureWarning)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")


def _identity(recipe: Recipe, tokenizer: Any, data: str, prepared: str) -> dict[str, Any]:
    """What a run learns from what: two runs with the same identity on the same machine give the same weights."""
    said = recipe.model_dump(mode="json", exclude=PATHS)  # type: ignore[arg-type]
    base = Path(recipe.model.path)
    weights = run.weights_digest(base) if base.is_dir() else models.read_config(recipe.model.path)._commit_hash
    said_template = tokenizer.chat_template
    return {
        "recipe": said,
        "data": data,
        "prepared": prepared,
        "model": weights,
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "template": template.digest(said_template) if isinstance(said_template, str) else None,
    }


def _go_on(folder: Path, identity: Mapping[str, Any], args: Any, say: Any) -> Path | None:
    """The checkpoint to go on from, after a look at whether it is one of this very run."""
    checkpoint, machine = run.last_checkpoint(folder, say), {"processes": args.world_size, **_versions()}
    begun = run.read_json(folder / run.BEGUN)
    if checkpoint is not None:
        if begun is None:
            raise RunError(
                f"{folder}: holds {checkpoint.name} of a run that qilin did not begin (no {run.BEGUN}); give this run "
                "another trainer.output_dir"
            )
        run.check_same(folder, begun, identity, f"{checkpoint.name} of a run")
        for changed in run.differences(begun["machine"], machine):
            say(f"{folder}: {changed}; the run goes on, but not as one that was never stopped")
        say(f"{folder}: goes on from {checkpoint.name}")
    if args.process_index == 0:
        run.write_json(folder / run.BEGUN, {"identity": identity, "machine": machine})
    return checkpoint


def _watch(recipe: Recipe, trainer: Any, signals: Signals, say: Any) -> Progress:
    from transformers import PrinterCallback

    from qilin.flops import find_gpu, flops_per_token, size_of

    trainer.remove_callback(PrinterCallback)
    gpu = find_gpu(_device(trainer.args))
    reference = recipe.stage == "dpo" and not trainer.precompute_ref_logps
    cost = flops_per_token(size_of(trainer.model), recipe.data.length, reference) if gpu else 0.0
    progress = Progress(cost, gpu.peak * trainer.args.world_size if gpu else 0.0, say)
    journal = Journal(Path(trainer.args.output_dir) / run.METRICS)
    for watcher in (journal, Sessions(trainer), Guard(), signals, progress):
        trainer.add_callback(callback(watcher))
    return progress


class Complete(Exception):  # noqa: N818 - it is no error
    """The checkpoint that a run goes on from is that of its last step: only evaluation and saving are left."""


class Sessions:
    """Lets a run that goes on count its seconds from where the checkpoint left them, and take no step too many."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.seconds_before = seconds(state.log_history)
        if state.global_step >= state.max_steps:  # transformers would take one more before it looks
            self.trainer.is_in_train = False
            raise Complete


def _judge(trainer: Any) -> None:
    """Evaluate the weights that will be saved, unless the last log did."""
    if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint:
        trainer._load_best_model()  # again, where Complete went past it
    last = [row for row in trainer.state.log_history if row["step"] == trainer.state.global_step]
    judged = any(key.startswith("eval_") for row in last for key in row)
    if trainer.eval_dataset is not None and (not judged or trainer.args.load_best_model_at_end):
        trainer.evaluate()


def _gathered(trainer: Any) -> Any:
    """The weights of a model that is spread over processes, gathered in the first; None of one that is whole."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return None


def _done(recipe: Recipe, trainer: Any, identity: Mapping[str, Any], progress: Progress, **rest: Any) -> dict[str, Any]:
    """What `run.json` says."""
    from qilin.flops import size_of

    stage, prepared, history, state = rest["stage"], rest["prepared"], trainer.state.log_history, trainer.state
    before = models.lineage(Path(recipe.model.path))
    size = size_of(trainer.model)
    base = before or {"path": recipe.model.path, "model": identity["model"], "stage": "base"}
    lineage = {
        "stage": recipe.stage,
        "kind": "model" if recipe.peft is None else "adapter",
        "path": str(recipe.output_dir),
        "template": identity["template"],
        "tokenizer": identity["tokenizer"],
        "data": identity["data"],
        "recipe": recipe.digest,
        "base": {"path": recipe.model.path, "model": identity["model"]},
        "parents": [*base.get("parents", []), {key: value for key, value in base.items() if key != "parents"}],
    }
    return {
        "stage": recipe.stage,
        "kind": lineage["kind"],
        "recipe": recipe.model_dump(mode="json"),
        "recipe_digest": recipe.digest,
        "identity": identity,
        "lineage": lineage,
        "data": {"path": str(recipe.data.path), "digest": stage.digest, "rows": dict(stage.rows)},
        "prepared": {"folder": str(prepared.folder), "digest": prepared.digest, "splits": _counts(prepared)},
        "parameters": {"all": size.parameters, "trained": size.trained},
        "versions": _versions(),
        "seed": recipe.seed,
        "device": _device(trainer.args),
        "processes": trainer.args.world_size,
        "steps": state.global_step,
        "tokens": state.num_input_tokens_seen,
        "seconds": round(seconds(history), 3),
        "tokens_per_second": round(progress.speed, 1),
        "mfu": progress.mfu,
        "training_loss": next((row["loss"] for row in reversed(history) if "loss" in row), None),
        "start": at(history, 0),
        "end": at(history, state.global_step),
        "weights": "",
    }


def _leave(trainer: Any, tokenizer: Any, weights: Any, done: dict[str, Any]) -> None:
    """Write the weights, the curves, the card, and `run.json` last."""
    from qilin.card import card
    from qilin.curves import curves

    folder, model = Path(trainer.args.output_dir), trainer.accelerator.unwrap_model(trainer.model)
    if weights is not None:
        model.save_pretrained = partial(model.save_pretrained, state_dict=weights)
    models.write_model(model, tokenizer, folder, done["lineage"])
    curves(trainer.state.log_history, done["stage"], folder / "curves.png", title=f"{folder}: {done['stage']}")
    done["weights"] = run.weights_digest(folder)
    (folder / "README.md").write_text(card(done), encoding="utf-8")
    run.write_json(folder / run.DONE, done)


def at(history: Sequence[Mapping[str, Any]], step: int) -> dict[str, dict[str, float]]:
    """The held-out numbers at a step, by split.

    >>> at([{"step": 0, "eval_validation_loss": 7.0}, {"step": 4, "eval_validation_loss": 5.0}], 4)
    {'validation': {'loss': 5.0}}
    """
    found: dict[str, dict[str, float]] = {}
    for row in (row for row in history if row["step"] == step):
        for split in ("validation", "general"):
            prefix = f"eval_{split}_"
            numbers = {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)}
            speed = {"runtime", "samples_per_second", "steps_per_second", "model_preparation_time"}
            if numbers := {key: value for key, value in numbers.items() if key not in speed}:
                found[split] = numbers
    return found


def seconds(history: Sequence[Mapping[str, Any]]) -> float:
    """Seconds of training over all sessions of a run, evaluation and saving between the steps included.

    >>> seconds([{"seconds": 4.0}, {"seconds": 9.0}, {"eval_validation_loss": 3.0}])
    9.0
    """
    return max((float(row["seconds"]) for row in history if "seconds" in row), default=0.0)


def _summary(done: Mapping[str, Any]) -> str:
    changes = []
    for split, after in done["end"].items():
        before = done["start"].get(split, {})
        keys = {"loss": "loss", "perplexity": "perplexity", "preferred": "preferred"}
        pairs = [
            f"{word} {before[key]:.4g} -> {after[key]:.4g}"
            for key, word in keys.items()
            if key in before and key in after
        ]
        changes.append(f"{split} {', '.join(pairs) or told(after)}")
    speed = f"{done['steps']} steps, {done['tokens']:,} tokens in {clock(done['seconds'])}"
    return "; ".join([speed, *changes]) if changes else f"{speed}; no held-out rows to judge it on"


def _counts(prepared: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {name: asdict(counts) for name, counts in prepared.splits.items()}


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _device(args: Any) -> str:
    import torch

    if args.device.type == "cuda":
        return str(torch.cuda.get_device_name(args.device))
    return f"{args.device.type} ({platform.machine()}, {os.cpu_count()} cores)"
