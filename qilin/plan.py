"""What a run will do, before it runs: rows, steps, what is lost, what carries loss, and what it will take."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qilin import models
from qilin.data import open_stage
from qilin.errors import RecipeError
from qilin.flops import Gpu, Memory, Setup, Sharding, Size, flops_per_token, memory, size_of, usual_mfu
from qilin.prepare import Counts, Prepared, Progress, prepare
from qilin.recipe import Recipe

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Kind = Literal["prompt", "trained", "chosen", "rejected"]

SHOWN = 3  # rows of the preview
HEAD, TAIL = 150, 60  # characters of a longer passage that the preview shows


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the run is planned for. gpu: None leaves the time open. sharding: how the GPUs share what they hold."""

    gpu: Gpu | None = None
    gpus: int = 1
    sharding: Sharding = "ddp"


@dataclass(frozen=True, slots=True)
class Passage:
    """Neighbouring tokens of one kind, as text. kind: "prompt" carries no loss; the others do."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do. tokens: all that pass through the model. seconds: None without a GPU to plan for."""

    recipe: Recipe
    hardware: Hardware
    prepared: Prepared
    size: Size
    steps: int
    epochs: float
    rows_a_step: int
    tokens: int
    memory: Memory
    seconds: float | None
    preview: tuple[tuple[Passage, ...], ...]
    warnings: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """The plan as JSON takes it."""
        return {
            "stage": self.recipe.stage,
            "recipe": self.recipe.model_dump(mode="json"),
            "prepared": str(self.prepared.folder),
            "splits": {name: asdict(counts) for name, counts in self.prepared.splits.items()},
            "lost": [loss._asdict() for loss in self.prepared.examples],
            "steps": self.steps,
            "epochs": self.epochs,
            "rows_a_step": self.rows_a_step,
            "tokens": self.tokens,
            "parameters": {"all": self.size.parameters, "trained": self.size.trained},
            "gpu": self.hardware.gpu and self.hardware.gpu.name,
            "gpus": self.hardware.gpus,
            "sharding": self.hardware.sharding,
            "memory": asdict(self.memory) | {"total": self.memory.total},
            "seconds": self.seconds,
            "preview": [[asdict(passage) for passage in row] for row in self.preview],
            "warnings": list(self.warnings),
        }


def plan(
    recipe: Recipe, where: Path, hardware: Hardware, *, workers: int = 1, progress: Progress | None = None
) -> Plan:
    """Prepare the recipe's data and say what training on it will do. No weights are read.

    where: the recipe's file, for messages. Raises RecipeError, DataError or ModelError as `qilin train` would.
    """
    open_stage(recipe.data.path, recipe.stage)  # the quickest to fail comes first
    tokenizer = models.load_tokenizer(recipe.model, recipe.stage)
    _check(recipe, where)
    size = _size(recipe, where)
    prepared = prepare(recipe, tokenizer, workers=workers, progress=progress)
    counts = prepared.splits["train"]
    rows_a_step = hardware.gpus * recipe.option("per_device_train_batch_size") * _accumulation(recipe)
    steps, epochs = _steps(recipe, counts.rows, hardware.gpus)
    tokens = round(counts.tokens * epochs)
    needed = memory(size, _setup(recipe, hardware))
    return Plan(
        recipe=recipe,
        hardware=hardware,
        prepared=prepared,
        size=size,
        steps=steps,
        epochs=epochs,
        rows_a_step=rows_a_step,
        tokens=tokens,
        memory=needed,
        seconds=_seconds(recipe, hardware, size, tokens),
        preview=tuple(_preview(prepared, tokenizer)),
        warnings=tuple(_warnings(recipe, hardware, counts, needed, steps)),
    )


def _check(recipe: Recipe, where: Path) -> None:
    """Let TRL itself look at the values, as on a machine without a GPU: this one may not be the one that trains."""
    from qilin.stages import adapter, settings

    here = {"use_cpu": True, "bf16": False, "fp16": False, "tf32": None, "deepspeed": None, "fsdp": None}
    trainer = {key: value for key, value in recipe.trainer.items() if not key.startswith(("fsdp", "torch_compile"))}
    for block, make in (("trainer", settings), ("peft", adapter)):
        try:
            make(recipe.model_copy(update={"trainer": trainer | here}))
        except (TypeError, ValueError, ImportError) as error:
            raise RecipeError(str(where), [f"{block}: {' '.join(str(error).split())}"]) from error


