"""Rows from JSON that is too large to load: arrays, objects that hold rows, and objects one behind the other.

The text slides through a window; the C scanner of the standard library reads one value from it and says where it ends.
That is quicker than finding the ends first, and a value that is broken costs only itself: the next one is looked for
where the brackets close, or else where the opening of its neighbours comes again.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, cast

import orjson

from chimed.errors import RowError
from chimed.sources.encodings import LIMIT, decoded, lost, undecodable
from chimed.sources.spec import Row

_SCAN = json.JSONDecoder().raw_decode
_STRING = r'"(?:[^"\\]|\\.)*"'
_BLANK = re.compile(r"[\s,\ufeff]*")
_KEY = re.compile(rf"({_STRING})\s*:\s*", re.DOTALL)
_OPENING = re.compile(rf"\{{\s*{_STRING}\s*:", re.DOTALL)
_TOKEN = re.compile(rf"{_STRING}|[{{}}\[\]]", re.DOTALL)
_BARE_END = re.compile(r'[,\]}\[{"\n]')
_AFTER = re.compile(r"\s*(,|[\]}]|$)")
_TURNS = ({"role", "content"}, {"from", "value"}, {"speaker", "text"}, {"role", "text"})
_START = re.compile(rb'\s*(?:\[\s*)*(?:\{\s*(?:"(?:[^"\\]|\\.)*"\s*:|\}\s*$)|"(?:[^"\\]|\\.)*"\s*[,\]])', re.DOTALL)
_WAITS = 12  # the longest token that is broken only because the window ends in it: "\ud83d\ude00"


def is_json(head: bytes) -> bool:
    """Whether a file that begins so is JSON, as far as can be seen; prose in brackets is not.

    >>> is_json(b'[{"q": 1}, {"q"'), is_json(b"[1] Zhang et al., {2020}"), is_json(b"[1, 2]")
    (True, False, True)
    """
    start = head.lstrip()[:1]
    if start not in {b"[", b"{"}:
        return False
    if _START.match(head) and not (start == b"[" and not _array(head)):
        return True
    try:
        orjson.loads(head)
    except orjson.JSONDecodeError:
        return False
    return True


def _array(head: bytes) -> bool:
    """Whether what opens with a bracket goes on as an array, and nothing but JSON stands behind it, as far as seen."""
    text, _ = decoded(head)
    start = text.index("[")
    try:
        behind = text[_SCAN(text, start)[1] :].lstrip()
    except (ValueError, RecursionError):
        try:
            return bool(_AFTER.match(text, _SCAN(text, _BLANK.match(text, start + 1).end())[1]))  # type: ignore[union-attr]
        except (ValueError, RecursionError):
            return True
    return behind[:1] in {"", "[", "{", ","}


def lines_share(head: bytes, whole: bool) -> float:
    """The share of lines that are objects; the last line is left out of account unless the head is the `whole` file.

    >>> lines_share(b'{"a": 1}\\n{"a": 2', False), lines_share(b'[\\n{"a": 1}\\n]', True)
    (1.0, 0.0)
    """
    lines = [line.strip() for line in head.split(b"\n")]
    seen = [line for line in (lines if whole else lines[:-1]) if line]
    if not seen or seen[0].startswith(b"["):
        return 0.0
    return sum(line.startswith(b"{") and line.endswith(b"}") for line in seen) / len(seen)


def parse(line: bytes) -> Row | RowError:
    """The row of one JSON value in UTF-8.

    NaN and Infinity, which pandas writes, are taken; rejects are `broken-json`, `not-an-object`, `bad-encoding`
    and `nul-bytes`.

    >>> parse(b'{"text": NaN}'), parse(b'{"text": ')
    ({'text': nan}, RowError('broken-json: Expecting value at column 10'))
    """
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return undecodable(line) or _second_try(line.decode("utf-8").lstrip("\ufeff"))
    return value if type(value) is dict else _other(value)


def _second_try(text: str) -> Row | RowError:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as fault:
        return RowError("broken-json", f"{fault.msg} at column {fault.colno}")
    except (ValueError, RecursionError) as fault:
        return RowError("broken-json", str(fault)[:80])
    return _sound(value)


def _sound(value: Any) -> Row | RowError:
    """A value as a row, if it is one and has no lone surrogates."""
    row = value if type(value) is dict else _other(value)
    if isinstance(row, RowError):
        return row
    try:
        orjson.dumps(row)
    except TypeError:  # a lone surrogate, or a number that only JSON allows
        return lost(json.dumps(row, ensure_ascii=False)) or row
    return row


def _other(value: object) -> Row | RowError:
    """A value that is no object: an array of strings is a row all the same, under "#items"."""
    if type(value) is list and value and all(type(item) is str for item in value):
        return {"#items": value}
    kind = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}.get(type(value), "a number")
    return RowError("not-an-object", f"found {kind} where an object is expected")


class _Window:
    """Text that slides over chunks of UTF-8; what lies before `at` has been read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.text = ""
        self.at = 0
        self.more = True
        self.suspect = False  # undecodable bytes or lone surrogates may be about
        self.cut = False  # the end of the file cut a value off
        self._chunks = chunks
        self._rest = b""
        self._opening = ""

    def fill(self) -> bool:
        """Twice as much text as there is left; False when nothing is left to add."""
        left = self.text[self.at :]
        parts, room = [left], max(len(left), 1)
        while self.more and room > 0:
            chunk = next(self._chunks, None)
            self.more = chunk is not None
            data = self._rest + (chunk or b"")
            try:
                text, used = codecs.utf_8_decode(data, "strict", not self.more)
            except UnicodeDecodeError:
                text, used = codecs.utf_8_decode(data, "chimed.undecodable", not self.more)
                self.suspect = True
            self.suspect = self.suspect or ("\\u" in text and ("\\ud" in text or "\\uD" in text))
            self._rest = data[used:]
            parts.append(text)
            room -= len(text)
        self.text, self.at = "".join(parts), 0
        return len(self.text) > len(left)

    def skip(self) -> str:
        """The next character that is no blank or comma, "" at the end; `at` stands before it."""
        while True:
            self.at = _BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text) or not self.fill():
                return self.text[self.at : self.at + 1]

    def key(self) -> str | None:
        """The key of the member at `at`, which then stands before the value; None when there is none."""
        while True:
            found = _KEY.match(self.text, self.at)
            if found and (found.end() < len(self.text) or not self.more):
                self.at = found.end()
                try:
                    return str(json.loads(found[1], strict=False))
                except ValueError:
                    return found[1]
            if len(self.text) - self.at > LIMIT or not self.fill():
                return None

    def value(self, keyed: bool) -> Any:
        """The value at `at`, or the `RowError` of one that is broken; `at` then stands behind it."""
        while True:
            try:
                value, end = _SCAN(self.text, self.at)
            except (ValueError, RecursionError) as fault:
                where, what = _where(fault, self.at)
                if broken := self._broken(where, what, keyed):
                    return broken
                if not self.more:
                    self.cut = True
                    return self._reject(where - self.at, what, len(self.text))
            else:
                if end < len(self.text) or not self.more:
                    return self._taken(value, end)
            self.fill()

    def _taken(self, value: Any, end: int) -> Any:
        start, self.at = self.at, end
        if end - start > LIMIT:
            return RowError("row-too-large", f"{end - start:,} characters, the limit is {LIMIT:,}")
        if not self._opening and type(value) is dict and (found := _OPENING.match(self.text, start)):
            self._opening = found[0]
        return _sound(value) if self.suspect and type(value) is dict else value

    def _broken(self, where: int, what: str, keyed: bool) -> RowError | None:
        """The reject of a broken value, `at` moved behind it; None when more text may mend it or show its end."""
        text, start = self.text, self.at
        nearest = -1
        if not (self.more and _waits(text, where, what)):
            nearest = self._next(keyed, start + 1)
            end = _closed(text, start, nearest if nearest >= 0 else len(text))
            if nearest < 0 or (end >= 0 and _AFTER.match(text, end)):
                nearest = end
        if nearest < 0 and self.more and len(text) - start > LIMIT:
            return self._over(keyed)
        return None if nearest < 0 else self._reject(where - start, what, max(nearest, start + 1))

    def _reject(self, offset: int, what: str, end: int) -> RowError:
        start, self.at = self.at, end
        fault = lost(self.text[start:end])
        return fault or RowError("broken-json", f"{what} at character {offset + 1} of the row")

    def _over(self, keyed: bool) -> RowError:
        """The reject of a value over the limit; what follows is dropped up to the next that opens as others do."""
        dropped = 0
        if not self._opening and (found := _OPENING.match(self.text, self.at)):
            self._opening = found[0]  # of this value: out of sight once the window slides on
        while (nearest := self._next(keyed, self.at + 1)) < 0:
            step = max(len(self.text) - 4096, self.at + 1)
            dropped += step - self.at
            self.at = step
            if not self.fill():
                nearest = len(self.text)
                break
        dropped += nearest - self.at
        self.at = nearest
        return RowError("row-too-large", f"{dropped:,} characters, the limit is {LIMIT:,}")

    def _next(self, keyed: bool, start: int) -> int:
        """Where the next value opens as the first sound one did, or as this one does; -1 for nowhere."""
        opening = self._opening
        if not opening:
            found = _OPENING.match(self.text, self.at)
            opening = found[0] if found else ""
        if not opening:
            return -1
        before = rf"{_STRING}\s*:\s*" if keyed else ""
        match = re.compile(rf"[\s,]({before}{re.escape(opening)})", re.DOTALL).search(self.text, start)
        return match.start(1) if match else -1


