"""Writes every second evaluation item of those that an evaluation asks as a raw file, as corpora hold copies of exams.

python recipes/qwen-0.5b/plant.py out/eval cmexam/validation 600 raw-planted/copied/train.jsonl
"""

import json
import sys
from pathlib import Path

from qilin.evaluate.exam import read_items


def main(stage: str, name: str, rows: str, file: str) -> None:
    """Write the items of a set of an eval stage, as exam rows; `rows` and the seed are those of the evaluation."""
    items = read_items(Path(stage), [name], rows=int(rows), seed=42)[::2]
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        for item in items:
            options = dict(zip(item.letters, item.options, strict=True))
            row = {"question": item.question, "options": options, "answer": item.answer, "why": item.explanation}
            out.write(json.dumps({"item": item.id} | row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
