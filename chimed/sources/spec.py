"""What a source is, and the helpers that turn its raw rows into bodies.

A source is one file in this package with a module-level `SOURCE`; its `parse` gets one raw row and returns the bodies
in it, or raises `RowError` with a reason slug. Readers (`chimed.sources.readers`) turn raw files into rows:

- tables and objects (csv, tsv, xlsx, Parquet, JSON array, JSON lines, JSON object of objects): a dict by column name;
  empty cells are "". A JSON object of objects gives its values, the key under "#key".
- plain text, as the source's `text` says: `{"text": …, "name": file stem}` a line, a blank-line separated paragraph,
  a block that begins at a line which `opens` matches, or a file.
- JSON arrays of strings where an object is expected: `{"#items": [...]}`.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from chimed.errors import RowError
from chimed.records import Body, Dialogue, Exam, Passage, Preference, Role, Split, Turn
from chimed.sources.origins import Origin

Row = dict[str, Any]
Parse = Callable[[Row], Iterable[Body]]
Stage = Literal["cpt", "sft", "dpo", "eval", "rag"]
STAGES: tuple[Stage, ...] = ("cpt", "sft", "dpo", "eval", "rag")


@dataclass(frozen=True, slots=True)
class Many:
    """Rows that follow each other, parsed at once: each gave one body of a shape, or is left to be parsed alone.

    columns: the bodies, as the columns of their shape behind id and split. alone: row by its place among all of them.
    """

    count: int
    shape: str
    columns: tuple[pa.Array, ...]
    alone: Mapping[int, Row]


AtOnce = Callable[[bytes, str], Many | None]


@dataclass(frozen=True, slots=True)
class Lookup:
    """Files that say more about the rows of other files: they give no rows, but join those by a key that both have.

    files: globs, as those of `Source.files`; a file that matches one is looked up and not read for rows.
    into: globs of the files whose rows are joined. A row without the column `key` is left as it is; one whose key does
        not stand in the looked-up files, or for which there are none, is rejected as `not-joined`.
    columns: column of the looked-up file -> name under which the row gets its value, where it has nothing there itself.
    split: the split of the rows whose key stands in these files: of several, test before validation before train.
    held: column of a row whose text must not train where its evaluation item cannot be joined, as `RowError.held`.
    """

    files: tuple[str, ...]
    into: tuple[str, ...]
    key: str
    columns: Mapping[str, str] = field(default_factory=dict)
    split: Split | None = None
    held: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One upstream data set.

    files: glob below RAW/<name>/ (or below a zip member path) -> the split that upstream gives those rows. The first
        glob that matches a file decides. Archives (zip, gz, xz, zst) are seen through: `*.csv` matches `a.zip!b.csv`.
    text: how files that are plain text are cut into rows; tables and JSON are recognised by content, not extension.
    named: whether rows of tables carry the name of their file under "#file", for what only the name tells.
    opens: for text="blocks", the pattern that the first line of every block matches as a whole.
    at_once: what gives of whole lines of text, or for text="blocks" of whole blocks, as UTF-8, and the name of the file
        just what `parse` gives, faster; None where it cannot.
    lookups: what other files say about the rows of these: questions, keys or splits that upstream keeps apart.
    encoding: "auto" finds it out (UTF-8 with or without BOM, UTF-16, GB18030); name one only where that fails.
    max_rejects: share of rows that may be rejected before the build stops with examples.
    stages: where its rows may go by default; eval is decided by split alone.
    origin: where its files are published, for `chimed fetch`.
    """

    name: str
    title: str
    homepage: str
    license: str
    files: Mapping[str, Split]
    parse: Parse
    shapes: tuple[str, ...]
    stages: tuple[Stage, ...]
    text: Literal["lines", "paragraphs", "blocks", "file"] = "lines"
    opens: str = ""
    at_once: AtOnce | None = None
    named: bool = False
    lookups: tuple[Lookup, ...] = ()
    encoding: str = "auto"
    max_rejects: float = 0.2
    origin: Origin = field(default_factory=Origin)


def first(row: Row, *names: str) -> str:
    """The text under the first of these names that holds any: numbers become text, None and NaN become "".

    >>> first({"anwer": "(A)"}, "answer", "anwer")
    '(A)'
    """
    for name in names:
        value = row.get(name)
        if isinstance(value, str):
            text = value.strip()
        elif value is None or (isinstance(value, float) and math.isnan(value)):
            continue
        else:
            text = str(value).strip()
        if text:
            return text
    return ""


def need(row: Row, *names: str) -> str:
    """Like `first`, but a row without it is rejected as `no-<first name>`.

    >>> need({"q": " "}, "question", "q")
    Traceback (most recent call last):
    chimed.errors.RowError: no-question: found the columns q
    """
    text = first(row, *names)
    if not text:
        raise RowError(f"no-{names[0].lower().replace('_', '-')}", f"found the columns {', '.join(map(str, row))}")
    return text


ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "input": "user",
    "patient": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "output": "assistant",
    "doctor": "assistant",
}


