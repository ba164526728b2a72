"""What passages before a question were worth: whether replies cite them, and whether holding the answer helped.

hit        an exam item where one passage that was shown holds the text of every right option (`questions.held`)
cited      a reply that names a passage by a number that was shown
unknown    a reply that names a number that was not
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qilin.evaluate.questions import Asked
from qilin.evaluate.recipe import Arm, Method
from qilin.evaluate.stats import Interval, wilson
from qilin.rag.citations import citations

Right = Callable[[Arm, Method], Sequence[bool]]  # by arm and method, over the same items


@dataclass(frozen=True, slots=True)
class Part:
    """Accuracy on a part of the items, and that of the closed book on the same items, where that arm was run.

    Items whose answer a search finds may be easier ones: the closed book shows by how much.
    """

    accuracy: Interval
    closed: Interval | None


@dataclass(frozen=True, slots=True)
class Grounding:
    """The passages of one arm over one set.

    shown: items with any passage. each: passages an item, on average over all. hits: the share of exam items that are
    hits. accuracy: by method, on the hits and on the misses; items without passages are misses, and a part without
    items is None. replies: those that came where passages were shown; cited, unknown: their share, None without any.
    """

    n: int
    shown: int
    each: float
    hits: Interval | None
    accuracy: Mapping[Method, Mapping[str, Part | None]]
    replies: int
    cited: Interval | None
    unknown: Interval | None


def cites(one: Asked, answer: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What a reply cites of the passages that were shown, for the file of items; nothing where there is none."""
    if not one.passages or "reply" not in answer:
        return {}
    found = citations(answer["reply"], one.passages)
    return {"cited": list(found.cited), "unknown": list(found.unknown)}


def grounding(
    asked: Sequence[Asked], methods: Sequence[Method], right: Right, replies: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The grounding of one arm over one set, as JSON holds it.

    asked: its items, all exam items or all open questions. right: which items an arm answered right, by method; for the
    arm "closed" an empty list where that was not run. replies: the generated answers, none where nothing was generated.
    """
    found = [cites(one, answer) for one, answer in zip(asked, replies, strict=True)] if replies else []
    cited = [bool(one["cited"]) for one in found if one]
    unknown = [bool(one["unknown"]) for one in found if one]
    hits = [bool(one.hit) for one in asked]
    exam = asked[0].item.kind == "exam"
    accuracy: dict[Method, dict[str, Part | None]] = {}
    for method in methods if exam else ():
        own, closed = right(asked[0].arm, method), right("closed", method)
        accuracy[method] = {
            name: _part([place for place, hit in enumerate(hits) if hit is wanted], own, closed)
            for name, wanted in (("hit", True), ("miss", False))
        }
    counts = [len(one.passages) for one in asked]
    return asdict(
        Grounding(
            n=len(asked),
            shown=sum(map(bool, counts)),
            each=sum(counts) / len(asked),
            hits=wilson(sum(hits), len(asked)) if exam else None,
            accuracy=accuracy,
            replies=len(cited),
            cited=wilson(sum(cited), len(cited)) if cited else None,
            unknown=wilson(sum(unknown), len(unknown)) if unknown else None,
        )
    )


def _part(places: Sequence[int], own: Sequence[bool], closed: Sequence[bool]) -> Part | None:
    if not places:
        return None
    shares = [wilson(sum(right[place] for place in places), len(places)) if right else None for right in (own, closed)]
    assert shares[0] is not None
    return Part(shares[0], shares[1])
