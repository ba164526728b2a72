"""Asks every item, in a fixed order of chunks, and scores the answers; what was answered is never asked again.

answers.sqlite    every answer so far, under the hash of all that it hangs on: a killed run goes on from here
items.jsonl       one line an item and arm: what was asked, each method's answer, and why there is none
texts.jsonl       one line a held-out passage: how improbable it is, where the recipe names any
result.json       the scores, and the hash of everything they come from
report.md, .html  the scores in tables and plots (*.png), beside the published ones

An interrupted run and an undisturbed one leave the same items.jsonl and result.json.
"""

import hashlib
import itertools
import json
import platform
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from qilin import run
from qilin.data import open_stage
from qilin.errors import DataError
from qilin.evaluate import answers, exam, prompt, stats, texts
from qilin.evaluate.exam import Item
from qilin.evaluate.extract import letters
from qilin.evaluate.grounding import cites, grounding
from qilin.evaluate.model import Answerer, Ask, open_answerer
from qilin.evaluate.page import html
from qilin.evaluate.plots import draw
from qilin.evaluate.questions import Asked, Questions, candidates, methods, questions
from qilin.evaluate.recipe import Arm, Method, Recipe
from qilin.evaluate.report import markdown

Progress = Callable[[int, int, str], None]
Answers = Mapping[tuple[str, str, int, Method], Mapping[str, Any]]  # by item, arm, permutation and method
RESULT = "result.json"
NO_LETTERS = "no letters"
CHUNK = 8  # batches of choices that are stored together; replies, which take longer, are stored batch by batch


def evaluate(recipe: Recipe, progress: Progress = lambda done, total, what: None) -> Path:
    """Ask and score what a recipe says; returns the folder with result.json.

    Raises DataError, ModelError or RunError for what cannot be read, loaded or written.
    """
    folder = recipe.output_dir
    with run.hold(folder):
        all_ = questions(recipe)
        answerer = open_answerer(recipe)
        with closing(_open(folder / "answers.sqlite")) as store:
            found = _answer(answerer, all_.asked, recipe, store, progress)
            passages = texts.measure(recipe, answerer, store, progress)
        lines = {
            "items": [_line(one, recipe, found) for one in all_.asked if one.number == 0],
            **({"texts": passages} if passages else {}),
        }
        files = {name: _lines(own) for name, own in lines.items()}
        result = _result(recipe, answerer, all_)
        result |= {f"{name}_sha256": hashlib.sha256(data).hexdigest() for name, data in files.items()}
        result |= _scores(recipe, all_.asked, found)
        if passages:
            result["texts"] = texts.scores(passages, recipe.seed)
        (folder / RESULT).unlink(missing_ok=True)  # an older one speaks of other items than those that follow
        for name, data in files.items():
            _write(folder / f"{name}.jsonl", data)
        plots = draw(result)
        for name, data in plots.items():
            _write(folder / name, data)
        _write(folder / "report.md", markdown(result, plots).encode())
        _write(folder / "report.html", html(result, plots).encode())
        run.write_json(folder / RESULT, result)
    return folder


def predict(method: Method, answer: Mapping[str, Any], options: Sequence[str]) -> str | None:
    """The letters that an answer gives: the likeliest candidate, the first of equals, or those that a reply names."""
    if "failure" in answer:
        return None
    if method == "generation":
        return letters(answer["reply"], options)
    scores: Mapping[str, float] = answer["scores"]
    return max(scores, key=lambda candidate: scores[candidate])


def _open(path: Path) -> sqlite3.Connection:
    store = sqlite3.connect(path)
    try:
        store.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID")
    except sqlite3.DatabaseError as error:
        store.close()
        raise DataError(f"{path} cannot be read ({error}); delete it to ask everything again") from error
    return store


def _answer(
    answerer: Answerer, asked: Sequence[Asked], recipe: Recipe, store: sqlite3.Connection, progress: Progress
) -> Answers:
    """The answer to every question, from the store or from the model, which is asked the longest prompts first."""
    asks = [
        Ask(one.item, one.arm, one.number, method, one.prompt, candidates(one.item, method))
        for one in asked
        for method in methods(recipe, one.item)
    ]
    asks.sort(key=lambda ask: (ask.method, -len(ask.prompt)))
    found: dict[tuple[str, str, int, Method], Mapping[str, Any]] = {}
    done = 0
    for method, same in itertools.groupby(asks, key=lambda ask: ask.method):
        size = recipe.batch_size * (1 if method == "generation" else CHUNK)
        for chunk in _chunks(list(same), size):
            for ask, answer in zip(chunk, _chunk(answerer, chunk, store), strict=True):
                found[ask.item.id, ask.arm, ask.number, ask.method] = answer
            done += len(chunk)
            progress(done, len(asks), "questions")
    return found


