"""What each training stage reads: the columns of its datasets, and how rows of every shape become rows of a stage.

    stage  columns                                        fed by
    cpt    id, source, text                               passages, documents of graphs, dialogues, exams
    sft    id, source, messages                           dialogues, exams, questions on graphs
    dpo    id, source, prompt, chosen, rejected, kind     preferences
    eval   id, source, kind, question, options, answer …  exams, dialogues
    rag    id, source, title, text, part                  passages, documents of graphs, dialogues, exam explanations

`messages`, `prompt`, `chosen` and `rejected` are lists of {"role", "content"}: the conversational formats of TRL.
Everything works on whole columns; a row reads the same whatever rows stand beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from chimed import phrases
from chimed.cuts import cut
from chimed.dedup.minhash import buffers
from chimed.phrases import Codes, fill, pick
from chimed.records import TURNS
from chimed.sources.spec import STAGES, Stage

__all__ = ["COLUMNS", "STAGES", "Measured", "Stage", "measure", "render", "serves", "texts"]

_TEXT = pa.string()
_FIELDS = ("department", "discipline", "competency", "disease_group", "difficulty")
_ROW = [("id", _TEXT), ("source", _TEXT)]
COLUMNS: dict[Stage, pa.Schema] = {
    "cpt": pa.schema([*_ROW, ("text", _TEXT)]),
    "sft": pa.schema([*_ROW, ("messages", TURNS)]),
    "dpo": pa.schema([*_ROW, ("prompt", TURNS), ("chosen", TURNS), ("rejected", TURNS), ("kind", _TEXT)]),
    # kind "exam": answer holds the letters of the right options. kind "open": answer is a reference text, options are
    # empty, and messages are the turns before the question.
    "eval": pa.schema(
        [
            *[*_ROW, ("kind", _TEXT), ("question", _TEXT), ("options", pa.list_(_TEXT)), ("answer", _TEXT)],
            *[("explanation", _TEXT), ("messages", TURNS), *((name, _TEXT) for name in _FIELDS)],
        ]
    ),
    "rag": pa.schema([*_ROW, ("title", _TEXT), ("text", _TEXT), ("part", pa.int32())]),
}
_SERVES: dict[Stage, tuple[str, ...]] = {
    "cpt": ("passage", "fact", "dialogue", "exam"),
    "sft": ("fact", "dialogue", "exam"),
    "dpo": ("preference",),
    "eval": ("dialogue", "exam"),
    "rag": ("passage", "fact", "dialogue", "exam"),
}
BRIEF = 3  # one explained exam item in so many is asked for its letters alone: what evaluations ask for
_REPLY = 20  # characters from which a reply is worth retrieving
_TITLE = 200  # characters up to which a question can be a title; what is longer is a task with its material
_FAREWELL = "谢|明白|知道了|了解了|好的|再见|会的|按照|遵"
_THANKS = (
    r"^[\s\p{P}]*(好的?|嗯+|哦+|明白了?|知道了|了解了?)?[\s\p{P}]*(非常感谢|感谢|谢谢|我明白|我会)"
    r"|^[\s\p{P}]*(好的?|嗯+|行)[\s\p{P}]*$"
)
_ASKS_ON = "[?？]|吗|怎么|如何|请问|请教|想问|想了解|想知道|告诉我"  # behind thanks 是否, 什么 need not ask
_ASKS = "[?？]|吗|呢|怎|什么|如何|哪|多少|几|为何|是否|能不能|可不可|要不要|请问|请教|想问"
_LED = "^[【\\[]?(解析|答案|本题|考点|分析)"

# Columns that hold no text a person reads, but names and labels.
_UNREAD = {"id", "source", "kind", "part", *_FIELDS}

Columns = dict[str, Any]


def serves(stage: Stage) -> tuple[str, ...]:
    """The shapes that feed a stage; facts feed it as `graph.documents` (cpt, rag) or `graph.questions` (sft).

    >>> serves("dpo")
    ('preference',)
    """
    return _SERVES[stage]


def render(stage: Stage, shape: str, table: pa.Table, *, length: int = 512) -> pa.Table:
    """The rows of a stage made from kept rows of a shape, in order; a shape that does not serve it gives none.

    `table` has the columns of the shape; for "fact" it is what `graph.documents` or `graph.questions` made. `length` is
    the most characters a passage of the rag stage has; longer texts become several rows "<id>@<part>".

    >>> row = {"id": "a/1", "split": "train", "text": "百日咳是急性呼吸道传染病。", "title": "百日咳概述"}
    >>> render("cpt", "passage", pa.Table.from_pylist([row]))["text"].to_pylist()
    ['百日咳概述\\n百日咳是急性呼吸道传染病。']
    """
    if shape not in _SERVES[stage] or not len(table):
        return COLUMNS[stage].empty_table()
    table = table.combine_chunks()
    columns = {name: table[name].chunk(0) for name in table.column_names}
    columns["source"] = pc.replace_substring_regex(columns["id"], "/(.|\n)*", "")
    match stage:
        case "cpt":
            columns["text"] = _text(shape, columns)
        case "sft":
            columns["messages"] = _messages(shape, columns)
        case "dpo":
            columns |= {name: _replies(columns[name]) for name in ("chosen", "rejected")}
            columns["kind"] = _same("given", len(table))
        case "eval":
            columns |= _item(shape, columns)
        case "rag":
            columns = _passages(columns["id"], columns["source"], *_passage(shape, columns), length)
    schema = COLUMNS[stage]
    return pa.Table.from_arrays([columns[name].cast(schema.field(name).type) for name in schema.names], schema=schema)


def _same(value: str, rows: int) -> pa.Array:
    return pa.repeat(value, rows)


def _joined(*columns: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*columns, "")


def _mask(column: pa.Array) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = column.to_numpy(zero_copy_only=False)
    return mask


def _list(offsets: Codes, values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _parts(column: pa.ListArray) -> tuple[Codes, pa.Array]:
    """The offsets of a list column, from 0, and its values."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0], column.flatten()