def _where(fault: Exception, start: int) -> tuple[int, str]:
    """The place and the kind of what the scanner stumbled on."""
    if isinstance(fault, json.JSONDecodeError):
        return fault.pos, fault.msg
    return start, "nested too deeply" if isinstance(fault, RecursionError) else str(fault)[:80]


def _waits(text: str, where: int, what: str) -> bool:
    """Whether a fault may be due to the text ending too soon."""
    return what.startswith("Unterminated") or where > len(text) - _WAITS


def _closed(text: str, start: int, stop: int) -> int:
    """Where the value at `start` ends by its brackets, strings left out; -1 when they do not close before `stop`."""
    if text[start] not in '[{"':
        return found.start() if (found := _BARE_END.search(text, start, stop)) else -1
    depth = 0
    for token in _TOKEN.finditer(text, start, stop):
        if token[0] in {"{", "["}:
            depth += 1
        elif token[0] in {"}", "]"}:
            depth -= 1
        if depth <= 0:
            return token.end() if depth == 0 else token.start()
    return -1


def values(chunks: Iterator[bytes]) -> Iterator[Row | RowError]:
    """The rows of a JSON file, told by its layout:

    - an array: its elements;
    - an object of objects: its members' values, the key under "#key";
    - an object that holds arrays of objects ({"source": …, "entries": […]}): their elements, the array's key under
      "#key"; members beside them that are no arrays of objects describe the file and are no rows;
    - any other object, alone or with others behind it: a row each.

    An object is told by the members within its first chunk. Conversations are no rows: an object with an array of
    turns is one row.
    """
    window = _Window(chunks)
    layout = ""
    while opening := window.skip():
        if opening == "[":
            window.at += 1
            yield from _elements(window)
            continue
        layout = layout or (_layout(window.text, window.at) if opening == "{" else "row")
        if layout == "row":
            yield _row(window.value(False))
        else:
            window.at += 1
            yield from _members(window, layout)