def _chunks(asks: list[Ask], size: int) -> Iterator[list[Ask]]:
    return (asks[begin : begin + size] for begin in range(0, len(asks), size))


def _chunk(answerer: Answerer, chunk: Sequence[Ask], store: sqlite3.Connection) -> list[Mapping[str, Any]]:
    """The answers to a chunk; those of the model are stored all at once, and failures are not: they are tried again."""
    keys = [answerer.key(ask) for ask in chunk]
    marks = ",".join("?" * len(keys))
    known = dict(store.execute(f"SELECT key, answer FROM answers WHERE key IN ({marks})", keys))
    missing = {key: ask for key, ask in zip(keys, chunk, strict=True) if key not in known}
    fresh = dict(zip(missing, answerer.answer(list(missing.values())), strict=True)) if missing else {}
    with store:
        store.executemany(
            "INSERT OR IGNORE INTO answers VALUES (?, ?)",
            [(key, json.dumps(answer, ensure_ascii=False)) for key, answer in fresh.items() if "failure" not in answer],
        )
    return [fresh[key] if key in fresh else json.loads(known[key]) for key in keys]


def _line(one: Asked, recipe: Recipe, found: Answers) -> dict[str, Any]:
    """What items.jsonl says of an item in an arm."""
    item, said = one.item, {}
    for method in methods(recipe, item):
        answer = found[item.id, one.arm, 0, method]
        said[method] = dict(answer) | cites(one, answer)
        if item.kind == "exam":
            prediction = predict(method, answer, item.options)
            [right] = exam.correct([item], [prediction])
            said[method] |= {"prediction": prediction, "correct": right}
            if prediction is None:
                said[method]["failure"] = answer.get("failure", NO_LETTERS)
    own = {"id": item.id, "set": one.set, "arm": one.arm, "answer": item.answer, "prompt": json.loads(one.prompt)}
    return own | {"passages": [passage.id for passage in one.passages], "hit": one.hit, "methods": said}


def _result(recipe: Recipe, answerer: Answerer, all_: Questions) -> dict[str, Any]:
    """What the scores come from."""
    tools = ("numpy", "scipy", "scikit-learn", "sacrebleu")
    return {
        "recipe": recipe.model_dump(mode="json"),
        "recipe_sha256": recipe.digest,
        "answerer": {**answerer.identity, "sha256": answerer.digest},
        "frame_sha256": prompt.digest(),
        "shots": [shot.id for shot in all_.shots],
        "data": {
            "sha256": open_stage(recipe.data.path, "eval").digest,
            "sets": {
                name: {"n": len(own), "ids_sha256": hashlib.sha256("\n".join(i.id for i in own).encode()).hexdigest()}
                for name, own in all_.sets.items()
            },
        },
        "index": all_.index,
        "versions": {"qilin": version("chimed"), "python": platform.python_version()}
        | {tool: version(tool) for tool in tools},
    }


def _scores(recipe: Recipe, asked: Sequence[Asked], found: Answers) -> dict[str, Any]:
    """The scores by set, arm and method, the arms compared, and what the order of options changes."""
    cells: dict[tuple[str, Arm, int], list[Item]] = defaultdict(list)
    for one in asked:
        cells[one.set, one.arm, one.number].append(one.item)
    result: dict[str, Any] = {"exam": {}, "open": {}, "arms": {}, "permutations": {}, "passages": {}}
    for name in recipe.data.sets:
        first = cells[name, recipe.arms[0], 0]
        exams = [item for item in first if item.kind == "exam"]
        if exams:
            result["exam"][name] = {
                arm: {method: _exam(exams, arm, method, found) for method in recipe.exam.methods} for arm in recipe.arms
            }
            result["arms"][name] = _compared(recipe, exams, found)
            result["permutations"][name] = _turned(recipe, name, cells, found)
        opens = [item for item in first if item.kind == "open"]
        if opens:
            result["open"][name] = {arm: _open_scores(recipe, opens, arm, found) for arm in recipe.arms}
        for arm in recipe.arms:
            if arm != "closed":
                own = [one for one in asked if (one.set, one.arm, one.number) == (name, arm, 0)]
                for kind in sorted({one.item.kind for one in own}):
                    part = [one for one in own if one.item.kind == kind]
                    of = result["passages"].setdefault(kind, {}).setdefault(name, {})
                    of[arm] = _grounding(recipe, part, found)
    return {key: value for key, value in result.items() if any(value.values())}


