"""Questions that a graph answers only against the arrow or over two edges: reverse, by signs, and two-hop."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from chimed.dedup.minhash import buffers, exact_keys
from chimed.graph.merge import among, codes, holds, place, starts_of
from chimed.graph.sections import MARKS, join, marks
from chimed.graph.sets import Numbers
from chimed.phrases import Codes, fill, pick

FORMS = ("direct", "reverse", "signs", "two-hop")
# The most of all questions that are asked against the arrow, and over two edges. Models that learn a fact one way only
# cannot tell it the other way (arXiv 2309.12288), so some must be there; but their answers are only as complete as the
# graph, and nobody at a consultation asks like that, so direct questions stay the rule.
REVERSE_SHARE = 0.10
TWO_HOP_SHARE = 0.05

HEADS = (2, 8)  # heads that a reverse question asks for: one is a guess, and long lists are never complete
SIGNS = (3, 5)  # signs that a question for their disease names
_COMMON = 10  # heads beyond which even the rarest sign of a disease says nothing of it

_Templates = tuple[str, ...]
# relation -> questions with the slot {tail}, answers with {tail} and {heads}; no graph knows all of them, hence 等
_REVERSE: dict[str, tuple[_Templates, _Templates]] = {
    "症状": (
        ("哪些疾病会出现{tail}？", "{tail}可能是哪些疾病的表现？", "出现{tail}，要考虑哪些疾病？"),
        ("可能出现{tail}的疾病有{heads}等。", "{tail}可见于{heads}等。", "{heads}等疾病都可能出现{tail}。"),
    ),
    "并发症": (
        ("哪些疾病可能并发{tail}？", "{tail}可以是哪些疾病的并发症？", "什么病会引起{tail}？"),
        ("可能并发{tail}的疾病有{heads}等。", "{tail}可以是{heads}等疾病的并发症。", "{heads}等疾病都可能并发{tail}。"),
    ),
    "检查": (
        ("诊断哪些疾病会用到{tail}？", "{tail}用于检查哪些疾病？", "哪些疾病需要做{tail}？"),
        ("{tail}可用于检查{heads}等。", "需要做{tail}的疾病有{heads}等。", "诊断{heads}等疾病时会用到{tail}。"),
    ),
    "常用药物": (
        ("{tail}可以用于哪些疾病？", "哪些疾病会用到{tail}？", "{tail}常用来治什么病？"),
        ("{tail}可用于{heads}等。", "会用到{tail}的疾病有{heads}等。", "{heads}等疾病都可能用到{tail}。"),
    ),
    "组成": (
        ("哪些方剂用到{tail}？", "{tail}见于哪些方剂？", "含有{tail}的方剂有哪些？"),
        ("用到{tail}的方剂有{heads}等。", "{tail}见于{heads}等方剂。", "含有{tail}的方剂有{heads}等。"),
    ),
}
_SIGNS: tuple[_Templates, _Templates] = (
    (
        "患者同时有{tails}，可能是什么病？",
        "出现{tails}，提示什么疾病？",
        "有{tails}这些表现，应首先考虑什么病？",
        "以下症状提示什么疾病：{tails}？",
    ),
    ("这些症状提示{head}。", "应考虑{head}。", "{tails}同时出现，提示可能是{head}。", "可能是{head}。"),
)
# relation of the complication -> questions with {head} and {middle}, answers with {head}, {middle} and {tails}. Drugs
# are left out: what is given against a complication hangs on what it is one of.
_TWO_HOP: dict[str, tuple[_Templates, _Templates]] = {
    "科室": (
        ("{head}的并发症{middle}应该挂什么科？", "{head}患者并发了{middle}，要去哪个科室？"),
        ("{middle}是{head}的并发症，应就诊的科室是{tails}。", "{head}并发{middle}时，可以到{tails}就诊。"),
    ),
    "检查": (
        ("{head}患者怀疑并发{middle}，要做哪些检查？", "怎样检查{head}是否引起了{middle}？"),
        ("{middle}是{head}的并发症，检查项目有{tails}。", "怀疑{head}并发{middle}时，可以做{tails}。"),
    ),
    "症状": (
        ("{head}的并发症{middle}有什么表现？", "{head}患者出现哪些症状，提示并发了{middle}？"),
        ("{middle}是{head}的并发症，表现有{tails}。", "{head}并发{middle}时，可出现{tails}。"),
    ),
}
_NAMED = 8  # tails that a two-hop answer names


def asked(facts: pa.Table, direct: int, names: list[str]) -> pa.Table:
    """The reverse, signs and two-hop questions beside `direct` ones: columns `names`, `form` among them.

    `facts` are canonical. The questions are those with the lowest hash, in the order of their ids.
    """
    against = pa.concat_tables([*_reversed(facts), *_signs(facts)])
    against = _capped(against, int(direct * REVERSE_SHARE / (1 - REVERSE_SHARE - TWO_HOP_SHARE)))
    over = _capped(_two_hop(facts), int((direct + len(against)) * TWO_HOP_SHARE / (1 - TWO_HOP_SHARE)))
    return pa.concat_tables([against.select(names), over.select(names)])


def _capped(table: pa.Table, most: int) -> pa.Table:
    """The rows whose ids have the lowest hashes, at most so many, sorted by id."""
    ids = table["id"].combine_chunks()
    order = np.argsort(exact_keys(ids)[:, 0], kind="stable")[:most] if len(ids) else np.array([], np.int64)
    table = table.take(pa.array(order))
    return table.take(pc.sort_indices(table["id"]))


def _edges(facts: pa.Table, *relations: str) -> pa.Table:
    """The facts under these relations, in order, each (head, tail) once."""
    rows = facts.filter(pa.array(among(facts["relation"], relations)))
    head, tail = (codes(rows[name].combine_chunks(), ranked=False) for name in ("head", "tail"))
    order = np.lexsort((np.arange(len(rows)), tail, head))
    rows = rows.take(pa.array(np.sort(order[starts_of(head[order], tail[order])])))
    return pa.table({name: rows[name].cast(pa.string()).combine_chunks() for name in rows.column_names})


def _listed(texts: pa.Array, starts: Codes) -> pa.Array:
    """Names joined to a list each, in runs that begin at `starts`."""
    begins = np.zeros(len(texts), bool)
    begins[starts] = True
    parted = pa.array(["", *MARKS]).take(pa.array(np.where(begins, 0, 1 + marks(texts, begins))))
    return join(pc.binary_join_element_wise(parted, pc.utf8_rtrim(texts, "。；;，,、 "), ""), starts)


def _table(form: str, title: pa.Array, relation: str, source: pa.Array, wording: dict[str, pa.Array]) -> pa.Table:
    ids = pc.binary_join_element_wise(source, "/graph#", title, f"#{relation}#{form}", "")
    same = {"relation": pa.repeat(relation, len(title)), "form": pa.repeat(form, len(title))}
    return pa.table({"id": ids, "source": source, "title": title, **same, **wording})


def _worded(templates: tuple[_Templates, _Templates], keys: pa.Array, **slots: pa.Array) -> dict[str, pa.Array]:
    """Question and answer of each row, from the templates that the hash of its key picks."""
    return {
        name: fill(templates[place], pick(keys, len(templates[place]), name), **slots)
        for place, name in enumerate(("question", "answer"))
    }


def _reversed(facts: pa.Table) -> Iterator[pa.Table]:
    """Which heads have a tail, where they are few."""
    for relation, templates in _REVERSE.items():
        also = ("推荐药物",) if relation == "常用药物" else ()
        edges = _edges(facts, relation, *also)
        tail, head = codes(edges["tail"].combine_chunks()), codes(edges["head"].combine_chunks())
        order = np.lexsort((head, tail))
        begins = starts_of(tail[order])
        size = np.bincount(tail)[tail[order]]
        length = pc.utf8_length(edges["tail"]).to_numpy()[order]
        fits = (size >= HEADS[0]) & (size <= HEADS[1]) & (length > 1)
        edges, starts = edges.take(pa.array(order[fits])), np.flatnonzero(begins[fits])
        lead = edges.take(pa.array(starts))
        asks, source = lead["tail"].combine_chunks(), lead["source"].combine_chunks()
        heads = _listed(edges["head"].combine_chunks(), starts)
        yield _table("reverse", asks, relation, source, _worded(templates, asks, tail=asks, heads=heads))


def _signs(facts: pa.Table) -> Iterator[pa.Table]:
    """Which disease a set of its rarest signs points to, where the graph knows no other that has them all."""
    edges = _edges(facts, "症状")
    # 产道异常 is no answer to a question that names 软产道异常.
    edges = edges.filter(pa.array(~_gives_away(edges["head"], edges["tail"])))
    head, tail = (codes(edges[name].combine_chunks()) for name in ("head", "tail"))
    common = np.bincount(tail)[tail] if len(tail) else tail
    order = np.lexsort((tail, common, head))
    rank = place(head[order])
    size = np.bincount(head)[head[order]] if len(head) else head
    rarest = np.repeat(common[order][rank == 0], size[rank == 0])
    # The rarest signs of each head, heads in order.
    named = order[(rank < SIGNS[1]) & (size >= SIGNS[0]) & (rarest <= _COMMON)]
    named = named[~_shared(head, tail, named)]
    # Told in an order that does not give the rarest away.
    hashes = exact_keys(edges["tail"].combine_chunks())[:, 0]
    rows = edges.take(pa.array(named[np.lexsort((hashes[named], head[named]))]))
    starts = np.flatnonzero(place(head[named]) == 0)
    lead = rows.take(pa.array(starts))
    title, source = lead["head"].combine_chunks(), lead["source"].combine_chunks()
    tails = _listed(rows["tail"].combine_chunks(), starts)
    yield _table("signs", title, "症状", source, _worded(_SIGNS, title, head=title, tails=tails))


def _gives_away(one: pa.ChunkedArray, other: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which of the names beside each other hold one the other."""
    out = np.zeros(len(one), np.bool_)
    _nested(buffers(one.combine_chunks()), buffers(other.combine_chunks()), out)
    return out


