"""Loads and writes models and tokenizers: safetensors only, no downloaded code, one chat template, a lineage.

model folder            config.json, *.safetensors, tokenizer.json, chat_template.jinja, and
  qilin.json            the lineage that a run or a merge leaves: stage, template (its sha256), parents
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from qilin import template
from qilin.errors import ModelError, RunError
from qilin.recipe import Model

LINEAGE = "qilin.json"
TUNED = ("sft", "dpo")  # the stages that teach a chat template
# Words in tokens that no text holds, the best to pad with first.
_SPARE = ("pad", "reserved", "unused", "extra_", "unk", "endoftext")


def load_tokenizer(model: Model, stage: str) -> Any:
    """The fast tokenizer of a model, with the chat template that the recipe names and a padding token.

    stage: "sft" and "dpo" need a template with generation marks, "cpt" needs none. A missing padding token becomes a
    reserved one or the end of sequence: the vocabulary never grows. Raises ModelError: nothing there, no fast
    tokenizer, no end of sequence, a template without marks or other than the one that the model was tuned with, or
    tokens that the model has no embedding for.
    """
    from transformers import AutoTokenizer

    config = read_config(model.path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model.path, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        raise ModelError(f"{model.path}: its tokenizer cannot be loaded: {_first(error)}") from error
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{model.path}: its tokenizer has no tokenizer.json; for Baichuan, run: qilin import")
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{model.path}: its tokenizer has no end of sequence, so replies would never end; "
            "set `eos_token` in its tokenizer_config.json"
        )
    embeddings = config.get_text_config().vocab_size
    if len(tokenizer) > embeddings:
        raise ModelError(
            f"{model.path}: the tokenizer has {len(tokenizer)} tokens, the model embeddings for {embeddings}; "
            "use the tokenizer that the model was trained with, or resize the model first"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = _spare(tokenizer)
    _set_template(tokenizer, model, stage)
    return tokenizer


def load_model(model: Model) -> Any:
    """The model of a recipe, in its dtype, four-bit where the recipe says so.

    Raises ModelError: nothing there, pickled weights only, an architecture that needs downloaded code, weights that
    are cut off or do not cover the model, or no bitsandbytes for `quantization`.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    config, auto = read_config(model.path), cast(Any, AutoModelForCausalLM)
    given: dict[str, Any] = {"dtype": getattr(torch, model.dtype)}
    if model.attention:
        given["attn_implementation"] = model.attention
    if model.quantization:
        given["quantization_config"] = _four_bit(given["dtype"])
    try:
        loaded, told = auto.from_pretrained(
            model.path,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **given,
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{model.path}: the model cannot be loaded: {_first(error)}") from error
    lacking = sorted([*told["missing_keys"], *(name for name, *_ in told["mismatched_keys"])])
    if lacking:
        raise ModelError(
            f"{model.path}: {len(lacking)} weights are missing or have another shape, the first is {lacking[0]}; "
            "they would start at random: complete the folder"
        )
    return loaded


def read_config(path: str) -> Any:
    """The transformers configuration of a model; ModelError where none can be loaded without running code."""
    from transformers import AutoConfig, PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    folder = Path(path)
    if (folder / "adapter_config.json").exists():
        raise ModelError(f"{path}: is an adapter; merge it into its base first: qilin merge RUN --out FOLDER")
    if folder.is_dir() and not (folder / "config.json").exists():
        raise ModelError(
            f"{path}: has no config.json; model.path is a folder that transformers loads, or a name on the Hub"
        )
    try:
        found, _ = PreTrainedConfig.get_config_dict(path)
    except (OSError, ValueError) as error:
        where = "cannot be read" if folder.exists() else "is no folder here, and the Hub gives no such model"
        raise ModelError(f"{path}: {where}: {_first(error)}") from error
    kind = found.get("model_type")
    if kind not in CONFIG_MAPPING:
        advice = (
            "for Baichuan 1 and 2, run: qilin import FOLDER --out NEW"
            if kind == "baichuan"
            else ("use a model that transformers knows")
        )
        raise ModelError(f"{path}: the architecture {kind!r} needs code from the folder, which never runs; {advice}")
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
        have = f"only pickled weights ({pickled[0]}), and a pickle can run code" if pickled else "no weights"
        raise ModelError(f"{path}: has {have}; put *.safetensors there")
    return AutoConfig.from_pretrained(path, trust_remote_code=False)


def lineage(folder: Path) -> dict[str, Any] | None:
    """What a run or merge left in a model's folder about where the model comes from, None where there is nothing."""
    path = folder / LINEAGE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}; make the model again, or delete the file") from error
    if not isinstance(found, dict):
        raise ModelError(
            f"{path}: found {type(found).__name__}, not a mapping; make the model again, or delete the file"
        )
    return found


def write_model(model: Any, tokenizer: Any, folder: Path, lineage: Mapping[str, Any]) -> None:
    """Write a model or adapter, its tokenizer and, last, its lineage to a folder that transformers and vLLM load.

    Generation stops at the end of sequence and at the end-of-turn of the chat template. Raises RunError: disk full.
    """
    from safetensors import SafetensorError

    settings = getattr(model, "generation_config", None)
    if settings is not None:
        stops = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
        ends = template.end_of_turn(tokenizer) if lineage.get("stage") in TUNED else None
        settings.eos_token_id = sorted({stop for stop in (*stops, tokenizer.eos_token_id, ends) if stop is not None})
        settings.pad_token_id = tokenizer.pad_token_id
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LINEAGE).unlink(missing_ok=True)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        draft = folder / f".{LINEAGE}"
        draft.write_text(
            json.dumps(dict(lineage), ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )
        draft.replace(folder / LINEAGE)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{folder}: the model cannot be written: {_first(error)}; make room and run again") from error


def _set_template(tokenizer: Any, model: Model, stage: str) -> None:
    if model.template is not None:
        tokenizer.chat_template = template.read(model.template)
    if stage == "cpt":
        return
    if tokenizer.chat_template is None:
        names = ", ".join(template.BUILT_IN)
        raise ModelError(f"{model.path}: has no chat template; name one in `model.template`: {names}, or a .jinja file")
    try:
        template.check(tokenizer)
    except ModelError as error:
        raise ModelError(f"{model.path}: {error}") from error
    before, used = lineage(Path(model.path)) or {}, template.digest(tokenizer.chat_template)
    if before.get("stage") in TUNED and before.get("template") != used:
        raise ModelError(
            f"{model.path}: was tuned with the chat template {str(before.get('template'))[:16]}, this recipe uses "
            f"{used[:16]}; leave `model.template` out to go on with the model's own"
        )


def _spare(tokenizer: Any) -> str:
    """A token of the vocabulary that no text holds: a padding or reserved one, else the end of sequence."""
    taken = (tokenizer.eos_token, tokenizer.bos_token)
    known = [token.content for _, token in sorted(tokenizer.added_tokens_decoder.items()) if token.content not in taken]
    fitting = (token for word in _SPARE for token in known if word in token.lower())
    return str(next(fitting, tokenizer.eos_token))


def _four_bit(compute: Any) -> Any:
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise ModelError("model.quantization: nf4 needs bitsandbytes; run pip install bitsandbytes, or leave it out")
    return cast(Any, BitsAndBytesConfig)(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )


def _first(error: BaseException) -> str:
    """The first sentence of a foreign error, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