def _size(recipe: Recipe, where: Path) -> Size:
    """The size of the model with its adapter, made on the meta device: shapes without numbers."""
    import torch
    from transformers import AutoModelForCausalLM

    from qilin.stages import adapter

    config = models.read_config(recipe.model.path)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
        if recipe.peft is not None:
            from peft import get_peft_model

            # Other ways to begin an adapter compute with the weights; the sizes are the same.
            plain = recipe.model_copy(update={"peft": {**recipe.peft, "init_lora_weights": True}})
            try:
                model = get_peft_model(model, adapter(plain))
            except (ValueError, TypeError) as error:
                raise RecipeError(str(where), [f"peft: {' '.join(str(error).split())}"]) from error
    return size_of(model)


def _accumulation(recipe: Recipe) -> int:
    return int(recipe.option("gradient_accumulation_steps"))


def _steps(recipe: Recipe, rows: int, gpus: int) -> tuple[int, float]:
    """Optimizer steps and epochs of a run, as transformers' Trainer counts them."""
    batch = recipe.option("per_device_train_batch_size")
    share = math.ceil(rows / gpus)
    batches = share // batch if recipe.option("dataloader_drop_last") else math.ceil(share / batch)
    an_epoch = max(math.ceil(batches / _accumulation(recipe)), 1)
    most = recipe.option("max_steps")
    if most > 0:
        return most, most / an_epoch
    epochs = float(recipe.option("num_train_epochs"))
    return math.ceil(epochs * an_epoch), epochs


def _setup(recipe: Recipe, hardware: Hardware) -> Setup:
    narrow = next((kind for key, kind in (("bf16", "bfloat16"), ("fp16", "float16")) if recipe.trainer.get(key)), None)
    checkpointing = recipe.option("activation_checkpointing")
    return Setup(
        batch=recipe.option("per_device_train_batch_size") * (2 if recipe.stage == "dpo" else 1),
        length=recipe.data.length,
        dtype=recipe.model.dtype,
        compute=narrow or recipe.model.dtype,
        quantized=recipe.model.quantization is not None,
        optimizer=recipe.option("optim") or "adamw_torch",
        checkpointing=bool(recipe.option("gradient_checkpointing") if checkpointing is None else checkpointing),
        gpus=hardware.gpus,
        sharding=hardware.sharding,
    )


def _seconds(recipe: Recipe, hardware: Hardware, size: Size, tokens: int) -> float | None:
    if hardware.gpu is None:
        return None
    flops = flops_per_token(size, recipe.data.length, reference=recipe.stage == "dpo")
    return tokens * flops / (hardware.gpu.peak * hardware.gpus * usual_mfu(size))


def _warnings(recipe: Recipe, hardware: Hardware, counts: Counts, needed: Memory, steps: int) -> Iterator[str]:
    room = hardware.gpu and hardware.gpu.memory
    if room and needed.total > room:
        yield (
            f"{needed.total / 1e9:.0f} GB do not fit into the {room / 1e9:.0f} GB of the GPU: fewer rows at once, "
            "checkpointing, more GPUs that share (--sharding), an adapter, or nf4"
        )
    if recipe.peft is None and recipe.model.dtype == "bfloat16" and hardware.sharding not in ("zero2", "zero3"):
        yield "all weights are trained in bfloat16, in which small steps vanish: take float32, with `bf16: true`"
    if steps < 10:
        yield f"{steps} steps are few: lower per_device_train_batch_size or gradient_accumulation_steps"
    lost = counts.dropped + counts.truncated
    if lost > 0.05 * (counts.documents + counts.dropped):
        yield f"{lost:,} of {counts.documents + counts.dropped:,} documents are dropped or truncated: raise data.length"


