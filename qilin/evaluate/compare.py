"""Finished evaluations of the same items side by side, each against the one before it: what a step of training did."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from qilin.errors import DataError
from qilin.evaluate import answers, stats, texts
from qilin.evaluate.recipe import Method
from qilin.evaluate.report import Row, Table, between, figure, p_value, page, share

Lines = Sequence[Mapping[str, Any]]
WAYS = {"everything": "all items", "within": "items of like length", "standardised": "length standardised"}


@dataclass(frozen=True, slots=True)
class Run:
    """A finished evaluation.

    lines: of items.jsonl, in their order, by set, arm and kind of item. texts: those of texts.jsonl, by set.
    """

    folder: Path
    result: Mapping[str, Any]
    lines: Mapping[tuple[str, str, str], Lines]
    texts: Mapping[str, Lines]


def compare(folders: Sequence[Path]) -> dict[str, Any]:
    """The scores of evaluations, and of each but the first its difference to the one before, item by item.

    Exams by McNemar's exact test; open answers by `answers.matched`, which also takes the length of replies out. What
    only some of them asked is left out. Raises DataError: fewer than two, no finished evaluation, files that were
    changed, unlike questions, or nothing in common.
    """
    if len(folders) < 2:
        raise DataError("one evaluation alone cannot be compared; name the folders of two or more")
    runs = [_read(folder) for folder in folders]
    parts = []
    for key in runs[0].lines:
        if all(key in run.lines for run in runs):
            _alike(key, runs)
            ways = (_exam if key[2] == "exam" else _open)(key, runs)
            parts += [
                {"set": key[0], "arm": key[1], "kind": key[2], "by": way, "runs": own} for way, own in ways.items()
            ]
    for name, first in runs[0].texts.items():
        if all([line["id"] for line in run.texts.get(name, ())] == [line["id"] for line in first] for run in runs):
            parts.append({"set": name, "arm": "text", "kind": "text", "by": "bits a byte", "runs": _text(name, runs)})
    if not parts:
        raise DataError(f"{', '.join(map(str, folders))}: have no set, arm and method in common")
    return {
        "runs": [{"folder": str(run.folder), "items_sha256": run.result["items_sha256"]} for run in runs],
        "parts": parts,
    }


def markdown(found: Mapping[str, Any]) -> str:
    """What `compare` found, a table for each set and arm."""
    names = [run["folder"] for run in found["runs"]]
    grouped = itertools.groupby(found["parts"], key=lambda part: (part["set"], part["arm"], part["kind"]))
    tables = (_tables[kind](f"{set_}: {arm}", names, list(parts)) for (set_, arm, kind), parts in grouped)
    return page("Evaluations compared", tables) + "\n"


def _read(folder: Path) -> Run:
    try:
        result = json.loads((folder / "result.json").read_bytes())
        told = {name: result[f"{name}_sha256"] for name in ("items", *(["texts"] if "texts" in result else []))}
        files = {name: (folder / f"{name}.jsonl").read_bytes() for name in told}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{folder}: holds no finished evaluation of `qilin eval` ({error})") from error
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != told[name]:
            raise DataError(f"{folder}: {name}.jsonl is not the one that result.json speaks of; run `qilin eval` again")
    passages: dict[str, list[Mapping[str, Any]]] = {}
    for line in map(json.loads, files.get("texts", b"").splitlines()):
        passages.setdefault(line["set"], []).append(line)
    lines: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for line in map(json.loads, files["items"].splitlines()):
        kind = "exam" if any("correct" in said for said in line["methods"].values()) else "open"
        lines.setdefault((line["set"], line["arm"], kind), []).append(line)
    return Run(folder, result, lines, passages)


def _alike(key: tuple[str, str, str], runs: Sequence[Run]) -> None:
    """That all were asked the same; passages may differ, since what they are worth may be the question."""
    what = "prompt" if key[1] == "closed" else "id"
    first, *others = runs
    for run in others:
        if [line[what] for line in run.lines[key]] != [line[what] for line in first.lines[key]]:
            raise DataError(
                f"{first.folder} and {run.folder}: {key[0]} was asked with other {what}s in the arm {key[1]}; evaluate "
                "both with the same data, rows, seed and shots"
            )


def _exam(key: tuple[str, str, str], runs: Sequence[Run]) -> dict[str, Any]:
    """By method, each run's accuracy and its difference to the run before."""
    said = [[line["methods"] for line in run.lines[key]] for run in runs]
    found: dict[str, Any] = {}
    for method in get_args(Method):
        if all(method in own[0] for own in said):
            right = [[one[method]["correct"] for one in own] for own in said]
            found[method] = [{"accuracy": asdict(stats.wilson(sum(own), len(own)))} for own in right]
            for one, pair in zip(found[method][1:], itertools.pairwise(right), strict=True):
                one["against"] = asdict(stats.compare(*pair))
    return found


