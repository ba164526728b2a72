"""Loads an export with axolotl's own loaders, as its snippets configure them, down to token ids and labels.

The tokenizer has a token for each byte and the chat template ChatML, so that decoding gives back every text.
"""

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

_PAD, _START, _END = "<pad>", "<|im_start|>", "<|im_end|>"


def tokenizer(folder: Path) -> Any:
    """A tokenizer with a token a byte, saved to `folder` beside the configuration that axolotl looks for."""
    parts = import_module("tokenizers")
    signs = [_PAD, _START, _END, *sorted(parts.pre_tokenizers.ByteLevel.alphabet())]
    model = parts.Tokenizer(parts.models.BPE(vocab={sign: place for place, sign in enumerate(signs)}, merges=[]))
    model.pre_tokenizer = parts.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.decoder = parts.decoders.ByteLevel()
    own = import_module("transformers").PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token=_PAD, eos_token=_END, additional_special_tokens=[_START]
    )
    own.save_pretrained(str(folder))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return own


def main(folder: Path, scratch: Path) -> dict[str, list[Any]]:
    own = tokenizer(scratch)
    settings = import_module("axolotl.utils.dict").DictDefault
    load = import_module("axolotl.utils.data.sft")._load_and_process_single_dataset
    load_pairs = import_module("axolotl.utils.data.rl")._load_split
    preference = import_module("axolotl.utils.schemas.enums").RLType.DPO
    yaml = import_module("yaml")
    os.chdir(folder)  # the paths of the snippets hold there
    found: dict[str, list[Any]] = {}
    for path in sorted(folder.glob("*.yaml")):
        snippet = yaml.safe_load(path.read_text())
        named = dict.fromkeys(("base_model", "base_model_config", "tokenizer_config"), str(scratch))
        fixed = {"chat_template": "chatml", "sequence_len": 1 << 30, "dataset_num_proc": 1, "is_preprocess": True}
        cfg = settings({**snippet, **named, **fixed, "dataset_prepared_path": str(scratch / "prepared"), "seed": 1})
        for key, split in (("datasets", "train"), ("test_datasets", "test")):
            if key not in snippet:
                continue
            name = Path(snippet[key][0]["path"]).stem
            if "rl" in snippet:
                cfg.rl = preference
                rows = load_pairs(cfg, split).to_list()
                found[name] = [[row["prompt"], row["chosen"], row["rejected"]] for row in rows]
                continue
            rows = load(cfg[key][0], cfg, own, split, 1)[0].to_list()
            found[name] = [[own.decode(row["input_ids"]), own.decode(_trained(row))] for row in rows]
    return found


def _trained(row: dict[str, Any]) -> list[int]:
    return [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]


if __name__ == "__main__":
    Path(sys.argv[3]).write_text(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