def _preview(prepared: Prepared, tokenizer: Any) -> Iterator[tuple[Passage, ...]]:
    """The first document, or the pair, of a few rows that are spread over the training split."""
    rows = prepared.load("train")
    shown = min(SHOWN, len(rows))
    for number in range(shown):
        row = rows[number * len(rows) // shown]
        passages = _pair(row) if prepared.stage == "dpo" else _document(row)
        yield tuple(Passage(kind, tokenizer.decode(ids)) for kind, ids in passages)


def _pair(row: Mapping[str, Any]) -> Iterator[tuple[Kind, list[int]]]:
    yield "prompt", row["prompt_ids"]
    yield "chosen", row["chosen_ids"]
    yield "rejected", row["rejected_ids"]


def _document(row: Mapping[str, Any]) -> Iterator[tuple[Kind, list[int]]]:
    """The first document of a packed row, cut where loss begins or ends; its first token has nothing before it."""
    size = row["seq_lengths"][0]
    ids, trained = row["input_ids"][:size], [label != -100 for label in row["labels"][:size]]
    if size > 1 and trained[1]:
        trained[0] = True  # shown with its neighbours
    start = 0
    for end in range(1, size + 1):
        if end == size or trained[end] != trained[start]:
            yield "trained" if trained[start] else "prompt", ids[start:end]
            start = end


def show(found: Plan, console: "Console") -> None:
    """Print a plan. Where there are no colours, marks stand around what carries loss."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _lines(found):
        table.add_row(name, Text(text))
    console.print(table)
    for loss in found.prepared.examples[:SHOWN]:
        console.print(f"  {loss.what}: {loss.id} ({loss.tokens:,} tokens)", style="yellow", markup=False)
    console.print()
    for number, row in enumerate(found.preview, 1):
        console.rule(f"{number} of {len(found.preview)}", style="dim")
        console.print(_coloured(row, console.color_system is not None))
    for warning in found.warnings:
        console.print(f"warning: {warning}", style="bold red", markup=False)


_STYLE = {"prompt": "dim", "trained": "green", "chosen": "green", "rejected": "red"}


def _coloured(row: tuple[Passage, ...], colours: bool) -> "RenderableType":
    from rich.text import Text

    text = Text(overflow="fold")
    for passage in row:
        if passage.kind == "rejected":
            text.append("\n")
        short = passage.text
        if len(short) > HEAD + TAIL + 20:
            short = f"{short[:HEAD]} … {len(short) - HEAD - TAIL:,} characters … {short[-TAIL:]}"
        begin, end = ("", "") if colours or passage.kind == "prompt" else (f"⟦{passage.kind}: ", "⟧")
        text.append(f"{begin}{short}{end}", style=_STYLE[passage.kind])
    return text


def _lines(found: Plan) -> Iterator[tuple[str, str]]:
    recipe, size, hardware = found.recipe, found.size, found.hardware
    yield "run", f"{recipe.stage} of {recipe.model.path} on {recipe.data.path} -> {recipe.output_dir}"
    for name, counts in found.prepared.splits.items():
        unit = "pairs" if recipe.stage == "dpo" else f"rows of {recipe.data.length} from {counts.documents:,} documents"
        fill = "" if recipe.stage == "dpo" else f"; fill {counts.fill:.1%}"
        yield name, f"{counts.rows:,} {unit}; {counts.tokens:,} tokens, {counts.trained:,} carry loss{fill}"
        cuts = f", {counts.pieces - counts.documents:,} cuts in longer ones" if recipe.stage == "cpt" else ""
        yield "", f"{counts.dropped:,} dropped, {counts.truncated:,} truncated{cuts}"
    yield "steps", f"{found.steps:,} of {found.rows_a_step:,} rows, {found.epochs:g} epochs, {found.tokens:,} tokens"
    yield "learns", f"{size.trained:,} of {size.parameters:,} parameters ({size.trained / size.parameters:.2%})"
    parts = ", ".join(f"{name} {value / 1e9:.1f}" for name, value in asdict(found.memory).items() if value >= 5e7)
    gpus = f"each of {hardware.gpus} GPUs with {hardware.sharding}" if hardware.gpus > 1 else "a GPU"
    yield "memory", f"about {found.memory.total / 1e9:.1f} GB on {gpus}: {parts}"
    if found.seconds is None or hardware.gpu is None:
        yield "time", "name a GPU with --gpu for an estimate"
    else:
        usual = f"{usual_mfu(size):.0%} of the peak, as 7B models reach; small ones reach less"
        yield "time", f"about {_clock(found.seconds)} on {hardware.gpus} x {hardware.gpu.name} at {usual}"


def _clock(seconds: float) -> str:
    """A duration as people say it.

    >>> _clock(42), _clock(7000), _clock(400_000)
    ('42 s', '1.9 h', '4.6 days')
    """
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