@njit(cache=True, nogil=True)
def _nested(one: Any, other: Any, out: Any) -> None:
    for row in range(len(out)):
        left = one[1][one[0][row] : one[0][row + 1]]
        right = other[1][other[0][row] : other[0][row + 1]]
        out[row] = holds(left, right) or holds(right, left)


def _within(starts: Codes, counts: Codes) -> Codes:
    """All the places of ranges, one after the other."""
    ends = np.cumsum(counts)
    places: Codes = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)
    return places


def _shared(head: Codes, tail: Codes, named: Codes) -> NDArray[np.bool_]:
    """Which of the `named` edges belong to a set of signs, one a head, that another head has as a whole."""
    if not len(named):
        return np.array([], bool)
    starts = np.flatnonzero(place(head[named]) == 0)
    count = np.diff(np.append(starts, len(named)))
    by_tail = np.argsort(tail, kind="stable")
    low, high = (np.searchsorted(tail[by_tail], tail[named[starts]], side) for side in ("left", "right"))
    of_set = np.repeat(np.arange(len(starts)), high - low)
    other = head[by_tail[_within(low, high - low)]]
    strange = other != head[named[starts]][of_set]
    of_set, other = of_set[strange], other[strange]
    known = Numbers(head * (tail.max() + 1) + tail)
    spots = _within(starts[of_set], count[of_set])
    pair = np.repeat(np.arange(len(of_set)), count[of_set])
    has = known.hold(other[pair] * (tail.max() + 1) + tail[named[spots]])
    whole = np.bincount(pair, weights=has, minlength=len(of_set)) == count[of_set]
    mask = np.zeros(len(starts), bool)
    mask[of_set[whole]] = True
    return np.repeat(mask, count)


