"""Makes the table of the ablations that recipes/qwen-0.5b/ablations.sh trained: each training without one part.

python recipes/ablations.py NAME        # NAME/ablations.json with the figures, and NAME/ablations.md
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from qilin.errors import QilinError
from qilin.evaluate import stats
from qilin.evaluate.compare import compare
from qilin.evaluate.report import between, p_value, share

Figures = dict[str, Any]
HEAD = ("left out", "measured", "with it", "without it", "without, less with (95 %)", "McNemar p")


def rows(folder: Path) -> Iterator[tuple[str, ...]]:
    """The rows of the table, ablation by ablation."""
    yield from _leakage(folder)
    yield from _pair("replay", folder / "eval-cpt", folder / "eval-no-replay")
    yield from _pair("length balance", folder / "eval-balanced", folder / "eval-unbalanced")
    yield from _pair("de-duplication", folder / "eval-sft", folder / "eval-repeats")


def _leakage(folder: Path) -> Iterator[tuple[str, ...]]:
    """Accuracy on the items that were planted among the training rows, and on as many others."""
    planted = {json.loads(line)["item"] for line in Path("raw-planted/copied/train.jsonl").read_text().splitlines()}
    found = pq.read_table("out-found/ledger.parquet", columns=["source", "verdict"]).to_pylist()
    verdicts = [row["verdict"] for row in found if row["source"] == "copied"]
    yield ("leakage removal", "copies of evaluation items that train", *_of(verdicts, "leaked"), "", "")
    clean, leaky = (_right(folder / f"eval-{what}") for what in ("control", "leaks"))
    for what, chosen in (("items that were planted", True), ("other items", False)):
        ids = [id_ for id_ in clean if (id_ in planted) is chosen]
        pair = stats.compare([clean[id_] for id_ in ids], [leaky[id_] for id_ in ids])
        yield ("leakage removal", f"CMExam, {what}: % right of {len(ids)}", *_exam(asdict(pair)))


def _of(verdicts: Sequence[str], gone: str) -> tuple[str, str]:
    left = sum(verdict != gone for verdict in verdicts)
    return f"{left} of {len(verdicts)}", f"{len(verdicts)} of {len(verdicts)}"


def _right(folder: Path) -> dict[str, bool]:
    lines = map(json.loads, (folder / "items.jsonl").read_text(encoding="utf-8").splitlines())
    return {line["id"]: line["methods"]["letters"]["correct"] for line in lines}


def _pair(part: str, with_it: Path, without: Path) -> Iterator[tuple[str, ...]]:
    """Every figure that two evaluations share."""
    for found in compare([with_it, without])["parts"]:
        first, second = found["runs"]
        if found["kind"] == "exam":
            yield (part, f"{found['set']}: % right of {second['accuracy']['n']}", *_exam(second["against"]))
        elif found["kind"] == "text":
            scores = [between(own["bits_per_byte"]) for own in (first, second)]
            yield (part, f"{found['set']} text, bits a byte", *scores, between(second["against"], "+.3f"), "")
        else:
            yield from _open(part, found, [own["scores"] for own in (first, second)])


def _open(part: str, found: Figures, scores: Sequence[Figures]) -> Iterator[tuple[str, ...]]:
    ratios = [f"{own['length_ratio']:.2f}" for own in scores]
    yield (part, f"{found['set']}: length of {scores[0]['n']} replies to references", *ratios, "", "")
    pair = found["runs"][1]["against"]
    for what, key in (("", "everything"), (", length standardised", "standardised")):
        if own := pair[key]:
            difference = own["difference"]["bleu-1"]
            told = [f"{values['bleu-1']:.2f}" for values in (own["first"], own["second"])]
            yield (part, f"{found['set']}: BLEU-1{what}", *told, between(difference, "+.2f"), "")


def _exam(pair: Mapping[str, Any]) -> tuple[str, ...]:
    difference = between({key: 100 * pair["difference"][key] for key in ("value", "low", "high")}, "+.1f")
    return share(pair["first"]), share(pair["second"]), difference, p_value(pair["p"])


def table(found: Sequence[Sequence[str]]) -> str:
    """The rows as Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [HEAD, ("---", "---", *["---:"] * 4), *found])


def main(name: str) -> None:
    """Write the table of the ablations beside a ladder, and print it."""
    folder = Path(name)
    try:
        found = list(rows(folder))
    except (OSError, KeyError, QilinError) as fault:
        sys.exit(f"{folder}: holds no whole ablations ({fault}); run recipes/qwen-0.5b/ablations.sh here first")
    (folder / "ablations.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "ablations.md").write_text(table(found) + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
