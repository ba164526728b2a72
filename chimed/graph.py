"""Knowledge graphs as text: a readable document an entity, a question and its answer a relation of an entity.

Facts of all sources meet under the name of their head. The same facts give the same text in whatever order they come:
they are sorted by head, relation and id first, and every choice of wording hangs on a hash of the words themselves.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chimed import phrases
from chimed.phrases import Codes, fill, pick

Mask = NDArray[np.bool_]
_Offer = Callable[[phrases.Wording, int], tuple[str, ...]]  # what a wording has for a case

PER_SENTENCE = 12  # tails that a sentence names
SENTENCES = 3  # sentences that a relation gets; what is beyond them is counted, not listed
SLICE = 300_000  # facts worded at once: bounds memory and the 2 GB that one Arrow string array holds

DOCUMENTS = pa.schema([("id", pa.string()), ("source", pa.string()), ("title", pa.string()), ("text", pa.string())])
QUESTIONS = pa.schema(
    [(name, pa.string()) for name in ("id", "source", "title", "relation", "question", "answer")],
)


def documents(facts: pa.Table, trust: Sequence[str] = ()) -> pa.Table:
    """One document a head entity, merged over sources: columns `id, source, title, text`, sorted by title.

    `facts` is a table of facts with the column `source`; title is the head, id "<source>/graph#<head>" with the source
    of the entity's first fact, sources in order of `trust`, then by name. Relations of one topic stand in a paragraph;
    an attribute in prose is its own paragraph.

    >>> rows = [("a/1", "a", "百日咳", "科室", "儿科"), ("a/2", "a", "百日咳", "科室", "小儿内科")]
    >>> names = ("id", "source", "head", "relation", "tail")
    >>> facts = pa.table({name: list(column) for name, column in zip(names, zip(*rows))})
    >>> facts = facts.append_column("head_type", [["疾病"] * 2]).append_column("tail_type", [["科室"] * 2])
    >>> documents(facts).to_pylist()[0]["text"]
    '百日咳的就诊科室为儿科、小儿内科。'
    """
    return _worded(facts, trust, _documents, DOCUMENTS)


def questions(facts: pa.Table, trust: Sequence[str] = ()) -> pa.Table:
    """One question a relation of a head: columns `id, source, title, relation, question, answer`, sorted by title.

    The answer is a sentence, or the prose of the attribute; source is that of the relation's first fact, id
    "<source>/graph#<head>#<relation>".
    """
    return _worded(facts, trust, _questions, QUESTIONS)


@dataclass(frozen=True, slots=True)
class _Sections:
    """What is known about a head under one relation: an entry a section, sections of one head together.

    prose: whether its tails are paragraphs. case: number of the pattern (`Wording.told`) its tails are told by.
    tails: a list a section, of the joined tails of each of its sentences. count: how many tails there are.
    """

    source: pa.Array
    head: pa.Array
    head_type: pa.Array
    relation: pa.Array
    prose: Mask
    case: Codes
    tails: pa.ListArray
    count: Codes

    def __len__(self) -> int:
        return len(self.head)

    def take(self, order: Codes) -> "_Sections":
        rows = pa.array(order)
        return _Sections(
            source=self.source.take(rows),
            head=self.head.take(rows),
            head_type=self.head_type.take(rows),
            relation=self.relation.take(rows),
            prose=self.prose[order],
            case=self.case[order],
            tails=self.tails.take(rows),
            count=self.count[order],
        )


def _worded(
    facts: pa.Table, trust: Sequence[str], make: Callable[[_Sections], pa.Table], schema: pa.Schema
) -> pa.Table:
    tables = [make(_sections(part)) for part in _parts(_canonical(facts, trust))]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _codes(column: pa.Array, *, ranked: bool = True) -> Codes:
    """A number a text: equal for equal texts and, if ranked, in their order."""
    encoded = column.dictionary_encode()
    codes: Codes = encoded.indices.to_numpy().astype(np.int64)
    if not ranked:
        return codes
    rank: Codes = np.empty(len(encoded.dictionary), np.int64)
    rank[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(rank))
    found: Codes = rank[codes]
    return found


def _starts(*codes: Codes) -> Mask:
    """Where a run of equal codes begins."""
    begins = np.ones(len(codes[0]), bool)
    begins[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in codes])
    return begins


def _canonical(facts: pa.Table, trust: Sequence[str]) -> pa.Table:
    """The facts sorted by head, relation, source and id, each (head, relation, tail) once."""
    names = ("id", "source", "head", "relation", "tail", "head_type", "tail_type")
    table = pa.table({name: facts[name].cast(pa.large_string()).combine_chunks() for name in names})
    head, relation, key = (_codes(table[name].combine_chunks()) for name in ("head", "relation", "id"))
    sources = table["source"].combine_chunks()
    source = _codes(sources)
    for place, name in enumerate(trust):
        source = np.where(_equal(sources, name), place - len(trust), source)
    tail = _codes(table["tail"].combine_chunks(), ranked=False)
    # The shorter id first: row 9 of a file stands before row 10.
    length = pc.binary_length(table["id"]).to_numpy()
    order = np.lexsort((key, length, source, tail, relation, head))
    order = order[_starts(head[order], relation[order], tail[order])]
    order = order[np.lexsort((key[order], length[order], source[order], relation[order], head[order]))]
    return table.take(pa.array(order))


def _parts(facts: pa.Table) -> Iterator[pa.Table]:
    """Slices of sorted facts that never part a head."""
    if not len(facts):
        return
    begins = np.flatnonzero(_starts(_codes(facts["head"].combine_chunks(), ranked=False)))
    cuts = np.unique(begins[np.searchsorted(begins, np.arange(0, begins[-1] + 1, SLICE))])
    for start, stop in zip(cuts, [*cuts[1:], len(facts)], strict=True):
        part = facts.slice(start, stop - start)
        yield pa.table({name: part[name].cast(pa.string()).combine_chunks() for name in part.column_names})


def _equal(texts: pa.Array, text: str) -> Mask:
    mask: Mask = pc.equal(texts, text).to_numpy(zero_copy_only=False)
    return mask


def _cases(relation: pa.Array, tail: pa.Array) -> Codes:
    """The number of the first pattern of its relation's wording that is found in each tail."""
    case = np.zeros(len(tail), np.int64)
    for name, wording in phrases.WORDINGS.items():
        if len(wording.told) == 1:
            continue
        rows = np.flatnonzero(_equal(relation, name))
        texts = tail.take(pa.array(rows))
        for number in reversed(range(len(wording.told))):
            found = pc.match_substring_regex(texts, wording.told[number][0]).to_numpy(zero_copy_only=False)
            case[rows[found]] = number
    return case


