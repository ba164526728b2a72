"""Verdicts: whether a cleaned record is fit to learn from, or the reason why not.

The rules are few and meant to be right when they speak: each takes rows out that no reader would miss, and leaves what
is merely dull. They are tried in the order of `REASONS`; the first that fits a row is its reason.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from chimed import signs
from chimed.characters import BLANK, HAN, LATIN, LETTER, LINE
from chimed.dedup.minhash import buffers
from chimed.text import alike, census

Mask = NDArray[np.bool_]
Codes = NDArray[np.int64]

REASONS: dict[str, str] = {
    "empty-text": "A text that the record cannot do without is blank.",
    "placeholder": "The text, the question or the answer is a stand-in such as 暂无 or 请等待更新.",
    "answer-is-url": "The answer is nothing but a link.",
    "too-short": "There are too few characters to learn anything from.",
    "not-chinese": "No text of the record is Chinese: in each, fewer than one character of twenty is Han.",
    "mostly-symbols": "More than half of the characters are neither letters nor digits.",
    "repeated-text": "A text says the same few characters over and over.",
    "answer-repeats-question": "The answer is the question.",
    "only-courtesy": "No reply of the conversation says more than thanks and good wishes.",
    "too-few-options": "The exam item has fewer than two options.",
    "duplicate-options": "Two options of the exam item are the same.",
    "answer-not-an-option": "The answer of the exam item is not made of letters of its options.",
    "refers-to-figure": "The exam item asks about a figure, a table or a formula that is not there.",
    "lost-context": "What is asked about, a patient, a prescription or a text, is not there.",
    "machine-reworded": "A program swapped words for their like, or for their contrary, and spoilt what is said.",
    "chosen-equals-rejected": "The chosen and the rejected reply are the same but for punctuation.",
    "noise-entity": "An end of the fact is no name: a remnant of a web page, cut short, or without a letter.",
    "entity-is-url": "An end of the fact is a link.",
    "self-loop": "Both ends of the fact are the same.",
    "entity-is-sentence": "An end of the fact that should be a name is a sentence.",
}

_SHORTEST = {"passage": 10, "dialogue": 8, "exam": 3, "preference": 8}  # characters, over all texts of a record
# Reasons that hold for training text only.
_TRAINING = ("not-chinese", "mostly-symbols", "only-courtesy", "machine-reworded")
_HAN = 20  # one character of so many is Han
_REPEATED = 0.85  # share of a text that stood shortly before
_REPEATED_FROM = 120  # bytes, 40 Han characters: what is shorter may well say 好的好的


def verdicts(shape: str, table: pa.Table, *, trains: bool = True) -> pa.StringArray:
    """The reason why each row of a cleaned table is rejected, null where it is kept.

    trains: False for rows that are only evaluated on: formulas and other languages are no fault there.

    >>> row = {"id": "a/1", "split": "train", "text": "暂无相关资料。", "title": ""}
    >>> verdicts("passage", pa.Table.from_pylist([row])).to_pylist()
    ['placeholder']
    """
    if not len(table):
        return pa.array([], pa.string())
    columns = {name: column.combine_chunks() for name, column in zip(table.column_names, table.columns, strict=True)}
    view = _VIEWS[shape](columns)
    rules = _RULES[shape]
    verdict = np.full(len(table), -1, np.int8)
    for number, slug in enumerate(REASONS):
        if slug in rules and (trains or slug not in _TRAINING):
            verdict[(verdict < 0) & rules[slug](view)] = number
    names = pa.array(list(REASONS))
    return names.take(pa.array(verdict, mask=verdict < 0))


@dataclass(frozen=True)
class _View:
    """A table as the rules see it.

    texts: every text of every row, `row` the row it belongs to, ascending. asked, answer: one text a row: what comes
    last of the question and of the answer ("" where the shape has none). columns: the table's own.
    """

    columns: dict[str, Any]
    texts: pa.Array
    row: Codes
    asked: pa.Array
    answer: pa.Array

    @cached_property
    def kinds(self) -> NDArray[np.int32]:
        """How many characters of each kind every text has."""
        return census(self.texts)

    @cached_property
    def length(self) -> Codes:
        """Characters a text."""
        length: Codes = self.kinds.sum(axis=1)
        return length

    def any(self, mask: Mask) -> Mask:
        """Which rows have a text in the mask."""
        found: Mask = np.bincount(self.row[mask], minlength=len(self.asked)) > 0
        return found

    def total(self, numbers: Codes) -> Codes:
        """The sum over the texts of each row."""
        return np.bincount(self.row, weights=numbers, minlength=len(self.asked)).astype(np.int64)


def _numpy(mask: pa.Array) -> Mask:
    found: Mask = mask.to_numpy(zero_copy_only=False)
    return found


def _has(texts: pa.Array, pattern: str) -> Mask:
    return _numpy(pc.match_substring_regex(texts, pattern))


def _often(texts: pa.Array, pattern: str) -> Mask:
    """As `_has`, for a column in which the same texts come again and again."""
    distinct = texts.dictionary_encode()
    found: Mask = _has(distinct.dictionary, pattern)[distinct.indices]
    return found


def _lists(column: pa.ListArray) -> tuple[Codes, pa.Array]:
    """Offsets from 0, and the strings in a list column, of options or of turns."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = column.flatten()
    return offsets - offsets[0], values if pa.types.is_string(values.type) else values.field("content")