def _turns(offsets: Codes, roles: pa.Array, contents: pa.Array) -> pa.ListArray:
    struct = pa.StructArray.from_arrays([roles, contents], fields=list(TURNS.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), struct, type=TURNS)


def _replies(contents: pa.Array) -> pa.ListArray:
    return _turns(np.arange(len(contents) + 1), _same("assistant", len(contents)), contents)


def _exchange(asked: pa.Array, answer: pa.Array) -> pa.ListArray:
    """A question and its answer as two turns a row."""
    rows = len(asked)
    contents = pa.concat_arrays([asked, answer]).take(pa.array(np.arange(2 * rows).reshape(2, rows).T.ravel()))
    roles = pa.array(["user", "assistant"]).take(pa.array(np.arange(2 * rows) % 2))
    return _turns(np.arange(0, 2 * rows + 1, 2), roles, contents)


def _text(shape: str, columns: Columns) -> pa.Array:
    """Running text for continued pre-training."""
    match shape:
        case "passage":
            title, text = columns["title"], columns["text"]
            named = pc.and_(pc.not_equal(title, ""), pa.array(~_opens_with(*buffers(text), *buffers(title))))
            return _joined(pc.if_else(named, _joined(title, "\n"), ""), text)
        case "dialogue":
            return _transcript(columns)
        case "exam":
            asked = _exam(columns, phrases.EXAM_TEXT, phrases.EXAM_TEXT)
            return _joined(asked, _solution(columns))
        case _:
            return columns["text"]


@njit(cache=True, nogil=True)
def _opens_with(offsets: Any, data: Any, title_offsets: Any, title_data: Any) -> Any:
    out = np.zeros(len(offsets) - 1, np.bool_)
    for row in range(len(out)):
        size = title_offsets[row + 1] - title_offsets[row]
        same = offsets[row + 1] - offsets[row] >= size
        place = 0
        while same and place < size:
            same = data[offsets[row] + place] == title_data[title_offsets[row] + place]
            place += 1
        out[row] = same
    return out


def _transcript(columns: Columns) -> pa.Array:
    """A conversation as lines with labels; several turns with a department are labelled as patient and doctor."""
    offsets, turns = _parts(columns["turns"])
    of_row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    styles = [*phrases.NEUTRAL, *phrases.CLINICAL]
    labels = ["", *(label for style in styles for label in style)]
    role, content = turns.field("role"), turns.field("content")
    several = np.diff(offsets) > 2
    clinical = several & _mask(pc.not_equal(columns["department"], ""))
    neutral = len(phrases.NEUTRAL)
    style = pick(columns["id"], np.where(clinical, len(phrases.CLINICAL), neutral), "label") + clinical * neutral
    label = 1 + 2 * style[of_row] + _mask(pc.equal(role, "assistant"))
    label[_mask(pc.equal(role, "system"))] = 0
    lines = _joined(pa.array(labels).take(pa.array(label)), content)
    return pc.binary_join(_list(offsets, lines), "\n")


