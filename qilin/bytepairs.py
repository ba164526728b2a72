"""Byte-level BPE over whole batches, several times the speed of the tokenizers library and with the same ids.

The library finds each word anew, maps its bytes to characters, and keeps track of where each came from. Here a compiled
kernel merges the bytes of each word once; the next time a word comes, it is looked up. What is not byte-level BPE with
one regular expression, or is odd in any other way, goes to the library.
"""

import json
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Key = str | tuple[str]  # a word, or a token that was added to the vocabulary

_WORDS = 1 << 18  # that are remembered
_LONG = 1024  # characters of a word from which it is left to the library: merging takes the square of it
_NEVER = 2**63 - 1
# The pattern of GPT-2, which the library's ByteLevel uses when it is given none.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Letters, digits, marks and blanks of many kinds: on these the two must agree before this one is used.
_PROBE = (
    "患者，女，２６岁。體溫38.5℃；「咳嗽」3天…WBC 12.3×10⁹/L、舌紅苔黃\r\n\r\n \t I'm we'LL it'S 'ſ don't naïve "
    "Ångström e\u0301 한국어 ひらがな カタカナ русский עברית العربية हिन्दी ไทย བོད་ ①②Ⅳ½ 𠮷野家 "
    " 😀👩‍⚕️🏽 \u200b\u200d\ufeff \u00a0\u3000\u2028\x85\x1c\x1f"
    "\x00 \ufffd\ue000  --- ___ $100,000.00 https://example.org/a_b?c=1#d   \n\n\n    def f(x):\n\treturn x\n   "
)


class _Words(dict[Key, int]):
    """Numbers words in the order in which they come."""

    def __init__(self, fixed: list[Key]) -> None:
        super().__init__((word, number) for number, word in enumerate(fixed))
        self.fresh: list[str] = []

    def __missing__(self, word: str) -> int:
        self.fresh.append(word)
        number = self[word] = len(self)
        return number


