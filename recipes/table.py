"""Makes the table of a ladder from its evaluations: each rung of training against the one before.

    python recipes/table.py NAME --size small        # NAME/ladder.json with the figures, and NAME/ladder.md

NAME is the folder that recipes/qwen-0.5b/run.sh left.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qilin.errors import QilinError
from qilin.evaluate.compare import compare
from qilin.evaluate.report import EXAM, OPEN, between, figure, p_value, share

RUNGS = {"base": "base", "cpt": "continued pre-training", "sft": "fine-tuning", "dpo": "preferences"}
EXAMS, GENERAL, ANSWERS, ITEMS = "cmexam/test", "cmmlu/test", "huatuo26m/test", "cmexam/validation"
PAPER = dict(zip(("base", "cpt", "sft"), EXAM, strict=False))
Figures = dict[str, Any]


def collect(folder: Path, size: str) -> Figures:
    """The figures of all rungs: each score with its interval and its difference to the rung before."""
    parts = {
        (part["set"], part["arm"]): part["runs"]
        for what in ("eval", "rag")
        for part in compare([folder / f"{what}-{rung}" for rung in RUNGS])["parts"]
    }
    rungs: dict[str, Figures] = {rung: {} for rung in RUNGS}
    for place, rung in enumerate(RUNGS):
        result = _read(folder / f"eval-{rung}" / "result.json")
        rungs[rung] = {"/".join(key): runs[place] for key, runs in parts.items()}
        rungs[rung]["f1"] = result["exam"][EXAMS]["closed"]["letters"]["f1"]
        rungs[rung]["passages"] = {
            arm: own["letters"] for arm, own in _read(folder / f"rag-{rung}" / "result.json")["arms"][ITEMS].items()
        }
    run = _read(folder / "sft" / "run.json")
    return {
        "name": folder.name,
        "size": size,
        "parameters": result["answerer"]["parameters"],
        "device": _device(run["device"]),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _read(Path("out/sft/manifest.json"))["commit"],
        "signature": result["open"][ANSWERS]["closed"]["zh"]["signature"],
        "trained": {stage: _read(folder / stage / "run.json")["tokens"] for stage in RUNGS if stage != "base"},
        "seconds": sum(_read(folder / stage / "run.json")["seconds"] for stage in RUNGS if stage != "base"),
        "rungs": rungs,
    }


def tables(found: Figures) -> str:
    """The figures as tables of Markdown, beside those of the paper, and what they come from."""
    tokens = ", ".join(f"{RUNGS[stage]} {count:,}" for stage, count in found["trained"].items())
    opens = "; ".join(f"{name.removeprefix('Qilin-Med ')} {bleu} and {rouge}" for name, bleu, rouge in OPEN)
    note = (
        f"Chance on CMExam is 20. {found['name']}, {found['parameters'] / 1e6:,.0f} M parameters, trained on {tokens} "
        f"tokens in {found['seconds'] / 60:.0f} minutes: `SIZE={found['size']} bash recipes/qwen-0.5b/run.sh`, "
        f"{found['device']}, {found['date']}, data built at commit {found['commit'][:7]}. Answers to Huatuo-26M: "
        f"{found['signature']}; the paper has BLEU-1 and ROUGE-1 {opens}, by a scorer that was not published."
    )
    rungs = found["rungs"]
    return "\n\n".join([_exams(rungs), _passages(rungs), _rest(rungs), note])


def _exams(rungs: Mapping[str, Figures]) -> str:
    head = (
        f"CMExam test, {rungs['base'][f'{EXAMS}/closed']['accuracy']['n']:,} items: % right (95 %)",
        "F1 %",
        "against the line before: points (95 %), McNemar p",
        "the paper, 7B, % (published, not measured)",
    )
    return _table(
        head,
        rungs,
        lambda rung, own: (
            share(own[f"{EXAMS}/closed"]["accuracy"]),
            f"{100 * own['f1']:.1f}",
            _change(own[f"{EXAMS}/closed"].get("against")),
            f"{PAPER[rung][1]}" if rung in PAPER else "–",
        ),
    )


def _passages(rungs: Mapping[str, Figures]) -> str:
    head = (
        f"CMExam validation, {rungs['base'][f'{ITEMS}/closed']['accuracy']['n']:,} items: closed book %",
        "with retrieved passages %",
        "against closed book",
        "with the item's own explanation %",
        "against closed book",
    )
    return _table(
        head,
        rungs,
        lambda _, own: (
            share(own[f"{ITEMS}/closed"]["accuracy"]),
            share(own[f"{ITEMS}/rag"]["accuracy"]),
            _change(own["passages"]["rag against closed"]),
            share(own[f"{ITEMS}/oracle"]["accuracy"]),
            _change(own["passages"]["oracle against closed"]),
        ),
    )


def _rest(rungs: Mapping[str, Figures]) -> str:
    head = (
        f"Huatuo-26M, {rungs['base'][f'{ANSWERS}/closed']['scores']['n']} questions: BLEU-1",
        "ROUGE-1",
        "length of replies to references",
        "medical text, bits a byte (95 %)",
        "general text, bits a byte (95 %)",
        f"CMMLU, no medicine, {rungs['base'][f'{GENERAL}/closed']['accuracy']['n']} items: % right (95 %)",
        "against the line before",
    )
    return _table(
        head,
        rungs,
        lambda _, own: (
            *(figure(own[f"{ANSWERS}/closed"]["scores"], metric) for metric in ("bleu-1", "rouge-1")),
            f"{own[f'{ANSWERS}/closed']['scores']['length_ratio']:.2f}",
            *(between(own[f"{name}/text"]["bits_per_byte"]) for name in ("medical", "general")),
            share(own[f"{GENERAL}/closed"]["accuracy"]),
            _change(own[f"{GENERAL}/closed"].get("against")),
        ),
    )


def _table(head: Sequence[str], rungs: Mapping[str, Figures], cells: Callable[[str, Figures], Sequence[str]]) -> str:
    """A line of Markdown for each rung."""
    rows = [(RUNGS[rung], *cells(rung, own)) for rung, own in rungs.items()]
    lines = [("", *head), ("---", *["---:"] * len(head)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _change(pair: Figures | None) -> str:
    """A difference on the same items with its interval and McNemar's p."""
    if pair is None:
        return ""
    value, low, high = (100 * pair["difference"][key] for key in ("value", "low", "high"))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f}), {p_value(pair['p'])}"


def _device(told: str) -> str:
    """The device of a run; of a processor, which one."""
    info = Path("/proc/cpuinfo")
    if not told.startswith("cpu") or not info.exists():
        return told
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{len(names)} cores of {names[0]}" if names else f"{told}, {platform.machine()}"


def _read(path: Path) -> Figures:
    found: Figures = json.loads(path.read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Read a ladder, write its figures and its table, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", default="small")
    asked = parser.parse_args()
    try:
        found = collect(asked.folder, asked.size)
    except (OSError, KeyError, QilinError) as fault:
        sys.exit(f"{asked.folder}: holds no whole ladder ({fault}); run recipes/qwen-0.5b/run.sh here first")
    (asked.folder / "ladder.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = tables(found)
    (asked.folder / "ladder.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
