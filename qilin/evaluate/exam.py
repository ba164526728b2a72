"""Evaluation items, and the scores of answers that are letters.

An answer is a set of letters, written in order ("BD"), and counts as right only when the whole set is. A reply from
which no letters could be read is a failure (None): it stays among the items and counts as wrong. Shares are fractions.
"""

import hashlib
import heapq
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from qilin.data import open_stage
from qilin.errors import DataError
from qilin.evaluate.stats import Interval, wilson

FIELDS = ("department", "discipline", "competency", "disease_group", "difficulty")
_BESIDE = re.compile("以上|上述|前述|其他|其余|其它|(all|none|both|any) of (the )?(above|these)", re.IGNORECASE)
_NAMES = re.compile(r"(?<![A-Za-z0-9])[A-J]\s*(?:[、,，+&和与及]\s*[A-J])+(?![A-Za-z0-9])|\b[A-J] (?:and|or|&) [A-J]\b")

Predictions = Sequence[str | None]


@dataclass(frozen=True, slots=True)
class Item:
    """One question of an evaluation set.

    options: empty for an open question. answer: letters in order, or a reference text. history: the turns before the
    question, as {"role", "content"}. fields: what is known of FIELDS; a field that the source left empty is missing.
    """

    id: str
    source: str
    split: str
    question: str
    options: tuple[str, ...]
    answer: str
    explanation: str = ""
    history: tuple[Mapping[str, str], ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> Literal["exam", "open"]:
        """Whether letters or a text answer it."""
        return "exam" if self.options else "open"

    @property
    def letters(self) -> str:
        """The letters of its options.

        >>> Item("a/1", "a", "test", "?", ("甲", "乙", "丙"), "B").letters
        'ABC'
        """
        return "".join(chr(ord("A") + place) for place in range(len(self.options)))


@dataclass(frozen=True, slots=True)
class ExamScores:
    """How many items were answered right, and where.

    chance: what drawing answer sets blindly scores on these items. f1: over answer sets, weighted by how often each is
    right. groups: accuracy by source, each of FIELDS and the number of right answers; items without a value of a field
    are in none of its groups.
    """

    n: int
    correct: int
    failures: int
    accuracy: Interval
    f1: float
    chance: float
    groups: Mapping[str, Mapping[str, Interval]]


@dataclass(frozen=True, slots=True)
class Official:
    """What a script of the CMExam release prints; None where it divides by zero. n counts its denominator."""

    script: str
    n: int
    failures: int
    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class Consistency:
    """Whether the order of the options changes what is answered.

    agreement: items answered with the same options in every run, among those whose options moved; None where none did.
    accuracy: that of each run, over the same items.
    """

    agreement: Interval | None
    accuracy: tuple[Interval, ...]


def read_items(
    folder: Path,
    sets: Sequence[str],
    *,
    rows: int | None = None,
    seed: int = 0,
    disciplines: Mapping[str, Sequence[str]] | None = None,
) -> list[Item]:
    """The items of evaluation sets such as "cmexam/test", set by set in the order of the eval stage's files.

    rows: at most so many of each set. The choice hangs on the seed and the items' ids alone: fewer rows are a part of
    more rows, and another build chooses the same items. disciplines: by set, those whose items are taken; of other
    sets all are. Raises DataError for a folder that is no finished eval stage, and for sets and disciplines that are
    not in it, naming those that are.
    """
    stage = open_stage(folder, "eval")
    found: dict[str, list[Item]] = defaultdict(list)
    for split, files in stage.splits.items():
        for file in files:
            for row in pq.read_table(file).to_pylist():
                found[f"{row['source']}/{split}"].append(_item(row, split))
    if missing := [name for name in sets if name not in found]:
        raise DataError(f"{folder} has no set {', '.join(missing)}; it has {', '.join(sorted(found))}")
    for name, wanted in (disciplines or {}).items():
        there = sorted({item.fields["discipline"] for item in found[name] if "discipline" in item.fields})
        if absent := [one for one in wanted if one not in there]:
            raise DataError(f"{name} has no discipline {', '.join(absent)}; it has {', '.join(there) or 'none'}")
        found[name] = [item for item in found[name] if item.fields.get("discipline") in wanted]
    return [found[name][place] for name in sets for place in chosen([item.id for item in found[name]], rows, seed)]


def chosen(ids: Sequence[str], rows: int | None, seed: int) -> list[int]:
    """The places of at most so many ids, in order; the choice hangs on the seed and each id alone."""
    if rows is None or rows >= len(ids):
        return list(range(len(ids)))
    return sorted(heapq.nsmallest(rows, range(len(ids)), key=lambda place: _rank(f"{seed}/{ids[place]}")))


def correct(items: Sequence[Item], predictions: Predictions) -> list[bool]:
    """Item by item, whether exactly the right letters were given; their order does not count.

    >>> correct([Item("a/1", "a", "test", "?", ("甲", "乙"), "AB")], ["BA"])
    [True]
    """
    pairs = zip(items, predictions, strict=True)
    return [given is not None and set(given) == set(item.answer) for item, given in pairs]


def score(items: Sequence[Item], predictions: Predictions) -> ExamScores:
    """Accuracy by exact match of the answer set, weighted F1, and accuracy by group, each with Wilson's interval.

    Weighted F1 is that of the CMExam paper (arXiv 2306.03030): each answer set that is the right one somewhere is a
    class, and its F1 counts as often as it is right. A failure is a class that is never right. Raises ValueError
    without items, for open ones, and where there are not as many predictions.
    """
    if not items or any(item.kind != "exam" for item in items):
        raise ValueError("exam scores need at least one item, and options in every item")
    from sklearn.metrics import f1_score

    right = correct(items, predictions)
    given = ["".join(sorted(set(prediction or ""))) for prediction in predictions]
    members: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for item, hit in zip(items, right, strict=True):
        for group, value in {"source": item.source, **item.fields, "answers": str(len(item.answer))}.items():
            members[group][value].append(hit)
    groups = {
        group: {value: wilson(sum(hits), len(hits)) for value, hits in sorted(values.items())}
        for group, values in members.items()
    }
    return ExamScores(
        n=len(items),
        correct=sum(right),
        failures=given.count(""),
        accuracy=wilson(sum(right), len(items)),
        f1=float(f1_score([item.answer for item in items], given, average="weighted", zero_division=0.0)),
        chance=sum(1 / (2 ** len(item.options) - 1) for item in items) / len(items),
        groups=groups,
    )


def official(items: Sequence[Item], replies: Sequence[str], script: Literal["chatglm", "lora"]) -> Official:
    """What the scripts of the CMExam release (src/evaluation) print for these replies, their faults included.

    chatglm (evaluate_chatglm_result.py; evaluate_gpt_result.py reads and scores alike): the letters are what stands
    between 答案： and the last full-width comma of its line, and count only where there is a 解释： too. A reply
    without both leaves the denominator. Letters in another order are wrong.
    lora (evaluate_lora_result.py): every letter that occurs anywhere, "CT" and "DNA" included, and every option whose
    first word occurs, in the first line, or in the whole reply where it holds no 解释. Failures count as wrong.
    Both: precision, recall and F1 over answer sets, weighted by scikit-learn. No interval: this mode is for comparing.
    """
    read = _chatglm if script == "chatglm" else _lora
    pairs = [(item.answer, read(reply, item)) for item, reply in zip(items, replies, strict=True)]
    failures = sum(not given for _, given in pairs)
    kept = [(answer, given or "无答案") for answer, given in pairs if given or script == "lora"]
    if not kept:
        return Official(script, 0, failures, None, None, None, None)
    from sklearn.metrics import precision_recall_fscore_support

    answers, givens = zip(*kept, strict=True)
    figures = precision_recall_fscore_support(answers, givens, average="weighted", zero_division=0.0)
    accuracy = sum(answer == given for answer, given in kept) / len(kept)
    return Official(script, len(kept), failures, accuracy, *(float(figure) for figure in figures[:3]))


def permuted(item: Item, number: int, *, seed: int) -> Item:
    """The item with its options in the order of permutation `number`, never the first one; number 0 is the item.

    An option that speaks of the others ("以上都对") keeps its place. An item with an option that names letters ("A和B")
    is given back as it is: in another order it would be another question.

    >>> item = Item("a/1", "a", "test", "?", ("甲", "乙"), "A")
    >>> permuted(item, 1, seed=0).options, permuted(item, 1, seed=0).answer
    (('乙', '甲'), 'B')
    """
    free = [place for place, option in enumerate(item.options) if not _BESIDE.search(option)]
    if not number or len(free) < 2 or any(_NAMES.search(option) for option in item.options):
        return item
    drawn = sorted(free, key=lambda place: _rank(f"{seed}/{number}/{place}/{item.id}"))
    if drawn == free:
        drawn = [*free[1:], free[0]]
    order = list(range(len(item.options)))
    for place, came in zip(free, drawn, strict=True):
        order[place] = came
    letters = item.letters
    answer = "".join(letters[order.index(letters.index(letter))] for letter in item.answer)
    return replace(item, options=tuple(item.options[came] for came in order), answer="".join(sorted(answer)))


def consistency(runs: Sequence[tuple[Sequence[Item], Predictions]]) -> Consistency:
    """Whether the same items under permuted options got the same options as answer.

    runs: the items of each run with their predictions; the first run has the options in their own order. A failure in
    any run is no agreement. Raises ValueError where the runs do not hold the same items in the same order.
    """
    if len({tuple(item.id for item in items) for items, _ in runs}) != 1:
        raise ValueError("runs of the same items in the same order are needed")
    first = runs[0][0]
    moved = [
        place for place in range(len(first)) if any(items[place].options != first[place].options for items, _ in runs)
    ]
    if not moved:
        return Consistency(None, ())
    agree, right = 0, [0] * len(runs)
    for place in moved:
        chosen = {_texts(items[place], predictions[place]) for items, predictions in runs}
        agree += len(chosen) == 1 and None not in chosen
        for number, (items, predictions) in enumerate(runs):
            right[number] += correct([items[place]], [predictions[place]])[0]
    return Consistency(wilson(agree, len(moved)), tuple(wilson(hits, len(moved)) for hits in right))


def _item(row: Mapping[str, Any], split: str) -> Item:
    history = tuple({"role": turn["role"], "content": turn["content"]} for turn in row["messages"])
    fields = {name: str(row[name]) for name in FIELDS if row.get(name)}
    texts = {name: str(row[name]) for name in ("id", "source", "question", "answer", "explanation")}
    return Item(split=split, options=tuple(row["options"]), history=history, fields=fields, **texts)


def _rank(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _texts(item: Item, prediction: str | None) -> frozenset[str] | None:
    if not prediction:
        return None
    return frozenset(item.options[item.letters.index(letter)] for letter in prediction)


def _chatglm(reply: str, _: Item) -> str:
    answer, explained = re.findall("答案：(.*)，", reply), re.search("解释：", reply)
    return answer[0] if answer and explained else ""


def _lora(reply: str, item: Item) -> str:
    read = reply.partition("\n")[0].strip() if "解释" in reply else reply
    options = zip(item.letters, item.options, strict=True)
    return "".join(letter for letter, option in options if letter in read or option.split()[0] in read)
