"""Documents of entities and questions on them."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chimed import phrases
from chimed.graph import paths
from chimed.graph.merge import Mask, askable, codes, equal, parts, starts_of
from chimed.graph.sections import Sections, choose, join, sections_of, tell
from chimed.phrases import fill, pick

DOCUMENTS = pa.schema([("id", pa.string()), ("source", pa.string()), ("title", pa.string()), ("text", pa.string())])
QUESTIONS = pa.schema(
    [(name, pa.string()) for name in ("id", "source", "title", "relation", "form", "question", "answer")],
)


def documents(facts: pa.Table) -> Iterator[pa.Table]:
    """One document a head entity, merged over sources: columns `id, source, title, text`, some at a time, by title.

    `facts` are canonical. Title is the head, id "<source>/graph#<head>" with the source of the entity's first fact.
    Relations of one topic stand in a paragraph; an attribute in prose is its own paragraph.

    >>> rows = [("a/1", "a", "百日咳", "科室", "儿科"), ("a/2", "a", "百日咳", "科室", "小儿内科")]
    >>> names = ("id", "source", "head", "relation", "tail")
    >>> facts = pa.table({name: list(column) for name, column in zip(names, zip(*rows))})
    >>> facts = facts.append_column("head_type", [["疾病"] * 2]).append_column("tail_type", [["科室"] * 2])
    >>> from chimed.graph import canonical
    >>> next(documents(canonical(facts)))["text"].to_pylist()
    ['百日咳的就诊科室为儿科、小儿内科。']
    """
    for part in parts(facts):
        yield _documents(sections_of(_told_once(part)))


def questions(facts: pa.Table) -> Iterator[pa.Table]:
    """Questions on a graph, some at a time: columns `id, source, title, relation, form, question, answer`; title is
    whom it asks about.

    `facts` are canonical. form "direct": one a relation of a head, sorted by head; the answer is a sentence, or the
    prose of the attribute; source is that of the relation's first fact, id "<source>/graph#<head>#<relation>". The last
    table holds, sorted by id, the forms of `chimed.graph.paths`, ids ending in "#<form>": "reverse" asks for the heads
    of a tail, "signs" for the disease that a set of signs points to (both together at most REVERSE_SHARE of all
    questions), "two-hop" for what is known of a complication (at most TWO_HOP_SHARE). Nothing is asked about heads of
    the types `phrases.UNASKED`.
    """
    facts = askable(facts)
    direct = 0
    for part in parts(facts):
        table = _questions(sections_of(part))
        direct += len(table)
        yield table
    if direct:
        yield paths.asked(facts, direct, QUESTIONS.names)


# What a document tells under one relation only: tails of the first that the head has under the second too.
_TOLD_ELSEWHERE = (("推荐药物", "常用药物"), ("宜吃", "推荐食谱"))


def _told_once(facts: pa.Table) -> pa.Table:
    pairs = pc.binary_join_element_wise(facts["head"].combine_chunks(), facts["tail"].combine_chunks(), "\n")
    again = np.zeros(len(facts), bool)
    for relation, other in _TOLD_ELSEWHERE:
        one, two = (equal(facts["relation"].combine_chunks(), name) for name in (relation, other))
        again |= one & pc.is_in(pairs, pairs.filter(pa.array(two))).to_numpy(zero_copy_only=False)
    return facts.filter(pa.array(~again))


def _subjects(sections: Sections, opens: Mask) -> pa.Array:
    """Who a document speaks of: the head where it opens, later now and then 该病 or 本病."""
    words = [word for words in phrases.PRONOUNS.values() for word in words]
    kind = pc.index_in(sections.head_type, pa.array(list(phrases.PRONOUNS)))
    known = pc.is_valid(kind).to_numpy(zero_copy_only=False)
    counts = np.array([len(words) for words in phrases.PRONOUNS.values()])
    number = pc.fill_null(kind, 0).to_numpy().astype(np.int64)
    which = (np.cumsum(counts) - counts)[number] + pick(sections.head, counts[number], "pronoun")
    keys = pc.binary_join_element_wise(sections.head, sections.relation, "\n")
    stands_in = known & ~opens & (pick(keys, 2, "subject") == 0)
    return pc.if_else(pa.array(stands_in), pa.array(words).take(pa.array(which)), sections.head)


_PLACES = {name: place for place, name in enumerate(name for group in phrases.PARAGRAPHS.values() for name in group)}
_PARAGRAPH = np.array(
    [number for number, names in enumerate(phrases.PARAGRAPHS.values()) for _ in names] + [len(phrases.PARAGRAPHS)]
)


def _documents(sections: Sections) -> pa.Table:
    """Documents from the sections of whole heads."""
    place = pc.fill_null(pc.index_in(sections.relation, pa.array(list(_PLACES))), len(_PLACES)).to_numpy()
    paragraph = _PARAGRAPH[place]
    orders = np.array([[*map(order.index, phrases.PARAGRAPHS), len(order)] for order in phrases.ORDERS])
    turn = orders[pick(sections.head, len(orders), "order"), paragraph]
    head = codes(sections.head, ranked=False)  # sections come sorted by head, so codes are in order
    order = np.lexsort((np.arange(len(sections)), place, turn, head))
    lead = pa.array(np.flatnonzero(starts_of(head)))
    source, title = sections.source.take(lead), sections.head.take(lead)  # before reordering: of the first fact
    sections, head, paragraph = sections.take(order), head[order], paragraph[order]

    opens = starts_of(head)
    sections.case[~opens & equal(sections.relation, phrases.OVERVIEW)] = 1
    told = tell(sections, _subjects(sections, opens))
    alone = sections.prose.copy()
    alone[1:] |= sections.prose[:-1]  # a paragraph of prose ends before the next section
    breaks = ~opens & (starts_of(paragraph) | alone)
    parted = pa.array(["", "\n"]).take(pa.array(breaks.astype(np.int8)))
    text = join(pc.binary_join_element_wise(parted, told, ""), np.flatnonzero(opens))
    return pa.Table.from_arrays([_id(source, title), source, title, text], schema=DOCUMENTS)


def _id(source: pa.Array, head: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(source, "/graph#", head, "")


def _questions(sections: Sections) -> pa.Table:
    """A question and its answer from each section."""
    templates, which = choose(sections, lambda wording, _: wording.asked, "asked")
    asked = fill(templates, which, head=sections.head, relation=sections.relation)
    prose = pc.list_element(sections.tails, 0)
    answer = pc.if_else(pa.array(sections.prose), prose, tell(sections, sections.head))
    ids = pc.binary_join_element_wise(_id(sections.source, sections.head), "#", sections.relation, "")
    form = pa.repeat("direct", len(sections))
    columns = [ids, sections.source, sections.head, sections.relation, form, asked, answer]
    return pa.Table.from_arrays(columns, schema=QUESTIONS)