class BytePairs:
    """The byte-level BPE that a tokenizer's serial form describes."""

    def __init__(self, form: dict[str, Any]) -> None:
        """Raises ValueError or KeyError for a tokenizer that is not simply byte-level BPE."""
        import regex

        model = form["model"]
        odd = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
        if model["type"] != "BPE" or any(model.get(name) for name in odd):
            raise ValueError("not plain BPE")
        if form["normalizer"] not in (None, {"type": "NFC"}):
            raise ValueError("changes the text before it is cut into words")
        added = form["added_tokens"]
        if any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in added):
            raise ValueError("has added tokens that take blanks with them")
        self._nfc = form["normalizer"] is not None
        self._find: Callable[[str], list[str]] = regex.compile(_pattern(form["pre_tokenizer"])).findall
        self._added = {(token["content"],): token["id"] for token in added}
        everything = [token["content"] for token in added]
        self._split = _splitter(everything), _splitter([token["content"] for token in added if not token["special"]])
        vocabulary = model["vocab"]
        self._bytes = np.array([vocabulary.get(symbol, -1) for symbol in _SYMBOLS], np.int32)
        self._whole = {_raw(token): own for token, own in vocabulary.items()} if model.get("ignore_merges") else {}
        self._merges = _merges(model["merges"], vocabulary)
        self._ids, self._ends = np.zeros(0, np.int32), np.zeros(1, np.int64)
        self._numbers = _Words([])
        self._forget()

    @classmethod
    def of(cls, backend: str, library: Any) -> "BytePairs | None":
        """The BPE of a tokenizer; None if it is not such a one, or does not agree with the library's on odd texts."""
        try:
            made = cls(json.loads(backend))
        except (ValueError, KeyError, TypeError):
            return None
        probe = unicodedata.normalize("NFC", _PROBE)  # what is not composed is left to the library
        own, theirs = made.encode([probe])[0], library.encode(probe, add_special_tokens=False)
        return made if own is None or own[0].tolist() == theirs.ids else None

    def encode(
        self, texts: Sequence[str], edges: Sequence[Sequence[int]] | None = None, *, plain: bool = False
    ) -> list[tuple[Ids, list[int]] | None]:
        """For each text its ids, and before which of them its edges stand (places in characters, ascending).

        None for a text that the library must encode: with an edge within a word, a very long word, or a byte that the
        vocabulary lacks. plain: special tokens in the texts are text.
        """
        if len(self._numbers) > _WORDS:
            self._forget()
        found = [self._words(text, edges[row] if edges else (), plain) for row, text in enumerate(texts)]
        known = [own for own in found if own]
        keys = [key for words, _ in known for key in words]
        numbers = np.fromiter(map(self._numbers.__getitem__, keys), np.int64, len(keys))
        self._learn()
        sizes = self._ends[numbers + 1] - self._ends[numbers]
        begins = np.concatenate([[0], np.cumsum(sizes)])
        ids = _gather(numbers, self._ends, self._ids, int(begins[-1]))
        encoded: list[tuple[Ids, list[int]] | None] = []
        at = 0
        for own in found:
            if own is None:
                encoded.append(None)
                continue
            words, places = own
            own_begins = begins[at : at + len(words) + 1]
            if sizes[at : at + len(words)].all():
                here = ids[own_begins[0] : own_begins[-1]]
                encoded.append((here, (own_begins[places] - own_begins[0]).tolist() if places else []))
            else:
                encoded.append(None)
            at += len(words)
        return encoded

    def _words(self, text: str, edges: Sequence[int], plain: bool) -> tuple[list[Key], list[int]] | None:
        """The words and added tokens of a text, and before which of them its edges stand."""
        if self._nfc and not unicodedata.is_normalized("NFC", text):
            return None
        split = self._split[plain]
        keys: list[Key] = []
        places: list[int] = []
        at = 0
        for number, piece in enumerate(split(text) if split else [text]):
            if number % 2:
                keys.append((piece,))
                at += len(piece)
                continue
            words = self._find(piece)
            if sum(map(len, words)) != len(piece) or max(map(len, words), default=0) > _LONG:
                return None
            end = at + len(piece)
            place = 0
            while len(places) < len(edges) and edges[len(places)] <= end:
                while at < edges[len(places)]:
                    at += len(words[place])
                    place += 1
                if at > edges[len(places)]:
                    return None
                places.append(len(keys) + place)
            keys += words
            at = end
        return keys, places

    def _learn(self) -> None:
        """Add the ids of the words that came for the first time."""
        fresh, self._numbers.fresh = self._numbers.fresh, []
        if not fresh:
            return
        array = pa.array(fresh, pa.large_string())
        _, offsets, data = array.buffers()
        ends = np.frombuffer(offsets, np.int64)
        # A word that is a token of its own, whatever the merges say.
        whole = np.array([self._whole.get(word.encode(), -1) if self._whole else -1 for word in fresh], np.int32)
        ids, sizes = _merge(np.frombuffer(data, np.uint8), ends, whole, self._bytes, self._merges)
        self._ids = np.concatenate([self._ids, ids])
        self._ends = np.concatenate([self._ends, self._ends[-1] + np.cumsum(sizes)])

    def _forget(self) -> None:
        self._numbers = _Words(list(self._added))
        self._ids = np.array(list(self._added.values()), np.int32)
        self._ends = np.arange(len(self._added) + 1, dtype=np.int64)


def _pattern(form: dict[str, Any]) -> str:
    """The regular expression by which a pre-tokenizer cuts text into words."""
    steps = form["pretokenizers"] if form["type"] == "Sequence" else [form]
    *before, last = steps
    if last["type"] != "ByteLevel" or last["add_prefix_space"] or len(before) > 1 or last["use_regex"] == bool(before):
        raise ValueError("words are not cut by one regular expression")
    if not before:
        return _GPT2
    if before[0]["type"] != "Split" or before[0]["behavior"] != "Isolated" or before[0]["invert"]:
        raise ValueError("words are not what the regular expression finds")
    pattern: str = before[0]["pattern"]["Regex"]
    return pattern


def _splitter(tokens: list[str]) -> Callable[[str], list[str]] | None:
    """Cuts a text at tokens: text, token, text, …; the longest of those that begin at one place."""
    import regex

    if not tokens:
        return None
    longest_first = sorted(tokens, key=len, reverse=True)
    split: Callable[[str], list[str]] = regex.compile(f"({'|'.join(map(regex.escape, longest_first))})").split
    return split


