"""The options of SFTConfig, DPOConfig and LoraConfig, read from the installed sources without running them.

Importing TRL takes six seconds of processor time, a typo in a recipe is found in a fifth of one: the annotated fields
of the configuration classes are parsed as text, so that they are always those of the version that will train.
"""

import ast
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qilin.errors import RecipeError

_TRAINING = ("transformers", "training_args.py", "TrainingArguments")
_TRL = ("trl", "trainer/base_config.py", "_BaseConfig")
# Class -> where it and its parents stand: package, file, class. A later one overrides an earlier one.
_SOURCES = {
    "SFTConfig": (_TRAINING, _TRL, ("trl", "trainer/sft_config.py", "SFTConfig")),
    "DPOConfig": (_TRAINING, _TRL, ("trl", "trainer/dpo_config.py", "DPOConfig")),
    "LoraConfig": (
        ("peft", "config.py", "PeftConfigMixin"),
        ("peft", "config.py", "PeftConfig"),
        ("peft", "tuners/lora/config.py", "LoraConfig"),
    ),
}

_GONE = "is gone; leave it out"
_MASKS = "is set by qilin: the prepared rows carry the loss masks that `model.template` marks"
_PACKED = "is set by qilin: `qilin prepare` packs rows of `data.length` tokens and keeps documents apart"
_LENGTH = "is set by qilin: write `data.length`, which holds prompt and reply"
_LOADED = "is set by qilin: write `model.path`, `model.dtype`, `model.attention` and `model.quantization`"
_RESUME = "is gone; qilin goes on from the last checkpoint in `trainer.output_dir`, name another folder to start anew"
_LAUNCHED = "is set by the launcher: `accelerate launch`"

# Keys of earlier versions -> what stands in their place today.
RENAMED = {
    "adafactor": "is now `optim: adafactor`",
    "dispatch_batches": "is now a key of `accelerator_config`",
    "dtype": "belongs to the model: write `model.dtype`",
    "evaluation_strategy": "is now `eval_strategy`",
    "fp16_backend": _GONE,
    "fp16_opt_level": _GONE,
    "fsdp_min_num_params": "is now a key of `fsdp_config`",
    "fsdp_transformer_layer_cls_to_wrap": "is now a key of `fsdp_config`",
    "generate_during_eval": _GONE,
    "group_by_length": "is now `train_sampling_strategy: group_by_length`",
    "half_precision_backend": _GONE,
    "include_inputs_for_metrics": "is now `include_for_metrics`",
    "is_encoder_decoder": _GONE,
    "label_pad_token_id": _GONE,
    "logging_dir": "is gone; set the environment variable TENSORBOARD_LOGGING_DIR",
    "max_completion_length": "is gone; write `data.length`, which holds prompt and reply",
    "max_prompt_length": "is gone; write `data.length`, which holds prompt and reply",
    "max_seq_length": "is gone; write `data.length`",
    "neftune_alpha": "is now `neftune_noise_alpha`",
    "no_cuda": "is now `use_cpu`",
    "num_of_sequences": _GONE,
    "overwrite_output_dir": _RESUME,
    "padding_value": _GONE,
    "per_gpu_eval_batch_size": "is now `per_device_eval_batch_size`",
    "per_gpu_train_batch_size": "is now `per_device_train_batch_size`",
    "precompute_ref_eval_log_probs": "is now part of `precompute_ref_log_probs`",
    "processing_class": "is set by qilin: the tokenizer is that of `model.path`",
    "push_to_hub_model_id": "is now `hub_model_id`",
    "push_to_hub_organization": "is now part of `hub_model_id`",
    "push_to_hub_token": "is now `hub_token`",
    "ref_model_init_kwargs": _LOADED,
    "reference_free": _GONE,
    "rpo_alpha": "is now `loss_type: [sigmoid, sft]` with `loss_weights: [1.0, ALPHA]`",
    "save_safetensors": "is gone; weights are always written as safetensors",
    "split_batches": "is now a key of `accelerator_config`",
    "tokenizer": "is set by qilin: the tokenizer is that of `model.path`",
    "torch_dtype": "is now `dtype` and belongs to the model: write `model.dtype`",
    "use_ipex": _GONE,
    "use_mps_device": _GONE,
    "use_num_logits_to_keep": _GONE,
    "warmup_ratio": "is now `warmup_steps` as a float below 1",
}

