"""Data as text of a Markdown page: nothing in a name, a reason or a row acts on the page around it."""

import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from chimed.publish.figures import visible

TEXT = 300  # characters of a text of an example
ITEMS = 6  # turns or options of an example
_MARKS = re.compile(r"([\\`*_\[\]|~$])")
_ADDRESS = re.compile(r"https?://[\w.~:/?#@!&=+,;%-]+", re.ASCII)


def words(text: str, limit: int = 200) -> str:
    r"""Data as words of a line.

    >>> print(words("<b>一|二*\n\x1b[1m"))
    &lt;b&gt;一\|二\* ␛\[1m
    """
    return _MARKS.sub(r"\\\1", escape(visible(_line(text), limit), quote=False))


def code(text: str, limit: int = 120) -> str:
    r"""Data in the type of code, inside a table or out of it.

    >>> print(code("a`b|<i>"))
    `a'b\|<i>`
    """
    plain = visible(_line(text), limit).replace("`", "'").replace("|", r"\|")
    return f"`{plain or ' '}`"


def _line(text: str) -> str:
    return " ".join(text.splitlines()).replace("\t", " ")


def link(text: str, address: str) -> str:
    """Words that lead to a web page, or the words alone where the address is none.

    >>> link("CMExam", "https://github.com/williamliujl/CMExam"), link("x", "javascript:alert(1)")
    ('[CMExam](https://github.com/williamliujl/CMExam)', 'x')
    """
    return f"[{words(text)}]({address})" if _ADDRESS.fullmatch(address) else words(text)


def table(head: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> list[str]:
    """The lines of a table between two blank ones; numbers get commas, the first `left` columns stand to the left.

    >>> print("".join(table(["split", "rows"], [["train", 1234]])))
    | split | rows ||---|---:|| train | 1,234 |
    """
    ruler = "|".join("---" if place < left else "---:" for place in range(len(head)))
    cells = [[f"{value:,}" if isinstance(value, int | float) else str(value) for value in row] for row in rows]
    return ["", f"| {' | '.join(head)} |", f"|{ruler}|", *(f"| {' | '.join(row)} |" for row in cells), ""]


def example(row: dict[str, Any]) -> list[str]:
    r"""A row as a block of JSON, long texts and lists cut: no line of it can end the block, nor be anything but text.

    >>> print("\n".join(example({"text": "```\n---\n<b>", "part": 1})))
    ```json
    {
     "text": "```\n---\n<b>",
     "part": 1
    }
    ```
    """
    told = json.dumps({name: _cut(value) for name, value in row.items()}, ensure_ascii=False, indent=1)
    return ["```json", *told.split("\n"), "```"]


def _cut(value: Any) -> Any:
    match value:
        case str():
            # Line ends and tabs stay: JSON writes them as \n and \t.
            return visible(value, TEXT)
        case dict():
            return {name: _cut(inner) for name, inner in value.items()}
        case list():
            more = [f"… ({len(value)} in all)"] if len(value) > ITEMS else []
            return [*(_cut(inner) for inner in value[:ITEMS]), *more]
        case _:
            return value
