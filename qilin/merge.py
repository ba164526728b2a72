"""Merge the adapter of a finished run into its base, and say "done" only when the merged model answers as before."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qilin import models, run
from qilin.errors import ModelError, RunError
from qilin.recipe import Model

SAME = 1e-3  # of the spread of the logits: 32-bit rounding over a deep model stays far below, a wrong merge far above
PROBES = ("高血压患者平时要注意什么？", "百日咳是由百日咳杆菌所致的急性呼吸道传染病。", "What does HbA1c 7.2% mean?")


@dataclass(frozen=True, slots=True)
class Merged:
    """A merged model, and what the check measured on probe texts.

    difference: the largest difference of a logit, merged against adapter in 32 bits, over the spread of the logits.
    cast: the same for the weights as written, in `dtype`.  agreement: share of places where those choose one token.
    """

    folder: str
    run: str
    base: str
    dtype: str
    difference: float
    cast: float
    agreement: float

    def __str__(self) -> str:
        """One line for the terminal."""
        return (
            f"{self.folder}: {self.base} with the adapter of {self.run}; logits differ by {self.difference:.1e} of "
            f"their spread, {self.cast:.1e} in {self.dtype} ({self.agreement:.1%} choose the same token)"
        )


def merge(folder: Path, out: Path, dtype: str) -> Merged:
    """Merge a run's adapter into its base in 32 bits, check it, cast to `dtype` and write it to `out`.

    The adapter is merged into the base as it stands on disk, also where it was trained above four-bit weights. `out`
    is whole or not there. Raises RunError: no finished run with an adapter; `out` is taken. ModelError: the base is
    gone or has changed since; the merged model answers otherwise than base and adapter.
    """
    import torch

    done = _finished(folder)
    base, wanted = done["lineage"]["base"]["path"], done["lineage"]["base"]["model"]
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: is there already; give --out a new folder")
    if Path(base).is_dir() and run.weights_digest(Path(base)) != wanted:
        raise ModelError(f"{base}: its weights have changed since {folder} was trained on them; restore them")
    tokenizer = models.load_tokenizer(Model(path=base, template=_template(folder)), done["stage"])
    model = models.load_model(Model(path=base, dtype="float32")).eval()
    probes = [torch.tensor([tokenizer(text)["input_ids"]]) for text in PROBES]
    adapted = _adapter(model, folder)
    before = _logits(adapted, probes)
    merged = adapted.merge_and_unload(safe_merge=True)  # raises ValueError on NaN
    difference = _difference(before, _logits(merged, probes))
    if not difference <= SAME:
        raise ModelError(
            f"{folder}: merged into {base}, its logits differ by {difference:.1e} of their spread, more than "
            f"{SAME:.0e}: nothing is written; use base and adapter as they are, and report this"
        )
    merged = merged.to(getattr(torch, dtype))
    after = _logits(merged, probes)
    _write(merged, tokenizer, out, _lineage(done, folder))
    same = torch.cat([(one.argmax(-1) == two.argmax(-1)).flatten() for one, two in zip(before, after, strict=True)])
    cast = _difference(before, after)
    return Merged(str(out), str(folder), base, dtype, difference, cast, float(same.float().mean()))


def _finished(folder: Path) -> dict[str, Any]:
    done = run.read_json(folder / run.DONE)
    if done is None:
        raise RunError(f"{folder}: has no {run.DONE}, so no run was finished here; run qilin train first")
    if done["kind"] != "adapter":
        raise RunError(f"{folder}: all weights were trained, so there is no adapter: use the folder as it is")
    if not (folder / "adapter_model.safetensors").is_file():
        raise RunError(f"{folder}: adapter_model.safetensors is missing; restore it or train again")
    if run.weights_digest(folder) != done["weights"]:
        raise RunError(f"{folder}: its adapter has changed since the run was finished; restore it or train again")
    return done


def _template(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    return str(path) if path.is_file() else None


def _adapter(model: Any, folder: Path) -> Any:
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(folder)).eval()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"{folder}: its adapter does not fit its base: {str(error).splitlines()[0]}") from error


def _logits(model: Any, probes: list[Any]) -> list[Any]:
    import torch

    with torch.inference_mode():
        return [model(input_ids=ids).logits.float() for ids in probes]


def _difference(one: list[Any], two: list[Any]) -> float:
    """The largest difference of two logits, over their standard deviation; NaN where either is not a number."""
    return max(float((a - b).abs().max() / a.std()) for a, b in zip(one, two, strict=True))


def _lineage(done: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    return {**done["lineage"], "kind": "model", "merged": {"run": str(folder), "weights": done["weights"]}}


def _write(model: Any, tokenizer: Any, out: Path, lineage: Mapping[str, Any]) -> None:
    draft = out.with_name(f".{out.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        models.write_model(model, tokenizer, draft, lineage)
        if out.exists():
            out.rmdir()
        draft.replace(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