def _lettered(columns: Columns) -> tuple[Codes, pa.Array]:
    """Options with their letters: offsets and values."""
    offsets, options = _parts(columns["options"])
    number = np.arange(len(options)) - np.repeat(offsets[:-1], np.diff(offsets))
    return offsets, _joined(pa.array([f"{letter}. " for letter in "ABCDEFGHIJ"]).take(pa.array(number)), options)


def _answer(columns: Columns) -> pa.Array:
    """The right options with their letters, as the end of a sentence: "B. 出血部位；D. 原发病。"."""
    starts, data = buffers(columns["answer"])
    chosen = data[starts[0] : starts[-1]].astype(np.int64) - ord("A")
    starts = starts - starts[0]
    of_row = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    offsets, options = _lettered(columns)
    if np.any((chosen < 0) | (chosen >= np.diff(offsets)[of_row])):
        raise ValueError("an exam answer names a letter that is no option: only kept rows can be rendered")
    right = pc.utf8_rtrim(options.take(pa.array(offsets[:-1][of_row] + chosen)), "。；;")
    return _joined(pc.binary_join(_list(starts, right), "；"), "。")


def _exam(columns: Columns, explained: tuple[str, ...], bare: tuple[str, ...]) -> pa.Array:
    """An exam item put in the words of a template; `bare` holds those for items without an explanation."""
    offsets, options = _lettered(columns)
    several = _mask(pc.greater(pc.utf8_length(columns["answer"]), 1))
    has = _mask(pc.not_equal(columns["explanation"], ""))
    which = pick(columns["id"], np.where(has, len(explained), len(bare)), "exam") + np.where(has, 0, len(explained))
    return fill(
        [*explained, *bare],
        which,
        question=columns["question"],
        options=pc.binary_join(_list(offsets, options), "\n"),
        kind=pa.array(phrases.EXAM_KINDS).take(pa.array(several.astype(np.int8))),
        answer=_answer(columns),
    )


def _solution(columns: Columns) -> pa.Array:
    """The explanation on a line of its own, led by 解析 unless it brings its own lead; "" where there is none."""
    explanation = columns["explanation"]
    lead = pc.if_else(pc.match_substring_regex(explanation, _LED), "\n", "\n解析：")
    return pc.if_else(pc.equal(explanation, ""), "", _joined(lead, explanation))


def _messages(shape: str, columns: Columns) -> pa.ListArray:
    """Conversations for fine-tuning."""
    match shape:
        case "dialogue":
            return columns["turns"]
        case "exam":
            # The letter first: what the answer is must not hang on how long the explanation is allowed to be.
            which = pick(columns["id"], len(phrases.EXAM_ANSWER), "answer")
            answer = fill(phrases.EXAM_ANSWER, which, answer=_answer(columns))
            asked = _exam(columns, phrases.EXAM_EXPLAINED, phrases.EXAM_BARE)
            return _briefly(columns, asked, _joined(answer, _solution(columns)))
        case _:
            return _exchange(columns["question"], columns["answer"])


def _briefly(columns: Columns, asked: pa.Array, told: pa.Array) -> pa.ListArray:
    """Exam items as conversations: one explained item in BRIEF is asked for its letters first, and then why."""
    rows = len(asked)
    brief = (pick(columns["id"], BRIEF, "brief") == 0) & _mask(pc.not_equal(columns["explanation"], ""))
    short = pa.array(brief)
    letters = _exam(columns, phrases.EXAM_BRIEF, phrases.EXAM_BRIEF)
    why = pa.array(phrases.EXAM_WHY).take(pa.array(pick(columns["id"], len(phrases.EXAM_WHY), "why")))
    turns = [pc.if_else(short, letters, asked), pc.if_else(short, columns["answer"], told), why, told]
    place = np.arange(4 * rows).reshape(4, rows).T[np.stack([brief | True, brief | True, brief, brief], 1)]
    ends = np.append(0, np.cumsum(2 + 2 * brief))
    roles = pa.array(["user", "assistant"]).take(pa.array(np.arange(ends[-1]) % 2))
    return _turns(ends, roles, pa.concat_arrays(turns).take(pa.array(place)))


