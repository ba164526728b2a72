"""Loads an export with LLaMA-Factory's own loader and converters; prints what each stage gives as one JSON object."""

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

_STAGES = {"cpt": "pt", "sft": "sft", "dpo": "rm"}


def main(folder: Path, scratch: Path) -> dict[str, list[Any]]:
    import_module("peft")  # which looks for torchaudio itself
    # Its loader imports torchaudio for rows with sound; builds of torch for a CPU often have none that fits.
    sys.modules.setdefault("torchaudio", ModuleType("torchaudio"))
    load = import_module("llamafactory.data.loader")._get_merged_dataset
    options = import_module("llamafactory.hparams")
    model = options.ModelArguments(model_name_or_path="none", cache_dir=str(scratch))
    arguments = import_module("transformers").Seq2SeqTrainingArguments
    training = arguments(output_dir=str(scratch), use_cpu=True, report_to=[])
    found: dict[str, list[Any]] = {}
    for name in json.loads((folder / "dataset_info.json").read_text()):
        stage = name.split("_")[1]
        data = options.DataArguments(dataset=name, dataset_dir=str(folder), template="empty", overwrite_cache=True)
        rows = load([name], model, data, training, _STAGES[stage]).to_list()
        found[name.removeprefix("chimed_").replace("_", "-")] = [_normal(stage, row) for row in rows]
    return found


def _normal(stage: str, row: dict[str, Any]) -> Any:
    system = [{"role": "system", "content": row["_system"]}] if row["_system"] else []
    prompt = [*system, *row["_prompt"]]
    match stage:
        case "cpt":
            return prompt[0]["content"]
        case "sft":
            return prompt + row["_response"]
        case _:
            return [prompt, *row["_response"]]


if __name__ == "__main__":
    Path(sys.argv[3]).write_text(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