def _sections(facts: pa.Table) -> _Sections:
    """The sections of facts that are sorted and combined, one a (head, relation)."""
    columns = {name: facts[name].combine_chunks() for name in facts.column_names}
    head, relation = (_codes(columns[name], ranked=False) for name in ("head", "relation"))
    tail = pc.utf8_trim_whitespace(columns["tail"])
    case = _cases(columns["relation"], tail)

    # Values of two sources contradict each other: the source of the first one speaks, and only with its first answer.
    begins = _starts(head, relation)
    first = np.flatnonzero(begins)[np.cumsum(begins) - 1]
    source = _codes(columns["source"], ranked=False)
    one_voice = [name for name, wording in phrases.WORDINGS.items() if wording.form == "value"]
    value = pc.is_in(columns["relation"], pa.array(one_voice)).to_numpy(zero_copy_only=False)
    kept = np.flatnonzero(~value | ((source == source[first]) & (case == case[first])))

    begins = begins[kept]  # the first of a section is always kept
    starts = np.flatnonzero(begins)
    count = np.diff(np.append(starts, len(kept)))
    text = _equal(columns["tail_type"], "text")[kept]
    prose = np.logical_or.reduceat(text, starts) & ~value[kept][starts]
    of_section = np.cumsum(begins) - 1
    tails = _tails(tail.take(pa.array(kept)), prose[of_section], np.arange(len(kept)) - starts[of_section])
    lead = pa.array(kept[starts])
    return _Sections(
        source=columns["source"].take(lead),
        head=columns["head"].take(lead),
        head_type=columns["head_type"].take(lead),
        relation=columns["relation"].take(lead),
        prose=prose,
        case=case[kept][starts],
        tails=tails,
        count=count,
    )


def _tails(tail: pa.Array, prose: Mask, rank: Codes) -> pa.ListArray:
    """Tails joined sentence by sentence, a list a section; `rank` counts the tails of a section from 0."""
    listed = np.flatnonzero(prose | (rank < PER_SENTENCE * SENTENCES))
    tail, prose, rank = tail.take(pa.array(listed)), prose[listed], rank[listed]
    # A sentence brings its own full stop.
    tail = pc.if_else(pa.array(prose), tail, pc.utf8_rtrim(tail, "。；;，,、 "))
    sentence = np.where(prose, 0, rank // PER_SENTENCE)
    begins = (rank == 0) | (~prose & (rank % PER_SENTENCE == 0))
    parted = pa.array(["", "、", "\n"]).take(pa.array(np.where(begins, 0, np.where(prose, 2, 1))))
    starts = np.flatnonzero(begins)
    joined = _join(pc.binary_join_element_wise(parted, tail, ""), starts)
    sections = np.flatnonzero(sentence[starts] == 0)
    return pa.ListArray.from_arrays(pa.array(np.append(sections, len(starts)), pa.int32()), joined)


def _join(texts: pa.Array, starts: Codes) -> pa.Array:
    """Texts joined by runs that begin at `starts`."""
    offsets = pa.array(np.append(starts, len(texts)), pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, texts), "")


@lru_cache(maxsize=4096)
def _wording(relation: str, prose: bool) -> phrases.Wording:
    """The wording of a relation: its own where that fits its tails, else the generic one."""
    known = phrases.WORDINGS.get(relation)
    if known and (known.form == "value" or (known.form == "prose") == prose):
        return known
    return phrases.GENERIC["prose" if prose else "list"]