def _item(shape: str, columns: Columns) -> Columns:
    """Evaluation items; a dialogue is asked from the last of its user turns that asks for anything but leave."""
    rows = len(columns["id"])
    nothing = np.zeros(rows + 1, np.int64)
    if shape == "exam":
        return {"kind": _same("exam", rows), "messages": _turns(nothing, *[pa.array([], _TEXT)] * 2)}
    offsets, turns = _parts(columns["turns"])
    role, content = turns.field("role"), turns.field("content")
    user = _mask(pc.equal(role, "user"))
    leaves = np.zeros(len(turns), bool)
    for farewell, question in ((_FAREWELL, _ASKS), (_THANKS, _ASKS_ON)):
        said, asked = (_mask(pc.match_substring_regex(content, pattern)) for pattern in (farewell, question))
        leaves |= said & ~asked
    place = np.arange(len(turns))
    last = np.maximum.reduceat(np.where(user, place, -1), offsets[:-1])
    asks = np.maximum.reduceat(np.where(user & ~leaves, place, -1), offsets[:-1])
    asks = np.where(asks >= offsets[:-1], asks, last)
    before = asks - offsets[:-1]
    starts = np.append(0, np.cumsum(before))
    earlier = pa.array(np.arange(starts[-1]) + np.repeat(offsets[:-1] - starts[:-1], before))
    return {
        "kind": _same("open", rows),
        "question": content.take(pa.array(asks)),
        "options": _list(nothing, pa.array([], _TEXT)),
        "answer": content.take(pa.array(asks + 1)),
        "explanation": _same("", rows),
        "messages": _turns(starts, role.take(earlier), content.take(earlier)),
        **{name: columns.get(name, _same("", rows)) for name in _FIELDS},
    }


def _passage(shape: str, columns: Columns) -> tuple[pa.Array, pa.Array]:
    """(title, text) of what can be retrieved; text is "" where there is nothing.

    A dialogue is a passage only as one question, its title, and one answer of some length: later replies need what was
    said before them. An exam gives its explanation, without its question, which may be asked of the index.
    """
    rows = len(columns["id"])
    if shape == "exam":
        return _same("", rows), columns["explanation"]
    if shape != "dialogue":
        return columns["title"], columns["text"]
    offsets, turns = _parts(columns["turns"])
    first = pa.array(offsets[:-1])
    title, text = turns.field("content").take(first), turns.field("content").take(pa.array(offsets[1:] - 1))
    single = pc.and_(pa.array(np.diff(offsets) == 2), pc.equal(turns.field("role").take(first), "user"))
    fits = pc.and_(pc.greater_equal(pc.utf8_length(text), _REPLY), pc.less_equal(pc.utf8_length(title), _TITLE))
    return title, pc.if_else(pc.and_(single, fits), text, "")


def _passages(ids: pa.Array, source: pa.Array, title: pa.Array, text: pa.Array, length: int) -> Columns:
    rows = np.flatnonzero(_mask(pc.not_equal(text, "")))
    parts, counts = cut(text.take(pa.array(rows)), length)
    part = np.arange(len(parts)) - np.repeat(np.cumsum(counts) - counts, counts)
    of_row = pa.array(np.repeat(rows, counts))
    number = pa.array(part, pa.int32())
    return {
        "id": _joined(ids.take(of_row), "@", number.cast(_TEXT)),
        "source": source.take(of_row),
        "title": title.take(of_row),
        "text": parts,
        "part": number,
    }


@dataclass(frozen=True, slots=True)
class Measured:
    """Rows of a stage by the source of each and the characters of all its texts, roles and labels left out.

    foreign: how many hold no Han character. facts: how many were made from facts.
    """

    source: pa.DictionaryArray
    characters: NDArray[np.int32]
    foreign: int
    facts: int


def measure(rows: pa.RecordBatch) -> Measured:
    """What the rows of a stage are like.

    >>> row = {"id": "a/1", "source": "a", "messages": [{"role": "user", "content": "百日咳？"}]}
    >>> measure(pa.RecordBatch.from_pylist([row], COLUMNS["sft"])).characters.tolist()
    [4]
    """
    characters, han = np.zeros(len(rows), np.int32), np.zeros(len(rows), bool)
    for values, of_row in texts(rows):
        lengths = pc.utf8_length(values).to_numpy(zero_copy_only=False)
        characters += np.bincount(of_row, lengths, len(rows)).astype(np.int32)
        han[of_row[_mask(pc.match_substring_regex(values, r"\p{Han}"))]] = True
    facts = pc.sum(pc.match_substring(rows["id"], "/graph#")).as_py() or 0
    return Measured(rows["source"].dictionary_encode(), characters, int((~han).sum()), facts)


def texts(rows: pa.RecordBatch) -> Iterator[tuple[pa.Array, Codes]]:
    """The texts of each column of rows, nulls as "", and the row of each; roles and labels are left out."""
    for name in rows.schema.names:
        if name in _UNREAD:
            continue
        values, of_row = rows[name], np.arange(len(rows))
        if pa.types.is_list(values.type):
            of_row = np.repeat(of_row, pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False))
            values = values.flatten()
        if pa.types.is_struct(values.type):
            values = values.field("content")
        yield pc.fill_null(values, ""), of_row