def _at(values: pa.Array, offsets: Codes, from_end: int) -> pa.Array:
    """The from_end-th last value of each list, "" where it is shorter."""
    place = offsets[1:] - from_end
    return pc.fill_null(values.take(pa.array(place, mask=place < offsets[:-1])), "")


def _side_by_side(*parts: tuple[Codes, pa.Array]) -> tuple[pa.Array, Codes]:
    """All (rows, texts) in one array, ordered by row."""
    row = np.concatenate([number for number, _ in parts])
    order = np.argsort(row, kind="stable")
    return pa.concat_arrays([texts for _, texts in parts]).take(pa.array(order)), row[order]


def _passage_view(columns: dict[str, Any]) -> _View:
    text = columns["text"]
    return _View(columns, text, np.arange(len(text)), pa.repeat("", len(text)), text)


def _dialogue_view(columns: dict[str, Any]) -> _View:
    offsets, contents = _lists(columns["turns"])
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return _View(columns, contents, row, _at(contents, offsets, 2), _at(contents, offsets, 1))


def _exam_view(columns: dict[str, Any]) -> _View:
    question, rows = columns["question"], len(columns["question"])
    offsets, options = _lists(columns["options"])
    row = np.repeat(np.arange(rows), np.diff(offsets))
    texts, row = _side_by_side((np.arange(rows), question), (row, options))
    return _View(columns, texts, row, question, pa.repeat("", rows))


def _preference_view(columns: dict[str, Any]) -> _View:
    rows = len(columns["chosen"])
    offsets, prompt = _lists(columns["prompt"])
    row, every = np.repeat(np.arange(rows), np.diff(offsets)), np.arange(rows)
    texts, row = _side_by_side((row, prompt), (every, columns["chosen"]), (every, columns["rejected"]))
    return _View(columns, texts, row, _at(prompt, offsets, 1), columns["chosen"])


def _fact_view(columns: dict[str, Any]) -> _View:
    """Only the ends count as texts; `answer` is the tail."""
    rows = len(columns["head"])
    texts, row = _side_by_side((np.arange(rows), columns["head"]), (np.arange(rows), columns["tail"]))
    return _View(columns, texts, row, pa.repeat("", rows), columns["tail"])


def _empty(view: _View) -> Mask:
    blank = view.any(_numpy(pc.or_(pc.ascii_is_space(view.texts), pc.equal(view.texts, ""))))
    none: Mask = np.bincount(view.row, minlength=len(view.asked)) == 0
    return blank | none


def _placeholder(view: _View) -> Mask:
    return _has(view.asked, signs.PLACEHOLDER) | _has(view.answer, signs.PLACEHOLDER)


def _nothing_said(view: _View) -> Mask:
    """As above, but where a conversation goes on, 没有 is what the patient has to say."""
    short = np.bincount(view.row, minlength=len(view.asked)) < 4
    return (_has(view.asked, signs.PLACEHOLDER) & short) | _has(view.answer, signs.PLACEHOLDER)