def _elements(window: _Window, key: str | None = None) -> Iterator[Row | RowError]:
    while (opening := window.skip()) != "]":
        if not opening:
            yield from _unclosed(window, "array")
            return
        if opening == "}":
            yield RowError("broken-json", "found } where the array should go on or end")
            window.at += 1
            continue
        yield _row(window.value(False), key)
    window.at += 1


def _members(window: _Window, layout: str) -> Iterator[Row | RowError]:
    while (opening := window.skip()) != "}":
        if not opening:
            yield from _unclosed(window, "object")
            return
        key = window.key() if opening == '"' else None
        if key is None:
            yield window.value(True) if opening != "]" else RowError("broken-json", "found ] where a key should stand")
            window.at += opening == "]"
        elif layout == "arrays" and window.skip() == "[":
            window.at += 1
            yield from _elements(window, key)
        else:
            value = window.value(layout == "objects")
            if layout == "objects" or isinstance(value, RowError):
                yield _row(value, key)
    window.at += 1


def _unclosed(window: _Window, what: str) -> Iterator[RowError]:
    """The reject for an end of file within an array or object, unless its last value was rejected for it."""
    if not window.cut:
        window.cut = True
        yield RowError("broken-json", f"the file ends before the {what} does")


def _row(value: Any, key: str | None = None) -> Row | RowError:
    if type(value) is dict:
        if key is not None:
            value["#key"] = key
        return cast(Row, value)
    return value if isinstance(value, RowError) else _other(value)


def _layout(text: str, at: int) -> str:
    """How the object at `at` holds rows: "objects", "arrays", or "row" when it is one itself."""
    kinds: list[str] = []
    at += 1
    while len(kinds) < 100:
        at = _BLANK.match(text, at).end()  # type: ignore[union-attr]
        if text[at : at + 1] == "}" and text[at + 1 :].strip(" \t\r\n,"):
            return "row"  # others follow
        found = _KEY.match(text, at)
        if not found:
            break
        try:
            value, at = _SCAN(text, found.end())
        except (ValueError, RecursionError) as fault:
            if not kinds or _waits(text, *_where(fault, found.end())):
                kinds.append(_kind(_begun(text, found.end())))
            break
        kinds.append(_kind(value))
    if kinds and set(kinds) == {"object"}:
        return "objects"
    return "arrays" if "rows" in kinds and "list" not in kinds else "row"


def _begun(text: str, at: int) -> Any:
    """As much as can be said of a value that the text does not hold to its end."""
    if text[at : at + 1] != "[":
        return {} if text[at : at + 1] == "{" else ""
    at = _BLANK.match(text, at + 1).end()  # type: ignore[union-attr]
    try:
        return [_SCAN(text, at)[0]]
    except (ValueError, RecursionError):
        return [{}] if text[at : at + 1] == "{" else [""]


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "object"
    if not isinstance(value, list) or not value:
        return "scalar"
    if not isinstance(value[0], dict) or any(turn <= value[0].keys() for turn in _TURNS):
        return "list"
    return "rows"