def _two_hop(facts: pa.Table) -> pa.Table:
    """For each head and relation, what the graph says under it of one complication of the head."""
    tables = []
    arrows = _edges(facts, "并发症")
    arrows = arrows.filter(pa.array(~_gives_away(arrows["head"], arrows["tail"])))
    head, middle = arrows["head"].combine_chunks(), arrows["tail"].combine_chunks()
    whose = codes(head, ranked=False)
    for relation, templates in _TWO_HOP.items():
        edges = _edges(facts, relation)
        names = pc.unique(edges["head"].combine_chunks())  # canonical facts: in order of the edges
        of = codes(edges["head"].combine_chunks(), ranked=False)
        starts = np.flatnonzero(place(of) == 0)
        count = np.minimum(np.diff(np.append(starts, len(of))), _NAMED)
        knows = pc.index_in(middle, names)
        rows = np.flatnonzero(pc.is_valid(knows).to_numpy(zero_copy_only=False))
        hashes = exact_keys(pc.binary_join_element_wise(head, middle, relation, "\n"))[rows, 0]
        order = np.lexsort((hashes, whose[rows]))
        rows = rows[order[place(whose[rows][order]) == 0]]
        one = pa.array(rows)
        answer = knows.take(one).to_numpy().astype(np.int64)
        size = count[answer]
        tails = edges["tail"].combine_chunks().take(pa.array(_within(starts[answer], size)))
        title, source = head.take(one), arrows["source"].combine_chunks().take(one)
        slots = {"head": title, "middle": middle.take(one), "tails": _listed(tails, np.cumsum(size) - size)}
        tables.append(_table("two-hop", title, relation, source, _worded(templates, title, **slots)))
    return pa.concat_tables(tables)