def conversation(turns: Iterable[tuple[str, str]]) -> tuple[Turn, ...]:
    """Turns from (role, content) pairs: roles of every upstream dialect, blank turns left out, neighbours of one role
    merged, whatever follows the last reply cut off.

    Raises RowError `unknown-role`, or `no-answer` when no reply to a user turn remains.
    """
    said: list[Turn] = []
    last: Role | None = None
    for name, content in turns:
        role = ROLES.get(name) or ROLES.get(name.strip().lower())
        if role is None:
            raise RowError("unknown-role", f"found {name!r}; known are {', '.join(ROLES)}")
        if not (text := content.strip()):
            continue
        if role != last:
            said.append(Turn(role, text))
            last = role
        else:
            said[-1] = Turn(role, f"{said[-1].content}\n{text}")
    while said and said[-1].role != "assistant":
        said.pop()
    if said and said[0].role == "user":  # as most do
        return tuple(said)
    start = 0
    while start < len(said) and said[start].role != "user":
        start += 1
    if start == len(said):
        raise RowError("no-answer", f"{start} turns without a reply")
    if lead := "\n".join([turn.content for turn in said[:start] if turn.role == "system"]):
        start -= 1
        said[start] = Turn("system", lead)
    return tuple(said[start:])


def passage(text: str = "text", title: str = "title") -> Parse:
    """A parser for rows with a column of text and perhaps a title."""

    def parse(row: Row) -> Iterable[Body]:
        return (Passage(need(row, text, "text"), first(row, title)),)

    return parse


def dialogue(question: str, answer: str, context: str = "", department: str = "") -> Parse:
    """A parser for rows with a question and an answer; `context` is a second column of the question."""

    def parse(row: Row) -> Iterable[Body]:
        asked = need(row, question)
        more = first(row, context) if context else ""
        if more and more not in asked:
            asked = more if asked in more else f"{asked}\n{more}"
        turns = conversation((("user", asked), ("assistant", need(row, answer))))
        return (Dialogue(turns, first(row, department) if department else ""),)

    return parse


def preference(question: str, chosen: str, rejected: str) -> Parse:
    """A parser for rows with a question and two replies."""

    def parse(row: Row) -> Iterable[Body]:
        return (Preference((Turn("user", need(row, question)),), need(row, chosen), need(row, rejected)),)

    return parse


def letters(answer: str, options: int) -> str:
    """The answer key as sorted letters, from "BD", "B,D", "(B)" or "答案：BD".

    >>> letters("（D）、B", 5)
    'BD'
    """
    found = sorted({c for c in answer.upper() if "A" <= c <= "Z"})
    allowed = "ABCDEFGHIJ"[:options]
    if not found:
        raise RowError("no-answer", f"found {answer[:40]!r}")
    if any(c not in allowed for c in found):
        raise RowError("answer-not-an-option", f"found {''.join(found)}, the options are {allowed}")
    return "".join(found)


def exam(question: str, options: str, answer: str, explanation: str = "", **more: str) -> Parse:
    """A parser for exam rows whose options stand in one column: a list, an object by letter, or lines "A xx".

    `more` names the columns of the other fields of `Exam`: department="Clinical Department".
    """

    def parse(row: Row) -> Iterable[Body]:
        choices = split_options(row.get(options))
        return (
            Exam(
                question=need(row, question),
                options=choices,
                answer=letters(need(row, answer), len(choices)),
                explanation=first(row, explanation) if explanation else "",
                **{field: first(row, column) for field, column in more.items()},
            ),
        )

    return parse


_LETTERED = re.compile(r"[(（]?([A-J])[)）]?[\s.．、:：]\s*|[(（]([A-J])[)）]\s*")


def split_options(value: object) -> tuple[str, ...]:
    """Options without their letters, in order: from a list, an object by letter, or text with one a line.

    Lines are parted by newlines or by a literal backslash-n, as CMExam's spreadsheet has them; a line that carries no
    letter goes on with the option before it. Raises RowError `no-options` or `options-out-of-order`.

    >>> split_options("A 原发病\\\\nB 出血部位")
    ('原发病', '出血部位')
    """
    if isinstance(value, Mapping):
        keys = sorted(key for key, text in value.items() if str(text or "").strip())
        if [key.strip().upper() for key in keys] != list("ABCDEFGHIJ"[: len(keys)]):
            raise RowError("options-out-of-order", f"found the letters {', '.join(keys)}")
        return tuple(str(value[key]).strip() for key in keys)
    if isinstance(value, list | tuple):
        lines = [str(item).strip() for item in value]
    else:
        lines = [line.strip() for line in str(value or "").replace("\\n", "\n").splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise RowError("no-options")
    marks = [_LETTERED.match(line) for line in lines]
    if not marks[0]:
        return tuple(lines)
    options: list[str] = []
    for line, mark in zip(lines, marks, strict=True):
        letter = (mark.group(1) or mark.group(2)) if mark else ""
        if mark and letter == "ABCDEFGHIJ"[len(options) : len(options) + 1]:
            options.append(line[mark.end() :])
        elif mark and letter not in "ABCDEFGHIJ"[: len(options)]:
            raise RowError("options-out-of-order", f"found {letter} after {len(options)} options")
        else:
            options[-1] += line
    return tuple(options)