def _short(shape: str) -> Callable[[_View], Mask]:
    return lambda view: view.total(view.length) < _SHORTEST[shape]


def _foreign(view: _View) -> Mask:
    shown = view.length - view.kinds[:, BLANK] - view.kinds[:, LINE]
    return ~view.any(_HAN * view.kinds[:, HAN] >= np.maximum(shown, 1))


def _symbols(view: _View) -> Mask:
    # Only rows where not even half of the characters are sure to be letters need the slow look.
    letters = view.kinds[:, HAN] + view.kinds[:, LATIN] + view.kinds[:, LETTER]
    places = np.flatnonzero((view.total(2 * letters - view.length) < 0)[view.row])
    texts = view.texts.take(pa.array(places))
    shown = pc.utf8_length(texts).to_numpy() - pc.count_substring_regex(texts, r"\s").to_numpy()
    surplus = np.zeros(len(view.texts), np.int64)
    surplus[places] = 2 * pc.count_substring_regex(texts, signs.SYMBOL).to_numpy() - shown
    found: Mask = view.total(surplus) > 0
    return found


def _repeated(view: _View) -> Mask:
    repeats, seen = np.zeros(len(view.texts), np.bool_), (np.full(4096, -1, np.int64), np.zeros(4096, np.uint64))
    _repeats(*buffers(view.texts), seen, repeats)
    return view.any(repeats)


@njit(cache=True, nogil=True)
def _repeats(offsets: Any, data: Any, seen: Any, repeats: Any) -> None:
    """Fills in which texts of the least size or more stood, in 12-byte grams (4 Han characters), within the 192 bytes
    before.

    seen: of 4,096 hashes the last place (-1 at first), and the hash; a clash can only hide a repeat, since the hash
    itself is compared. A text is given up once too many grams are new: few are read to the end.
    """
    size, near, (places, hashes) = 12, 192, seen
    base = np.uint64(0x100000001B3)
    top = np.uint64(1)
    for _ in range(size):
        top *= base
    for row in range(len(repeats)):
        start, stop = offsets[row], offsets[row + 1]
        if stop - start < _REPEATED_FROM:
            continue
        grams, new = stop - start - size + 1, 0
        most = grams - int(_REPEATED * grams) + 1  # one to spare for rounding
        h = np.uint64(0)
        for place in range(start, stop):
            h = h * base + np.uint64(data[place])
            if place - start >= size:
                h -= top * np.uint64(data[place - size])
            if place - start >= size - 1:
                slot = np.int64((h * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(52))
                new += places[slot] < max(start, place - near) or hashes[slot] != h
                if new > most:
                    break
                places[slot] = place
                hashes[slot] = h
        repeats[row] = (grams - new) / grams > _REPEATED


def _few_options(view: _View) -> Mask:
    return np.diff(_lists(view.columns["options"])[0]) < 2


def _equal_options(view: _View) -> Mask:
    # Signs tell options apart (<5 and >5), so nothing but blanks is taken off here.
    offsets, options = _lists(view.columns["options"])
    rows = len(offsets) - 1
    row = np.repeat(np.arange(rows), np.diff(offsets))
    codes = pc.replace_substring_regex(options, r"\s+", "").dictionary_encode().indices.to_numpy().astype(np.int64)
    order = np.lexsort((codes, row))
    twice = (np.diff(codes[order]) == 0) & (np.diff(row[order]) == 0)
    found: Mask = np.bincount(row[order][1:][twice], minlength=rows) > 0
    return found


def _no_such_option(view: _View) -> Mask:
    answer = view.columns["answer"]
    starts, data = buffers(answer)
    letters = data[starts[0] : starts[-1]].astype(np.int64) - ord("A")
    row = np.repeat(np.arange(len(answer)), np.diff(starts))
    options = np.diff(_lists(view.columns["options"])[0])
    wrong = (letters < 0) | (letters >= options[row])
    found: Mask = (np.bincount(row[wrong], minlength=len(answer)) > 0) | (np.diff(starts) == 0)
    return found


def _named(view: _View) -> Mask:
    """Whether the tail is a name: prose and values are told by their type."""
    return ~_numpy(pc.equal(view.columns["tail_type"], "text"))


def _noise(view: _View) -> Mask:
    named = _named(view)
    names, values = (view.answer.filter(pa.array(some)) for some in (named, ~named))
    tail = np.zeros(len(named), bool)
    tail[named] = _has(names, signs.NOISE) | _half(names)
    tail[~named] = _has(values, signs.VALUE_NOISE)
    return tail | _often(view.columns["head"], signs.NOISE)


def _half(texts: pa.Array) -> Mask:
    """Names that were cut in the middle of a bracket."""
    found = _has(texts, "[（(）)]")
    some = texts.filter(pa.array(found))
    opened, closed = (
        pc.add(pc.count_substring(some, wide), pc.count_substring(some, narrow)) for wide, narrow in ("（(", "）)")
    )
    found[found] = _numpy(pc.not_equal(opened, closed))
    return found


def _link(view: _View) -> Mask:
    return _often(view.columns["head"], signs.LINK) | (_named(view) & _has(view.answer, signs.LINK))


def _loop(view: _View) -> Mask:
    return _named(view) & alike(view.columns["head"], view.answer)


def _sentence(view: _View) -> Mask:
    def told(texts: pa.Array) -> Mask:
        length = pc.utf8_length(texts).to_numpy()
        found: Mask = length > 60
        long = np.flatnonzero(length > 15)
        found[long] |= _has(texts.take(pa.array(long)), "[。！？!?；;\n].")
        return found

    return told(view.columns["head"]) | (_named(view) & told(view.answer))


def _courtesy(view: _View) -> Mask:
    replies = _numpy(pc.equal(view.columns["turns"].flatten().field("role"), "assistant"))
    says = np.zeros(len(view.row), bool)
    says[replies] = ~_has(view.texts.filter(pa.array(replies)), signs.COURTESY)
    return ~view.any(says)


def _reworded(view: _View) -> Mask:
    offsets, contents = _lists(view.columns["turns"])
    return signs.reworded(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), contents))