# Keys that are qilin's to set -> where to say what they would say.
OWN = {
    "trainer": {
        "assistant_only_loss": _MASKS,
        "chat_template_path": "is set by qilin: write `model.template`",
        "completion_only_loss": _MASKS,
        "dataset_kwargs": "is set by qilin: the rows are tokenised once, by `qilin prepare`",
        "dataset_num_proc": "is set by qilin: write `qilin prepare --workers`",
        "dataset_text_field": "is set by qilin: chimed's stages have fixed columns",
        "do_eval": "is set by qilin: write `eval_strategy`",
        "do_predict": "is set by qilin: a run trains and then evaluates",
        "do_train": "is set by qilin: a run trains and then evaluates",
        "eos_token": "is set by qilin: replies end with the end-of-turn token of `model.template`",
        "eval_packing": _PACKED,
        "include_num_input_tokens_seen": "is set by qilin: all tokens are counted, padding aside",
        "ignore_data_skip": "is set by qilin: a resumed run must see the rows that it has not seen",
        "local_rank": _LAUNCHED,
        "max_length": _LENGTH,
        "model_init_kwargs": _LOADED,
        "packing": _PACKED,
        "packing_strategy": _PACKED,
        "pad_token": "is set by qilin: the padding token is that of the tokenizer in `model.path`",
        "padding_free": _PACKED,
        "remove_unused_columns": "is set by qilin: the rows are tokenised once, by `qilin prepare`",
        "resume_from_checkpoint": "is set by qilin: a run goes on from the last checkpoint in `trainer.output_dir`",
        "shuffle_dataset": "is set by qilin: rows are shuffled with `seed`",
        "truncation_mode": _LENGTH,
        "trust_remote_code": "is refused: downloaded code never runs; `qilin import` turns Baichuan into Llama",
    },
    "peft": {
        "auto_mapping": "is set by PEFT",
        "base_model_name_or_path": "is set by qilin: write `model.path`",
        "inference_mode": "is set by qilin: an adapter of a run trains",
        "peft_type": "is set by qilin: adapters are LoRA",
        "peft_version": "is set by PEFT",
        "revision": "is set by qilin: write `model.path`",
        "task_type": "is set by qilin: models are causal language models",
    },
}


@dataclass(frozen=True, slots=True)
class Option:
    """A field of a configuration class. default: None too where it is no literal; choices: () where all values are."""

    name: str
    default: Any
    numeric: tuple[str, ...]  # of int, float, bool, None: what it may be; () where it may be more than these
    choices: tuple[Any, ...]

    def allows(self, value: Any) -> bool:
        """Whether the value has the type and is one of the choices of this option.

        >>> read("SFTConfig")["learning_rate"].allows("fast")
        False
        """
        if self.choices and isinstance(value, str | int) and value not in self.choices:
            return False
        kinds = {"int": int, "float": int | float, "bool": bool, "None": type(None)}
        return not self.numeric or any(
            isinstance(value, kinds[name]) and (isinstance(value, bool) == (name == "bool")) for name in self.numeric
        )


@cache
def _enums() -> Mapping[str, tuple[str, ...]]:
    """The values of the enumerations that TrainingArguments names, by class."""
    found: dict[str, tuple[str, ...]] = {}
    for file in ("trainer_utils.py", "training_args.py"):
        for node in _tree("transformers", file).body:
            if isinstance(node, ast.ClassDef) and any(ast.unparse(parent) == "ExplicitEnum" for parent in node.bases):
                members = (_literal(line.value) for line in node.body if isinstance(line, ast.Assign))
                found[node.name] = tuple(value for value in members if isinstance(value, str))
    return found