def _choose(
    sections: _Sections, of: Callable[[phrases.Wording, int], tuple[str, ...]], salt: str
) -> tuple[list[str], Codes]:
    """(templates, which): all templates that occur, and the one that each section gets of those `of` offers it."""
    encoded = sections.relation.dictionary_encode()
    relation = encoded.indices.to_numpy().astype(np.int64)
    kinds, inverse = np.unique((relation * 2 + sections.prose) * 16 + sections.case, return_inverse=True)
    templates: dict[tuple[str, ...], int] = {}
    starts, counts = [], []
    for kind in kinds.tolist():  # kinds of section, not sections
        sentences = of(_wording(encoded.dictionary[kind // 32].as_py(), bool(kind // 16 % 2)), kind % 16)
        starts.append(templates.setdefault(sentences, sum(map(len, templates))))
        counts.append(len(sentences))
    keys = pc.binary_join_element_wise(sections.head, sections.relation, "\n")
    which = np.array(starts, np.int64)[inverse] + pick(keys, np.array(counts, np.int64)[inverse], salt)
    return [sentence for sentences in templates for sentence in sentences], which


def _tell(sections: _Sections, subject: pa.Array) -> pa.Array:
    """What a section says of `subject`: the first sentence as the relation is told, the rest as it goes on."""
    offsets = sections.tails.offsets.to_numpy().astype(np.int64)
    offsets, joined = offsets - offsets[0], sections.tails.flatten()
    of_section = np.repeat(np.arange(len(sections)), np.diff(offsets))
    sentence = np.arange(len(joined)) - offsets[of_section]
    templates, which = _choose(sections, lambda wording, case: wording.told[case][1], "told")
    more = len(templates) + (pick(sections.head, len(phrases.MORE), "more")[of_section] + sentence) % len(phrases.MORE)
    # Prose of several lines begins on a line of its own, but for the overview, which can stand without a lead.
    own_line = pa.array((sections.prose & ~_equal(sections.relation, "概述"))[of_section])
    own_line = pc.and_(own_line, pc.match_substring(joined, "\n"))
    joined = pc.binary_join_element_wise(pc.if_else(own_line, "\n", ""), joined, "")
    told = fill(
        [*templates, *phrases.MORE],
        np.where(sentence == 0, which[of_section], more),
        head=subject.take(pa.array(of_section)),
        relation=sections.relation.take(pa.array(of_section)),
        tails=joined,
    )
    said = _join(told, offsets[:-1])
    shown = PER_SENTENCE * SENTENCES
    cut = ~sections.prose & (sections.count > shown)
    if not cut.any():
        return said
    counts = pa.array(sections.count).cast(pa.string())
    note = fill(phrases.CUT, np.zeros(len(sections), np.int64), shown=str(shown), count=counts)
    return pc.binary_join_element_wise(said, pc.if_else(pa.array(cut), note, ""), "")


def _subjects(sections: _Sections, opens: Mask) -> pa.Array:
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


def _documents(sections: _Sections) -> pa.Table:
    """Documents from the sections of whole heads."""
    place = pc.fill_null(pc.index_in(sections.relation, pa.array(list(_PLACES))), len(_PLACES)).to_numpy()
    paragraph = _PARAGRAPH[place]
    orders = np.array([[*map(order.index, phrases.PARAGRAPHS), len(order)] for order in phrases.ORDERS])
    turn = orders[pick(sections.head, len(orders), "order"), paragraph]
    head = _codes(sections.head, ranked=False)  # sections come sorted by head, so codes are in order
    order = np.lexsort((np.arange(len(sections)), place, turn, head))
    lead = pa.array(np.flatnonzero(_starts(head)))
    source, title = sections.source.take(lead), sections.head.take(lead)  # before reordering: of the first fact
    sections, head, paragraph = sections.take(order), head[order], paragraph[order]

    opens = _starts(head)
    told = _tell(sections, _subjects(sections, opens))
    alone = sections.prose.copy()
    alone[1:] |= sections.prose[:-1]  # a paragraph of prose ends before the next section
    breaks = ~opens & (_starts(paragraph) | alone)
    parted = pa.array(["", "\n"]).take(pa.array(breaks.astype(np.int8)))
    text = _join(pc.binary_join_element_wise(parted, told, ""), np.flatnonzero(opens))
    return pa.Table.from_arrays([_id(source, title), source, title, text], schema=DOCUMENTS)


def _id(source: pa.Array, head: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(source, "/graph#", head, "")


def _questions(sections: _Sections) -> pa.Table:
    """A question and its answer from each section."""
    templates, which = _choose(sections, lambda wording, _: wording.asked, "asked")
    asked = fill(templates, which, head=sections.head, relation=sections.relation)
    prose = pc.list_element(sections.tails, 0)
    answer = pc.if_else(pa.array(sections.prose), prose, _tell(sections, sections.head))
    ids = pc.binary_join_element_wise(_id(sections.source, sections.head), "#", sections.relation, "")
    columns = [ids, sections.source, sections.head, sections.relation, asked, answer]
    return pa.Table.from_arrays(columns, schema=QUESTIONS)