_VIEWS: dict[str, Callable[[dict[str, Any]], _View]] = {
    "passage": _passage_view,
    "fact": _fact_view,
    "dialogue": _dialogue_view,
    "exam": _exam_view,
    "preference": _preference_view,
}
_COMMON: dict[str, Callable[[_View], Mask]] = {
    "empty-text": _empty,
    "placeholder": _placeholder,
    "mostly-symbols": _symbols,
    "repeated-text": _repeated,
    "not-chinese": _foreign,
}
_ANSWERED: dict[str, Callable[[_View], Mask]] = {
    "answer-is-url": lambda view: _has(view.answer, signs.URL),
    "answer-repeats-question": lambda view: alike(view.asked, view.answer),
}
_RULES: dict[str, dict[str, Callable[[_View], Mask]]] = {
    "passage": {**_COMMON, "too-short": _short("passage")},
    "dialogue": {
        **_COMMON,
        **_ANSWERED,
        "placeholder": _nothing_said,
        "only-courtesy": _courtesy,
        "too-short": _short("dialogue"),
        "machine-reworded": _reworded,
    },
    "exam": {
        **_COMMON,
        "too-short": _short("exam"),
        "too-few-options": _few_options,
        "duplicate-options": _equal_options,
        "answer-not-an-option": _no_such_option,
        "refers-to-figure": lambda view: _has(view.asked, signs.FIGURE),
        "lost-context": lambda view: _has(view.asked, signs.LOST),
    },
    "preference": {
        **_COMMON,
        **_ANSWERED,
        "too-short": _short("preference"),
        "chosen-equals-rejected": lambda view: alike(view.columns["chosen"], view.columns["rejected"]),
    },
    # A name can be Latin and a value a number: of the common rules only those that speak of any text.
    "fact": {
        "empty-text": _empty,
        "placeholder": _placeholder,
        "repeated-text": _repeated,
        "noise-entity": _noise,
        "entity-is-url": _link,
        "self-loop": _loop,
        "entity-is-sentence": _sentence,
    },
}
