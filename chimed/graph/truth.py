"""What is true of a head, or too near to the truth to be called wrong, anywhere in a graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from chimed.dedup.minhash import buffers, code_points, longest
from chimed.graph.merge import Mask, codes, distinct, equal, holds, starts_of
from chimed.graph.sets import Numbers, Ranges
from chimed.phrases import Codes
from chimed.text import fold

Grams = tuple[Codes, NDArray[np.uint64]]  # a set of bits an owner, from starts[i] to starts[i + 1]

# Departments that sort patients by age or by means, not by disease: any disease may be seen there.
BROAD = (
    *("内科", "外科", "儿科", "儿科综合", "小儿内科", "小儿外科", "五官科", "急诊科", "老年科", "中医科", "中医综合"),
    *(
        "中西医结合科",
        "针灸科",
        "营养科",
        "康复科",
        "体检保健科",
        "遗传病科",
        "生殖健康",
        "全科",
        "其他科室",
        "其他综合",
    ),
)
# Names that differ in these only are one: the form of a drug, the word for a test, what a remark in brackets adds.
_REMARK = r"[(（][^()（）]*[)）]"
_FORM = (
    "(肠溶|缓释|控释|分散|咀嚼|泡腾|含|软)?(片|胶囊|胶丸)|颗粒剂?|冲剂|[大小水蜜浓缩滴]*丸|口服溶?液|混悬液|糖浆|合剂|酒|酊"
    "|注射液|注射剂|粉针剂?|乳膏|软膏|凝胶|贴膏|膏|散|栓|滴眼液|滴耳液|滴鼻液|眼膏|洗剂|搽剂|喷雾剂|气雾剂|溶液"
    "|检查|检测|测定|试验|化验|综合[征症]|症状|疾病|病变|病|症|征"
)
_SALT = "^(注射用|复方|小儿|盐酸|硫酸|醋酸|乳酸|磷酸|枸橼酸|马来酸)"


def keys(texts: pa.Array) -> pa.Array:
    """Names without what tells two names of one thing apart; a name that is nothing else stays as it is.

    >>> keys(pa.array(["盐酸左氧氟沙星胶囊", "左氧氟沙星片（国产）", "血常规检查", "片"])).to_pylist()
    ['左氧氟沙星', '左氧氟沙星', '血常规', '片']
    """
    folded = fold(pc.replace_substring_regex(texts, _REMARK, ""))
    bare = pc.replace_substring_regex(pc.replace_substring_regex(folded, f"({_FORM})$", ""), _SALT, "")
    short = pc.if_else(pc.greater(pc.utf8_length(bare), 1), bare, folded)
    return pc.if_else(pc.equal(short, ""), texts, short)


class Wrong(NamedTuple):
    """What makes a tail wrong under a relation, besides being true neither of the head nor of its kin.

    also: relations whose tails are true of the head in this sense too. grams: whether sharing two characters with a
    true tail is too near; else only containing is. apart: whether it must also be unknown in the departments of the
    head (for one that has none, nothing is then wrong) and not be spoken of in its prose.
    """

    also: tuple[str, ...] = ()
    grams: bool = True
    apart: bool = True


@dataclass(frozen=True, slots=True)
class Graph:
    """Canonical facts between named things as numbers.

    facts: those facts, a row an edge. names: the heads. head, relation: numbers of names and of `relations`. term: the
    number of the key of the tail among `terms`; name_term that of each head. kin: the heads whose truths count for a
    head. fields: the departments of each head that say something (`BROAD`). prose: what
    it says of each head. letters: the offsets and code points of
    the terms.
    """

    facts: pa.Table
    names: pa.Array
    relations: list[str]
    head: Codes
    relation: Codes
    term: Codes
    terms: pa.Array
    name_term: Codes
    kin: Ranges
    fields: Ranges
    prose: Grams
    letters: tuple[Codes, NDArray[np.uint32]]

    @classmethod
    def of(cls, facts: pa.Table) -> "Graph":
        """The graph of canonical facts."""
        heads = facts["head"].combine_chunks()
        begins = starts_of(codes(heads, ranked=False))
        names, of = heads.filter(pa.array(begins)).cast(pa.string()), np.cumsum(begins) - 1
        named = ~equal(facts["tail_type"].combine_chunks(), "text")
        prose = _prose(facts, of, named, len(names))
        edges, head = facts.filter(pa.array(named)).combine_chunks(), of[named]
        del facts, heads
        relation = edges["relation"].combine_chunks().dictionary_encode()
        tail = pc.utf8_trim_whitespace(edges["tail"].combine_chunks()).dictionary_encode()
        key = keys(pa.concat_arrays([tail.dictionary.cast(pa.string()), names])).dictionary_encode()
        number = key.indices.to_numpy().astype(np.int64)
        term, name_term = number[: len(tail.dictionary)][tail.indices.to_numpy()], number[len(tail.dictionary) :]
        relations = relation.dictionary.to_pylist()
        of_relation = relation.indices.to_numpy().astype(np.int64)
        linked = _named(relations, ("并发症", "别名"))[of_relation]
        kin = _kin(names, name_term, head[linked], term[linked])
        broad = pc.is_in(edges["tail"].combine_chunks(), pa.array(BROAD))
        sorts = ~broad.to_numpy(zero_copy_only=False) & _named(relations, ("科室",))[of_relation]
        fields = Ranges.of(head[sorts], term[sorts], len(names))
        return cls(
            edges,
            names,
            relations,
            head,
            of_relation,
            term,
            key.dictionary,
            name_term,
            kin,
            fields,
            prose,
            _letters(key.dictionary),
        )

    def column(self, name: str, rows: Codes) -> pa.StringArray:
        """What the facts of these edges have in a column."""
        return self.facts[name].combine_chunks().take(pa.array(rows)).cast(pa.string())

    def under(self, relations: Sequence[str]) -> Mask:
        """Which edges are of these relations."""
        return _named(self.relations, relations)[self.relation]

    def told(self, rows: Codes) -> Mask:
        """Which edges name a tail that shares two neighbouring characters with its head, or is or holds it."""
        own = (np.arange(len(self.names) + 1), self.name_term)
        out = np.zeros(len(rows), np.bool_)
        _near(np.stack([self.head[rows], self.term[rows]]), own, self.letters, True, out)
        return out

    def _homes(self, edges: Mask | Codes) -> Codes:
        """The (department, term) of edges as sorted numbers: department * number of terms + term."""
        place, field = self.fields.spread(self.head[edges])
        return distinct(field * len(self.terms) + self.term[edges][place])

    def common(self, rows: Codes, most: float) -> Mask:
        """Which terms are at home in departments that have more than such a share of these edges."""
        size = len(self.terms)
        place, field = self.fields.spread(self.head[rows])
        share = np.bincount(field, 1 / np.bincount(place)[place], minlength=size) / max(len(rows), 1)
        field, term = np.divmod(self._homes(rows), size)
        mask: Mask = np.bincount(term, share[field], minlength=size) > most
        return mask

    def judge(self, relation: str, wrong: Wrong) -> Callable[[Codes, Codes], Mask]:
        """Which (head, term) are wrong under a relation: a function of the numbers of heads and of terms."""
        size = len(self.terms)
        edges = self.under((relation, *wrong.also))
        known = Numbers(self.head[edges] * size + self.term[edges])
        every = np.arange(len(self.names))
        # What is true of a head under the relation, and its own name: nothing wrong may look like these.
        owned = Ranges.of(np.append(self.head[edges], every), np.append(self.term[edges], self.name_term), len(every))
        home = Numbers(self._homes(self.under((relation,))))

        def at_home(head: Codes, term: Codes) -> Mask:
            mask: Mask = home.link(self.fields, head, term, size) | (self.fields.count(head) == 0)
            return mask

        def near(head: Codes, term: Codes) -> Mask:
            out = np.zeros(len(head), np.bool_)
            _near(np.stack([head, term]), (owned.starts, owned.values), self.letters, wrong.grams, out)
            return out

        def mentioned(head: Codes, term: Codes) -> Mask:
            out = np.zeros(len(head), np.bool_)
            _mentioned(np.stack([head, term]), self.prose, self.letters, out)
            return out

        def of_kin(head: Codes, term: Codes) -> Mask:
            return known.link(self.kin, head, term, size)

        def judged(head: Codes, term: Codes) -> Mask:
            left = np.arange(len(head))
            # What excludes most at the least cost comes first.
            for fits in (at_home, of_kin, near, mentioned) if wrong.apart else (of_kin, near):
                left = left[~fits(head[left], term[left])]
            mask = np.zeros(len(head), np.bool_)
            mask[left] = True
            return mask

        return judged


def _named(relations: Sequence[str], wanted: Sequence[str]) -> Mask:
    """Which relations are of these names."""
    return np.array([name in wanted for name in relations], np.bool_)


def _letters(texts: pa.Array) -> tuple[Codes, NDArray[np.uint32]]:
    offsets = np.append(0, np.cumsum(pc.utf8_length(texts).to_numpy())).astype(np.int64)
    return offsets, np.frombuffer("".join(texts.to_pylist()).encode("utf-32-le"), np.uint32)


def _prose(facts: pa.Table, head: Codes, named: Mask, count: int) -> Grams:
    """The pairs of neighbouring characters in all texts of each head that are no names. Facts come sorted by head."""
    rows = np.flatnonzero(~named)
    offsets, data = buffers(facts["tail"].combine_chunks().take(pa.array(rows)))
    first = np.searchsorted(head[rows], np.arange(count + 1))
    bits = 8 * np.diff(offsets[first])  # more than twenty times as many as characters
    sizes = np.where(bits > 0, 2 ** np.ceil(np.log2(np.maximum(bits, 64))), 0).astype(np.int64)
    starts = np.append(0, np.cumsum(sizes))
    table = np.zeros(starts[-1] // 64, np.uint64)
    _put(starts, table, (offsets, data), first)
    return starts, table


def _kin(names: pa.Array, name_term: Codes, head: Codes, term: Codes) -> Ranges:
    """The heads whose truths may well be those of a head.

    They are what its 并发症 and 别名 (head, term) link it with, either way, and heads whose name begins or ends with
    its own, or the other way round (肺炎, 小儿肺炎, 肺炎旁胸腔积液).
    """
    by_term = Ranges.of(name_term, np.arange(len(names)), int(max(name_term.max(initial=0), term.max(initial=0))) + 1)
    linked, named = by_term.spread(term)
    alike, twin = by_term.spread(name_term)  # names with one key
    one, other = [head[linked], alike], [named, twin]
    bare = pc.replace_substring_regex(names, _REMARK, "")
    same = codes(bare, ranked=False)
    lead = np.unique(same, return_index=True)[1]
    lengths = pc.utf8_length(bare).to_numpy()
    for length in range(2, lengths.max(initial=0)):
        longer, these = np.flatnonzero(lengths > length), np.flatnonzero(lengths == length)
        texts, shorter = bare.take(pa.array(longer)), bare.take(pa.array(these))
        for cut in (pc.utf8_slice_codeunits(texts, 0, length), pc.utf8_slice_codeunits(texts, -length)):
            found = pc.fill_null(pc.index_in(cut, shorter), -1).to_numpy().astype(np.int64)
            one.append(longer[found >= 0])
            other.append(these[found[found >= 0]])
    # Variants under one name are kin through the first of them, and each is its own.
    every = np.arange(len(names))
    one += [every, every]
    other += [lead[same], every]
    left, right = np.concatenate(one), np.concatenate(other)
    return Ranges.of(np.append(left, right), np.append(right, left), len(names))


@njit(cache=True, nogil=True)
def _near(pairs: Any, owned: Any, texts: Any, grams: bool, out: Any) -> None:
    starts, values = owned
    offsets, letters = texts
    for row in range(len(out)):
        head, term = pairs[0, row], pairs[1, row]
        mine = letters[offsets[term] : offsets[term + 1]]
        for value in values[starts[head] : starts[head + 1]]:
            theirs = letters[offsets[value] : offsets[value + 1]]
            near = holds(theirs, mine) or holds(mine, theirs)
            place = 0
            while grams and not near and place < len(mine) - 1:
                near = holds(theirs, mine[place : place + 2])
                place += 1
            if near:
                out[row] = True
                break


@njit(cache=True, nogil=True)
def _slot(one: Any, other: Any, start: int, stop: int) -> Any:
    """The bit between start and stop for two neighbouring characters."""
    h = (np.uint64(one) << np.uint64(32) | np.uint64(other)) * np.uint64(0x9E3779B97F4A7C15)
    return np.uint64(start) + (h >> np.uint64(20)) % np.uint64(stop - start)


@njit(cache=True, nogil=True)
def _put(starts: Any, table: Any, texts: Any, first: Any) -> None:
    """Sets the bits of all pairs of neighbouring characters of each owner's texts, first[owner] the first of them."""
    offsets, data = texts
    codes = np.empty(longest(offsets), np.uint32)
    for owner in range(len(starts) - 1):
        for text in range(first[owner], first[owner + 1]):
            count = code_points(data, offsets[text], offsets[text + 1], codes)
            for place in range(count - 1):
                bit = _slot(codes[place], codes[place + 1], starts[owner], starts[owner + 1])
                table[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))


@njit(cache=True, nogil=True)
def _mentioned(pairs: Any, grams: Any, texts: Any, out: Any) -> None:
    """Whether all pairs of neighbouring characters of a term stand in the prose of the head."""
    starts, table = grams
    offsets, letters = texts
    for row in range(len(out)):
        head, term = pairs[0, row], pairs[1, row]
        start, stop = starts[head], starts[head + 1]
        found = stop > start
        for place in range(offsets[term], offsets[term + 1] - 1):
            if not found:
                break
            bit = _slot(letters[place], letters[place + 1], start, stop)
            found = table[bit >> np.uint64(6)] >> (bit & np.uint64(63)) & np.uint64(1) == np.uint64(1)
        out[row] = found
