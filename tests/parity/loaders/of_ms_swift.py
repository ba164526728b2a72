"""Loads an export with ms-swift's own `load_dataset`; prints what each stage gives as one JSON object."""

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def main(folder: Path, scratch: Path) -> dict[str, list[Any]]:
    os.environ["MODELSCOPE_CACHE"] = str(scratch)
    load = import_module("swift.dataset").load_dataset
    found: dict[str, list[Any]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        # strict: a row it cannot take is an error, where it would otherwise be left out.
        rows, _ = load([str(path)], strict=True, use_hf=True, load_from_cache_file=False)
        found[path.stem] = [_normal(path.stem.partition("-")[0], row) for row in rows.to_list()]
    return found


def _normal(stage: str, row: dict[str, Any]) -> Any:
    said = row["messages"]
    match stage:
        case "cpt":
            return said[0]["content"]
        case "sft":
            return said
        case _:
            return [said[:-1], said[-1], {"role": "assistant", "content": row["rejected_response"]}]


if __name__ == "__main__":
    Path(sys.argv[3]).write_text(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