def _tree(package: str, file: str) -> ast.Module:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise RecipeError("qilin", [f"{package} is not installed; run pip install 'chimed[train]'"])
    return ast.parse((Path(spec.origin).parent / file).read_text(encoding="utf-8"))


@cache
def read(config: str) -> Mapping[str, Option]:
    """The options of a class, `SFTConfig`, `DPOConfig` or `LoraConfig`, by name, inherited ones first.

    Raises RecipeError where its package is not installed.

    >>> read("DPOConfig")["beta"].default, "beta" in read("SFTConfig")
    (0.1, False)
    """
    options: dict[str, Option] = {}
    for package, file, name in _SOURCES[config]:
        tree = _tree(package, file)
        body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
        for node in body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                options[node.target.id] = _option(node.target.id, node.annotation, node.value)
    return options


def faults(block: str, configs: tuple[str, ...], values: Mapping[Any, Any]) -> Iterator[str]:
    """What is wrong with the keys and values of a recipe's `trainer` or `peft` block, one sentence a fault."""
    known = {name: option for config in configs for name, option in read(config).items()}
    for key, value in values.items():
        where = f"{block}.{key}"
        if key in OWN[block]:
            yield f"{where} {OWN[block][key]}"
        elif key in known:
            if not known[key].allows(value):
                allowed = tuple(map(str, known[key].choices or known[key].numeric))
                begun = [name for name in allowed if isinstance(value, str) and value and name.startswith(value)]
                near = begun or difflib.get_close_matches(str(value), allowed, n=1) if len(allowed) > 8 else []
                advice = f"did you mean {near[0]!r}?" if near else f"allowed is {' or '.join(allowed)}"
                yield f"{where}: found {value!r}; {advice}"
        elif block == "trainer" and key in RENAMED:
            yield f"{where} {RENAMED[key]}"
        else:
            yield f"{where}: unknown key{_hint(str(key), configs, known)}"


def _hint(key: str, configs: tuple[str, ...], known: Mapping[str, Option]) -> str:
    for other in ("DPOConfig", "SFTConfig", "LoraConfig"):
        if other not in configs and key in read(other):
            return f" of {configs[0]}; it is a key of {other}"
    near = difflib.get_close_matches(key, known, n=1)
    return f" of {configs[0]}; did you mean {near[0]!r}?" if near else f"; allowed are the fields of {configs[0]}"


def _option(name: str, annotation: ast.expr, value: ast.expr | None) -> Option:
    kinds = tuple(_kinds(annotation))
    literals = tuple(literal for kind in kinds if isinstance(kind, tuple) for literal in kind)
    plain = tuple(kind for kind in kinds if isinstance(kind, str))
    numeric = plain if set(plain) <= {"int", "float", "bool", "None"} and not literals else ()
    default, metadata = value, None
    if isinstance(value, ast.Call):  # field(default=…, metadata={…})
        given = {keyword.arg: keyword.value for keyword in value.keywords}
        default, metadata = given.get("default"), given.get("metadata")
    pairs = zip(metadata.keys, metadata.values, strict=True) if isinstance(metadata, ast.Dict) else ()
    listed = next((_literal(item) for key, item in pairs if key is not None and _literal(key) == "choices"), None)
    if not listed and set(plain) - {"str"} <= set(_enums()) and not literals:
        listed = tuple(value for kind in plain for value in _enums().get(kind, ()))
    return Option(name, _literal(default), numeric, tuple(listed) if listed else literals if not plain else ())


def _kinds(annotation: ast.expr) -> Iterator[str | tuple[Any, ...]]:
    """The alternatives of an annotation: names, and the values of a Literal as a tuple."""
    match annotation:
        case ast.BinOp(left=left, right=right):
            yield from _kinds(left)
            yield from _kinds(right)
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            yield from _kinds(inner)
            yield "None"
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=parts)):
            for part in parts:
                yield from _kinds(part)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            yield tuple(_literal(part) for part in (inner.elts if isinstance(inner, ast.Tuple) else [inner]))
        case _:
            yield ast.unparse(annotation)


def _literal(node: ast.expr | None) -> Any:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None  # an expression, such as a call: not known without running it