def _predictions(items: Iterable[Item], arm: Arm, number: int, method: Method, found: Answers) -> list[str | None]:
    return [predict(method, found[item.id, arm, number, method], item.options) for item in items]


def _exam(items: Sequence[Item], arm: Arm, method: Method, found: Answers) -> dict[str, Any]:
    given = [found[item.id, arm, 0, method] for item in items]
    predictions = _predictions(items, arm, 0, method, found)
    scores = asdict(exam.score(items, predictions))
    pairs = zip(given, predictions, strict=True)
    reasons = Counter(answer.get("failure", NO_LETTERS) for answer, prediction in pairs if prediction is None)
    scores["reasons"] = dict(sorted(reasons.items()))
    near = scores["accuracy"]["low"] / 2 + scores["accuracy"]["high"] / 2  # never 0 or 1
    scores["detectable"] = stats.detectable(len(items), near)
    if method == "letters":  # which cannot say several letters
        scores["chance"] = sum((len(item.answer) == 1) / len(item.options) for item in items) / len(items)
    if method == "generation":
        replies = [answer.get("reply", "") for answer in given]
        scores["cut"] = sum("cut" in answer for answer in given)
        scores["official"] = [asdict(exam.official(items, replies, script)) for script in ("chatglm", "lora")]
    return scores


def _right(items: Sequence[Item], arm: Arm, method: Method, found: Answers) -> list[bool]:
    return exam.correct(items, _predictions(items, arm, 0, method, found))


def _compared(recipe: Recipe, items: Sequence[Item], found: Answers) -> dict[str, Any]:
    """Every arm against each one before it, by method, on the same items."""
    return {
        f"{arm} against {base}": {
            method: asdict(stats.compare(_right(items, base, method, found), _right(items, arm, method, found)))
            for method in recipe.exam.methods
        }
        for base, arm in itertools.combinations(recipe.arms, 2)
    }


def _grounding(recipe: Recipe, asked: Sequence[Asked], found: Answers) -> dict[str, Any]:
    """What the passages of an arm were worth."""
    items = [one.item for one in asked]

    def right(arm: Arm, method: Method) -> list[bool]:
        return _right(items, arm, method, found) if arm in recipe.arms else []

    own = methods(recipe, items[0])
    replies = [found[item.id, asked[0].arm, 0, "generation"] for item in items] if "generation" in own else []
    return grounding(asked, own, right, replies)


def _turned(
    recipe: Recipe, name: str, cells: Mapping[tuple[str, Arm, int], Sequence[Item]], found: Answers
) -> dict[str, Any]:
    """Whether the order of the options changes the answer, by method."""
    if not recipe.exam.permutations:
        return {}
    arm = recipe.arms[0]
    result: dict[str, Any] = {}
    for method in recipe.exam.methods:
        runs = []
        for number in range(1 + recipe.exam.permutations):
            own = [item for item in cells[name, arm, number] if item.kind == "exam"]
            runs.append((own, _predictions(own, arm, number, method, found)))
        result[method] = asdict(exam.consistency(runs))
    return result


def _open_scores(recipe: Recipe, items: Sequence[Item], arm: Arm, found: Answers) -> dict[str, Any]:
    """Scores of replies in each mode; where no reply came, it counts as an empty one and among the failures."""
    given = [found[item.id, arm, 0, "generation"] for item in items]
    replies, references = [answer.get("reply", "") for answer in given], [item.answer for item in items]
    reasons = Counter(answer["failure"] for answer in given if "failure" in answer)
    result: dict[str, Any] = {"failures": sum(reasons.values()), "reasons": dict(sorted(reasons.items()))}
    result["cut"] = sum("cut" in answer for answer in given)
    for mode in recipe.open.metrics:
        scores = asdict(answers.score(mode, replies, references, seed=recipe.seed))
        del scores["items"]
        result[mode] = scores
    return result


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _write(path: Path, data: bytes) -> None:
    """Write a file so that it is either the old one or the whole new one."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(data)
    draft.replace(path)
