"""What a graph knows of each head under each relation, and the sentences that tell it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chimed import phrases
from chimed.graph.merge import Mask, codes, equal, starts_of
from chimed.graph.truth import keys
from chimed.phrases import Codes, fill, pick

PER_SENTENCE = 12  # tails that a sentence names
SENTENCES = 3  # sentences that a relation gets; what is beyond them is counted, not listed
PAUSES = "[，、；,;]"  # marks within a name that a list of names must not be parted by


@dataclass(frozen=True, slots=True)
class Sections:
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

    def take(self, order: Codes) -> "Sections":
        rows = pa.array(order)
        return Sections(
            source=self.source.take(rows),
            head=self.head.take(rows),
            head_type=self.head_type.take(rows),
            relation=self.relation.take(rows),
            prose=self.prose[order],
            case=self.case[order],
            tails=self.tails.take(rows),
            count=self.count[order],
        )


def _cases(relation: pa.Array, tail: pa.Array) -> Codes:
    """The number of the first pattern of its relation's wording that is found in each tail."""
    case = np.zeros(len(tail), np.int64)
    for name, wording in phrases.WORDINGS.items():
        if len(wording.told) == 1:
            continue
        rows = np.flatnonzero(equal(relation, name))
        texts = tail.take(pa.array(rows))
        for number in reversed(range(len(wording.told))):
            found = pc.match_substring_regex(texts, wording.told[number][0]).to_numpy(zero_copy_only=False)
            case[rows[found]] = number
    return case


def _once(facts: pa.Table) -> pa.Table:
    """Sorted facts without tests that an earlier fact of the head names in other words (颅脑CT检查, 颅脑CT)."""
    tests = np.flatnonzero(equal(facts["relation"].combine_chunks(), "检查"))
    head, tail = (facts[name].combine_chunks().take(pa.array(tests)) for name in ("head", "tail"))
    of, key = codes(head, ranked=False), codes(keys(tail), ranked=False)
    order = np.lexsort((np.arange(len(tests)), key, of))
    kept = np.ones(len(facts), bool)
    if len(tests):
        kept[tests[order[~starts_of(of[order], key[order])]]] = False
    return facts.filter(pa.array(kept))


def sections_of(facts: pa.Table) -> Sections:
    """The sections of facts that are sorted and combined, one a (head, relation)."""
    facts = _once(facts)
    columns = {name: facts[name].combine_chunks() for name in facts.column_names}
    head, relation = (codes(columns[name], ranked=False) for name in ("head", "relation"))
    tail = pc.utf8_trim_whitespace(columns["tail"])
    case = _cases(columns["relation"], tail)

    # Two values contradict each other: the first one speaks, which is that of the source named first.
    begins = starts_of(head, relation)
    one_voice = [name for name, wording in phrases.WORDINGS.items() if wording.form == "value"]
    value = pc.is_in(columns["relation"], pa.array(one_voice)).to_numpy(zero_copy_only=False)
    kept = np.flatnonzero(~value | begins)

    begins = begins[kept]  # the first of a section is always kept
    starts = np.flatnonzero(begins)
    count = np.diff(np.append(starts, len(kept)))
    text = equal(columns["tail_type"], "text")[kept]
    prose = np.logical_or.reduceat(text, starts) & ~value[kept][starts]
    of_section = np.cumsum(begins) - 1
    tails = _tails(tail.take(pa.array(kept)), prose[of_section], np.arange(len(kept)) - starts[of_section])
    lead = pa.array(kept[starts])
    return Sections(
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
    mark = np.where(prose, 1, 2 + marks(tail, rank == 0))
    parted = pa.array(["", "\n", *MARKS]).take(pa.array(np.where(begins, 0, mark)))
    starts = np.flatnonzero(begins)
    joined = join(pc.binary_join_element_wise(parted, tail, ""), starts)
    sections = np.flatnonzero(sentence[starts] == 0)
    return pa.ListArray.from_arrays(pa.array(np.append(sections, len(starts)), pa.int32()), joined)


MARKS = ("、", "；")


def marks(names: pa.Array, begins: Mask) -> Codes:
    """The number of the mark of `MARKS` that parts each name from the one before, by runs that begin at `begins`."""
    starts = np.flatnonzero(begins)
    inner = pc.match_substring_regex(names, PAUSES).to_numpy(zero_copy_only=False)
    runs: Codes = np.logical_or.reduceat(inner, starts).astype(np.int64) if len(starts) else np.zeros(0, np.int64)
    return np.repeat(runs, np.diff(np.append(starts, len(names))))


def join(texts: pa.Array, starts: Codes) -> pa.Array:
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


def choose(
    sections: Sections, of: Callable[[phrases.Wording, int], tuple[str, ...]], salt: str
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


def tell(sections: Sections, subject: pa.Array) -> pa.Array:
    """What a section says of `subject`: the first sentence as the relation is told, the rest as it goes on."""
    offsets = sections.tails.offsets.to_numpy().astype(np.int64)
    offsets, joined = offsets - offsets[0], sections.tails.flatten()
    of_section = np.repeat(np.arange(len(sections)), np.diff(offsets))
    sentence = np.arange(len(joined)) - offsets[of_section]
    templates, which = choose(sections, lambda wording, case: wording.told[min(case, len(wording.told) - 1)][1], "told")
    more = len(templates) + (pick(sections.head, len(phrases.MORE), "more")[of_section] + sentence) % len(phrases.MORE)
    # Prose of several lines begins on a line of its own, but for the overview, which can stand without a lead.
    own_line = pa.array((sections.prose & ~equal(sections.relation, "概述"))[of_section])
    own_line = pc.and_(own_line, pc.match_substring(joined, "\n"))
    joined = pc.binary_join_element_wise(pc.if_else(own_line, "\n", ""), joined, "")
    told = fill(
        [*templates, *phrases.MORE],
        np.where(sentence == 0, which[of_section], more),
        head=subject.take(pa.array(of_section)),
        relation=sections.relation.take(pa.array(of_section)),
        tails=joined,
    )
    said = join(told, offsets[:-1])
    shown = PER_SENTENCE * SENTENCES
    cut = ~sections.prose & (sections.count > shown)
    if not cut.any():
        return said
    counts = pa.array(sections.count).cast(pa.string())
    note = fill(phrases.CUT, np.zeros(len(sections), np.int64), shown=str(shown), count=counts)
    return pc.binary_join_element_wise(said, pc.if_else(pa.array(cut), note, ""), "")