def _open(key: tuple[str, str, str], runs: Sequence[Run]) -> dict[str, Any]:
    """By mode, each run's scores and its difference to the run before."""
    scores = [run.result["open"][key[0]][key[1]] for run in runs]
    replies = [[line["methods"]["generation"].get("reply", "") for line in run.lines[key]] for run in runs]
    references = [line["answer"] for line in runs[0].lines[key]]
    found: dict[str, Any] = {}
    for mode in answers.MODES:
        if all(mode in own for own in scores):
            if len({own[mode]["signature"] for own in scores}) > 1:
                raise DataError(
                    f"{key[0]}: was scored by unlike tools ({mode}); run `qilin eval` again, answers are kept"
                )
            found[mode] = [{"scores": own[mode]} for own in scores]
            for one, pair in zip(found[mode][1:], itertools.pairwise(replies), strict=True):
                one["against"] = asdict(answers.matched(mode, *pair, references))
    return found


def _text(name: str, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Each run's bits a byte over the same passages, and its difference to the run before."""
    found: list[dict[str, Any]] = [{"bits_per_byte": run.result["texts"][name]["bits_per_byte"]} for run in runs]
    for one, (before, after) in zip(found[1:], itertools.pairwise(runs), strict=True):
        one["against"] = texts.bits(after.texts[name], before.texts[name], seed=after.result["recipe"]["seed"])
    return found


def _exam_table(title: str, names: Sequence[str], parts: Sequence[Mapping[str, Any]]) -> Table:
    head = ("run", "method", "n", "accuracy % (95 %)", "points more than before (95 %)", "gained", "lost", "McNemar p")
    rows: list[Row] = []
    for part in parts:
        for name, one in zip(names, part["runs"], strict=True):
            accuracy, pair = one["accuracy"], one.get("against")
            told = (
                (share(pair["difference"]), str(pair["only_second"]), str(pair["only_first"]), p_value(pair["p"]))
                if pair
                else ("",) * 4
            )
            rows.append((name, part["by"], str(accuracy["n"]), share(accuracy), *told))
    return Table(title, head, rows, "Exact McNemar test on the same items, two-sided, not corrected for several.")


def _open_table(title: str, names: Sequence[str], parts: Sequence[Mapping[str, Any]]) -> Table:
    head = (
        "run",
        "mode",
        "n",
        "BLEU",
        "ROUGE-1",
        "length ratio",
        *(f"more than before, {way}" for way in WAYS.values()),
    )
    rows: list[Row] = []
    for part in parts:
        metrics = [_bleu(part["by"]), "rouge-1"]
        for name, one in zip(names, part["runs"], strict=True):
            scores, pair = one["scores"], one.get("against")
            differences = ["; ".join(_points(pair[way], metrics)) or "–" if pair else "" for way in WAYS]
            figures = [figure(scores, metric) for metric in metrics]
            rows.append((name, part["by"], str(scores["n"]), *figures, f"{scores['length_ratio']:.2f}", *differences))
    note = (
        "BLEU-1 (of llamafactory: BLEU-4), and differences in points, BLEU and then ROUGE-1, with 95 % bootstrap "
        "intervals. Longer replies score higher: what a gain owes to length goes away among items whose two replies "
        "differ by a tenth at most, and where scores are averaged over fifths of length with equal weights."
    )
    return Table(title, head, rows, note)


def _text_table(title: str, names: Sequence[str], parts: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (name, between(one["bits_per_byte"]), between(one["against"], "+.3f") if "against" in one else "")
        for part in parts
        for name, one in zip(names, part["runs"], strict=True)
    ]
    note = "Held-out passages: bits a byte, less is better, and how many more than before; bootstrap over passages."
    return Table(title, ("run", "bits a byte (95 %)", "more than before (95 %)"), rows, note)


_tables = {"exam": _exam_table, "open": _open_table, "text": _text_table}


def _bleu(mode: str) -> str:
    return "bleu-4" if mode == "llamafactory" else "bleu-1"


def _points(pairs: Mapping[str, Any] | None, metrics: Sequence[str]) -> Iterator[str]:
    if pairs:
        for one in (pairs["difference"][metric] for metric in metrics):
            yield f"{one['value']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})"