def _symbols() -> str:
    """The character that stands for each byte in the vocabulary of a byte-level BPE, after GPT-2."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    rest = iter(range(256, 512))
    return "".join(chr(byte if byte in shown else next(rest)) for byte in range(256))


_SYMBOLS = _symbols()
_BYTES = {symbol: byte for byte, symbol in enumerate(_SYMBOLS)}


def _raw(token: str) -> bytes:
    """The bytes that a token of the vocabulary stands for; a token outside the alphabet stands for none of its own."""
    try:
        return bytes([_BYTES[character] for character in token])
    except KeyError:
        return b"\0" + token.encode()  # never a word: a lone NUL is one byte


def _merges(merges: list[Any], vocabulary: dict[str, int]) -> NDArray[np.int64]:
    """An open hash table: in a line a pair of ids (-1: an empty place), and the rank of its merge and what it makes."""
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    rows = np.array([[vocabulary[a], vocabulary[b], vocabulary[a + b]] for a, b in pairs], np.int64).reshape(-1, 3)
    table = np.full((1 << (3 * len(rows) // 2 + 1).bit_length(), 2), -1, np.int64)
    _fill(table, rows)
    return table


@njit(cache=True)
def _fill(table: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
    for rank in range(len(rows)):
        pair = (rows[rank, 0] << 32) | rows[rank, 1]
        table[_place(table, pair)] = pair, (rank << 32) | rows[rank, 2]


@njit(cache=True)
def _place(table: NDArray[np.int64], pair: np.int64) -> int:
    """Where a pair stands in the table, or would."""
    mask = len(table) - 1
    place = ((pair * 0x2545F4914F6CDD1D) >> 29) & mask
    while table[place, 0] != pair and table[place, 0] != -1:
        place = (place + 1) & mask
    return int(place)


@njit(cache=True)
def _look(table: NDArray[np.int64], left: int, right: int) -> int:
    """The rank of a pair's merge and what it makes, in one number; `_NEVER`, after all others, if it does not merge."""
    place = _place(table, (np.int64(left) << 32) | np.int64(right))
    return int(table[place, 1]) if table[place, 0] != -1 else _NEVER


@njit(cache=True, nogil=True)
def _merge(
    data: NDArray[np.uint8], ends: NDArray[np.int64], whole: Ids, single: Ids, table: NDArray[np.int64]
) -> tuple[Ids, NDArray[np.int64]]:
    """The ids of words, one after the other, and how many each has: the merge of the lowest rank first.

    A word with a byte that the vocabulary lacks has none.
    """
    words = len(ends) - 1
    out = np.empty(ends[-1] - ends[0], np.int32)
    sizes = np.zeros(words, np.int64)
    longest = np.diff(ends).max()
    ids = np.empty(longest, np.int32)
    merges = np.empty(longest, np.int64)  # of each id with the next
    total = 0
    for word in range(words):
        if whole[word] >= 0:
            out[total], sizes[word] = whole[word], 1
            total += 1
            continue
        n = ends[word + 1] - ends[word]
        for i in range(n):
            ids[i] = single[data[ends[word] + i]]
        if ids[:n].min() < 0:
            continue
        for i in range(n - 1):
            merges[i] = _look(table, ids[i], ids[i + 1])
        while n > 1:
            best = merges[: n - 1].argmin()
            if merges[best] == _NEVER:
                break
            ids[best] = merges[best] & 0xFFFFFFFF
            n -= 1
            for i in range(best + 1, n):
                ids[i], merges[i - 1] = ids[i + 1], merges[i]
            if best > 0:
                merges[best - 1] = _look(table, ids[best - 1], ids[best])
            if best < n - 1:
                merges[best] = _look(table, ids[best], ids[best + 1])
        out[total : total + n] = ids[:n]
        sizes[word] = n
        total += n
    return out[:total].copy(), sizes


@njit(cache=True, nogil=True)
def _gather(numbers: NDArray[np.int64], ends: NDArray[np.int64], ids: Ids, total: int) -> Ids:
    """The ids of these words, one after the other."""
    out = np.empty(total, np.int32)
    at = 0
    for number in numbers:
        for place in range(ends[number], ends[number + 1]):
            out[at] = ids[place]
            at += 1
    return out
