"""Corrupted facts: a true reply and a false one to a question on a head, for preference training.

What is said falsely of one head is true of others: the named tails of a relation are dealt anew among its heads, so a
tail stands in false replies as often as in true ones, and its length and rarity tell nothing. A reply is false only
if nothing in the graph comes near to making it true; see `Wrong` and `chimed.graph.truth`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chimed.dedup.minhash import exact_keys
from chimed.graph.merge import Mask, askable, codes, place, starts_of
from chimed.graph.sections import PAUSES, Sections, choose, tell
from chimed.graph.sets import Numbers
from chimed.graph.truth import BROAD, Graph, Wrong
from chimed.phrases import Codes, fill

PAIRS = pa.schema(
    [(name, pa.string()) for name in ("id", "source", "title", "relation", "question", "chosen", "rejected")]
)
NAMED = 6  # tails that a reply names
_TRIES = 3
_DEALS = 8  # how often what is left is dealt anew, the first half of them among tails of equal length
_EVERYWHERE = 0.75  # a tail known in the departments of more than this share of a relation's facts says too little
_PLACED = 0.5  # share of the places of a tail that must find it a wrong head; else it is true of too much
UInt64 = NDArray[np.uint64]


# The other relations are left out, because what a graph does not say is not wrong there: another treatment, cause,
# precaution or dish may do as well, and books differ on the properties, places and uses of a herb. Foods are wrong only
# where the graph forbids them: see OPPOSED.
WRONG: dict[str, Wrong] = {
    "症状": Wrong(("并发症", "致病因素")),
    "并发症": Wrong(("症状", "致病因素", "别名")),
    "检查": Wrong(),
    "科室": Wrong(grams=False),
    "发病部位": Wrong(grams=False),
    "常用药物": Wrong(("推荐药物", "治疗方法")),
    "推荐药物": Wrong(("常用药物", "治疗方法")),
    "别名": Wrong(("并发症", "症状"), apart=False),
    "组成": Wrong(apart=False),
}
# Foods that do good and foods that do harm: each is the wrong answer to the question for the other.
OPPOSED: dict[str, tuple[str, Wrong]] = {
    "宜吃": ("忌吃", Wrong(("推荐食谱",), grams=False, apart=False)),
    "忌吃": ("宜吃", Wrong(grams=False, apart=False)),
}
# Tails that fit almost any head, and so say nothing of one: neither reply names them.
_STOPS = "。；;，,、 "  # a sentence brings its own
VAGUE = (*BROAD, "全身", "血液血管", "其他", "人体部位", "其他骨", "免疫系统")


def corrupted(facts: pa.Table) -> Iterator[pa.Table]:
    """A true and a false reply for each head and relation of WRONG and OPPOSED where one can be found.

    `facts` are the canonical ones of the whole graph: what another source knows is not wrong. A table a relation with
    the columns `id, source, title, relation, question, chosen, rejected`; title is the head, id
    "<source>/graph#<head>#<relation>#corrupted". Both replies name as many tails (at most NAMED), of one type, in the
    same words; every tail of `chosen` is true, none of `rejected`. Facts in any order give the same pairs.
    """
    graph = Graph.of(askable(facts))
    for relation, wrong in WRONG.items():
        yield _pairs(graph, *_dealt(graph, relation, wrong))
    yield from _opposed(graph)


def _askable(graph: Graph, relation: str) -> Codes:
    """The edges of a relation that a reply can name: no vague tails, none that are lists themselves, none that can be
    told from the words of the head (气管炎 under 小儿气管炎), and of two tails with one key the first."""
    rows = np.flatnonzero(graph.under((relation,)))
    tails = graph.column("tail", rows)
    vague = pc.or_(pc.is_in(tails, pa.array(VAGUE)), pc.match_substring_regex(tails, PAUSES))
    rows = rows[~vague.to_numpy(zero_copy_only=False)]
    rows = rows[~graph.told(rows)]
    order = np.lexsort((rows, graph.term[rows], graph.head[rows]))
    return np.sort(rows[order[starts_of(graph.head[rows][order], graph.term[rows][order])]])


def _dealt(graph: Graph, relation: str, wrong: Wrong) -> tuple[Codes, Codes]:
    """Edges that true replies name, and for each the edge of another head whose tail the false reply names.

    A tail that is at home almost everywhere, or that finds no head for half of its places, is taken out of both
    replies, and all is dealt anew.
    """
    judged = graph.judge(relation, wrong)
    rows = _askable(graph, relation)
    if wrong.apart:
        # A head without a department gets no false reply; its tails would stand in those of others, and in no true one.
        rows = rows[graph.fields.count(graph.head[rows]) > 0]
        rows = rows[~graph.common(rows, _EVERYWHERE)[graph.term[rows]]]
    for _ in range(_TRIES):
        named = rows[place(graph.head[rows]) < NAMED]
        given = _deal(graph, named, judged)
        left = np.ones(len(named), bool)
        left[given[given >= 0]] = False  # whose tails no head was found for
        places, unplaced = (np.bincount(graph.term[some], minlength=len(graph.terms)) for some in (named, named[left]))
        common = unplaced > (1 - _PLACED) * places
        if not common.any():
            break
        rows = rows[~common[graph.term[rows]]]
    found = given >= 0
    return named[found], named[given[found]]


def _mixed(hashes: UInt64, turn: int) -> UInt64:
    """Hashes in another order every turn."""
    with np.errstate(over="ignore"):
        z = (hashes ^ np.uint64((turn + 1) * 0x9E3779B97F4A7C15 & (2**64 - 1))) * np.uint64(0xBF58476D1CE4E5B9)
    return z ^ (z >> np.uint64(31))


def _small(numbers: Codes) -> NDArray[np.unsignedinteger[Any]]:
    """Numbers in the same order that take few bits, which numpy sorts in linear time."""
    values, place = np.unique(numbers, return_inverse=True)
    return place.astype(np.min_scalar_type(len(values)))


def _sorted(hashes: UInt64, groups: NDArray[np.unsignedinteger[Any]]) -> Codes:
    """The order by group, then by hash."""
    order = np.argsort(hashes)
    return order[np.argsort(groups[order], kind="stable")]


def _deal(graph: Graph, rows: Codes, judged: Callable[[Codes, Codes], Mask]) -> Codes:
    """For each edge the place of the edge whose tail its head is given, -1 where none fits; none is given twice.

    Dealt by the hashes of the edges, among tails of one length first, so that both replies are equally long.
    """
    columns = [graph.column(name, rows) for name in ("head", "relation", "tail")]
    hashes = exact_keys(pc.binary_join_element_wise(*columns, "\n"))[:, 0]
    kind = codes(graph.column("head_type", rows))
    length = pc.utf8_length(columns[2]).to_numpy()
    head, term, size = graph.head[rows], graph.term[rows], len(graph.terms)
    given = np.full(len(rows), -1)
    named = Numbers(np.zeros(0, np.int64), room=len(rows))  # a reply names a tail once
    places = tails = np.arange(len(rows))
    for turn in range(_DEALS):
        group = _small(kind * (length.max(initial=0) + 1) + length if turn < _DEALS // 2 else kind)
        places, tails = (
            some[_sorted(_mixed(hashes[some], 2 * turn + odd), group[some])] for odd, some in enumerate((places, tails))
        )
        fits = np.flatnonzero(judged(head[places], term[tails]))
        fits = fits[named.add(head[places[fits]] * size + term[tails[fits]])]
        given[places[fits]] = tails[fits]
        places, tails = np.delete(places, fits), np.delete(tails, fits)
        if not len(places):
            break
    return given


def _pairs(graph: Graph, rows: Codes, wrong: Codes) -> pa.Table:
    """The pairs that name the tails of the edges `rows`, and of `wrong` in their place."""
    if not len(rows):
        return PAIRS.empty_table()
    starts = np.flatnonzero(starts_of(graph.head[rows]))
    source, head, head_type, relation = (
        graph.column(name, rows[starts]) for name in ("source", "head", "head_type", "relation")
    )
    count = np.diff(np.append(starts, len(rows)))
    no = np.zeros(len(starts), np.int64)
    replies = []
    for named in (rows, wrong):
        tails = pc.utf8_rtrim(pc.utf8_trim_whitespace(graph.column("tail", named)), _STOPS)
        joined = pc.binary_join(
            pa.ListArray.from_arrays(pa.array(np.append(starts, len(rows)), pa.int32()), tails), "、"
        )
        one = pa.ListArray.from_arrays(pa.array(np.arange(len(starts) + 1), pa.int32()), joined)
        sections = Sections(source, head, head_type, relation, no.astype(bool), no, one, count)
        replies.append(tell(sections, head))
    templates, which = choose(sections, lambda wording, _: wording.asked, "asked")
    question = fill(templates, which, head=head, relation=relation)
    ids = pc.binary_join_element_wise(source, "/graph#", head, "#", relation, "#corrupted", "")
    return pa.Table.from_arrays([ids, source, head, relation, question, *replies], schema=PAIRS)


def _opposed(graph: Graph) -> Iterator[pa.Table]:
    """Pairs on heads of which the graph knows what is good for them and what is bad, for both questions.

    A head is asked both or neither, with the same tails, so that each is named as often in true replies as in false.
    """
    named = {}
    for asked, (relation, wrong) in OPPOSED.items():
        rows = _askable(graph, relation)
        named[asked] = rows[graph.judge(asked, wrong)(graph.head[rows], graph.term[rows])]
    most = np.min([np.bincount(graph.head[rows], minlength=len(graph.names)) for rows in named.values()], axis=0)
    for asked, rows in named.items():
        named[asked] = rows[place(graph.head[rows]) < np.minimum(most, NAMED)[graph.head[rows]]]
    for asked, (relation, _) in OPPOSED.items():
        yield _pairs(graph, named[relation], named[asked])
