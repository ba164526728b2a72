"""The training recipe: YAML in, a typed and closed `Recipe` out; every fault is reported at once."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from qilin import options
from qilin.closed import Closed, block, load

StageName = Literal["cpt", "sft", "dpo"]
CONFIGS = {"cpt": "SFTConfig", "sft": "SFTConfig", "dpo": "DPOConfig"}


class Model(Closed):
    """The model to train.

    path: a folder, or a name on the Hub.
    dtype: what the weights are held in. Small steps vanish in 16 bits: float32 to train all weights, with `bf16: true`
        in `trainer` to compute in bfloat16; bfloat16 below an adapter.
    template: the chat template, a built-in name or the path of a .jinja file; None takes the tokenizer's own.
    quantization: nf4 holds the weights below an adapter in four bits (QLoRA).
    attention: `attn_implementation` of transformers.
    """

    path: Annotated[str, Field(min_length=1)]
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    template: str | None = None
    quantization: Literal["nf4"] | None = None
    attention: str | None = None


class Replay(Closed):
    """General text mixed into continued pre-training. share: its part of the trained tokens."""

    path: Path
    share: Annotated[float, Field(gt=0, lt=1)]


class Data(Closed):
    """The data to train on.

    path: a stage folder that `chimed build` wrote.
    length: tokens of a packed row (cpt, sft), or of prompt and reply together (dpo).
    rows: train on so many documents, a choice made with the trainer's seed; None takes all.
    prepared: the folder that holds what `qilin prepare` wrote.
    """

    path: Path
    length: Annotated[int, Field(ge=16)]
    rows: Annotated[int, Field(gt=0)] | None = None
    replay: Replay | None = None
    prepared: Path = Path("prepared")


class Recipe(Closed):
    """What a run does: the stage, its model and data, and what PEFT and TRL are told word for word.

    peft: keys of LoraConfig; None trains all weights. trainer: keys of SFTConfig (cpt, sft) or DPOConfig (dpo).
    """

    stage: StageName
    model: Model
    data: Data
    peft: dict[str, Any] | None = None
    trainer: dict[str, Any]

    @property
    def output_dir(self) -> Path:
        """The folder of the run."""
        return Path(self.trainer["output_dir"])

    @property
    def seed(self) -> int:
        """The seed of everything that is drawn: `trainer.seed`, or its default."""
        return int(self.option("seed"))

    @property
    def digest(self) -> str:
        """sha256 of what the recipe says."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def option(self, name: str) -> Any:
        """The value of a trainer option: what `trainer` says, or the default of the installed TRL.

        >>> model, data = {"path": "m"}, {"path": "d", "length": 512}
        >>> recipe = Recipe(stage="sft", model=model, data=data, trainer={"output_dir": "out", "seed": 7})
        >>> recipe.option("seed"), recipe.option("per_device_train_batch_size")
        (7, 8)
        """
        return self.trainer.get(name, options.read(CONFIGS[self.stage])[name].default)


def load_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file; its paths are relative to the current folder. Raises RecipeError with every fault."""
    return load(path, Recipe, lambda data: (*_keys(data), *_together(data)))


def _keys(data: Mapping[Any, Any]) -> Iterator[str]:
    """Faults of the blocks that go to TRL and PEFT word for word, whatever the rest of the recipe is worth."""
    stage = data.get("stage")
    config = CONFIGS.get(stage) if isinstance(stage, str) else None
    yield from options.faults("trainer", (config,) if config else ("SFTConfig", "DPOConfig"), block(data, "trainer"))
    yield from options.faults("peft", ("LoraConfig",), block(data, "peft"))


def _together(data: Mapping[Any, Any]) -> Iterator[str]:
    """Faults of values that are right one by one."""
    model, peft, trainer = (block(data, name) for name in ("model", "peft", "trainer"))
    output = trainer.get("output_dir")
    if isinstance(data.get("trainer"), dict) and not (isinstance(output, str) and output):
        yield "trainer.output_dir: is missing; it is the folder of the run"
    if trainer.get("fp16") is True and trainer.get("bf16") is True:
        yield "trainer.fp16, trainer.bf16: both are true; choose one, bf16 where the GPU has it (Ampere or newer)"
    if trainer.get("use_cpu") is True:
        for key in ("bf16", "fp16", "use_liger_kernel"):
            if trainer.get(key) is True:
                yield f"trainer.{key}: is true with `use_cpu: true`; leave it out on a CPU"
    if model.get("quantization") and not isinstance(data.get("peft"), dict):
        yield "model.quantization: four-bit weights cannot be trained; add a `peft` block (QLoRA) or leave it out"
    if model.get("dtype") == "float16" and not isinstance(data.get("peft"), dict):
        yield "model.dtype: float16 weights cannot be trained; write float32, with `fp16: true` in `trainer`"
    if data.get("stage") in ("sft", "dpo") and block(data, "data").get("replay"):
        yield f"data.replay: stage {data['stage']} has none; it is for cpt"
    if _on_the_head(peft.get("target_modules")) and not _on_the_head(peft.get("exclude_modules")):
        yield "peft.target_modules: TRL trains no adapter on lm_head; leave it out, or name it in `modules_to_save`"


def _on_the_head(modules: Any) -> bool:
    """Whether PEFT would take these modules for the output head: names end with them, a text is a pattern."""
    if isinstance(modules, list):
        return any(isinstance(name, str) and name.rpartition(".")[2] == "lm_head" for name in modules)
    if not isinstance(modules, str) or modules == "all-linear":
        return False
    try:
        return re.fullmatch(modules, "lm_head") is not None
    except re.error:
        return False
