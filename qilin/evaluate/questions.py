"""What is asked: the items of a recipe's sets in each of its arms, as prompts, and the passages that stand in them."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from qilin.evaluate import exam, prompt
from qilin.evaluate.exam import Item
from qilin.evaluate.prompt import Passage
from qilin.evaluate.recipe import Arm, Method, Recipe

DEPTH = 3  # so many times k passages are looked at, so that copies of each other do not fill the places
GRAM, NEW = 4, 0.2  # see `distinct`


@dataclass(frozen=True, slots=True)
class Asked:
    """An item in one arm: permutation `number` of its options, the prompt, and what was shown before the question.

    hit: whether a passage that was shown holds the right options, as `held` says; None for an open question.
    """

    item: Item
    set: str
    arm: Arm
    number: int
    prompt: str
    passages: tuple[Passage, ...]
    hit: bool | None


@dataclass(frozen=True, slots=True)
class Questions:
    """All that a recipe asks, in order. index: the sha256 of the index that was searched, and its passages."""

    sets: Mapping[str, Sequence[Item]]
    shots: Sequence[Item]
    asked: Sequence[Asked]
    index: Mapping[str, Any] | None


def questions(recipe: Recipe) -> Questions:
    """Every item in every arm; exam items of the first arm in every order of their options.

    Raises DataError for sets that are not there or too small, RunError for an index that cannot be searched.
    """
    said = recipe.data
    sets = {
        name: exam.read_items(
            said.path,
            [name],
            rows=said.rows.get(name) if isinstance(said.rows, dict) else said.rows,
            seed=recipe.seed,
            disciplines={own: wanted for own, wanted in said.disciplines.items() if own == name},
        )
        for name in said.sets
    }
    shots = _shots(recipe, [item for own in sets.values() for item in own])
    library = _Library(recipe)
    asked = [
        one for name, items in sets.items() for arm in recipe.arms for one in _ask(library, name, arm, items, shots)
    ]
    return Questions(sets, shots, asked, library.index)


def methods(recipe: Recipe, item: Item) -> Sequence[Method]:
    """How an item is asked: an open question has nothing to choose among."""
    return recipe.exam.methods if item.kind == "exam" else ("generation",)


def candidates(item: Item, method: Method) -> tuple[str, ...]:
    """What a method chooses among: single letters, or all sets of letters.

    >>> candidates(Item("a/1", "a", "test", "?", ("甲", "乙", "丙"), "B"), "sets")
    ('A', 'B', 'C', 'AB', 'AC', 'BC', 'ABC')
    """
    if method == "generation":
        return ()
    sizes = range(1, 1 + (len(item.letters) if method == "sets" else 1))
    return tuple("".join(chosen) for size in sizes for chosen in itertools.combinations(item.letters, size))


def held(item: Item, shown: Sequence[Passage]) -> bool:
    """Whether one of the passages holds the text of every right option.

    Both are compared without regard to case, width, script and punctuation (`chimed.text.fold`), title and text each
    for itself. An option of which fewer than two characters are left is held by none: a single character stands
    anywhere. A hit does not say that the passage answers the question: it may speak of the wrong options too.

    >>> item = Item("a/1", "a", "test", "首选药是", ("阿司匹林", "青霉素"), "B")
    >>> held(item, [Passage("p@0", 1, "", "首选 青霉素，其次…")]), held(item, [Passage("p@1", 1, "", "青 霉菌")])
    (True, False)
    """
    right = _folded([item.options[item.letters.index(letter)] for letter in item.answer])
    if not shown or not right or min(map(len, right)) < 2:
        return False
    parts = _folded([part for passage in shown for part in (passage.title, passage.text)])
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return any(all(option in title or option in text for option in right) for title, text in pairs)


def distinct(texts: Sequence[str], most: int) -> list[int]:
    """The places of the first texts that say something new, `most` of them at most: copies are passed over.

    Sources copy from each other, and one paragraph stands under many titles. A text is passed over where less than a
    fifth of its runs of four characters, folded, is in none of those taken before it.

    >>> distinct(["头痛多由感冒引起，应多休息。", "头痛多由感冒引起, 应多休息", "头痛也见于高血压。"], 2)
    [0, 2]
    """
    taken: list[int] = []
    known: set[str] = set()
    for place, text in enumerate(_folded(texts)):
        grams = {text[begin : begin + GRAM] for begin in range(max(1, len(text) - GRAM + 1))}
        if len(taken) < most and len(grams - known) >= NEW * len(grams):
            taken.append(place)
            known |= grams
    return taken


def new(hits: Sequence[Any], most: int) -> list[Any]:
    """The first hits that say something new, `most` of them at most."""
    return [hits[place] for place in distinct([hit.text for hit in hits], most)]


def _folded(texts: Sequence[str]) -> list[str]:
    import pyarrow as pa

    from chimed.text import fold

    found: list[str] = fold(pa.array(texts, pa.string())).to_pylist()
    return found


def _shots(recipe: Recipe, items: Sequence[Item]) -> list[Item]:
    if not recipe.exam.shots or not recipe.exam.shots_from:
        return []
    free = exam.read_items(recipe.data.path, [recipe.exam.shots_from])
    return prompt.draw(free, recipe.exam.shots, items, seed=recipe.seed)


def _ask(library: "_Library", name: str, arm: Arm, items: Sequence[Item], shots: Sequence[Item]) -> Iterator[Asked]:
    recipe = library.recipe
    for item, shown in zip(items, library.passages(arm, items), strict=True):
        orders = recipe.exam.permutations if item.kind == "exam" and arm == recipe.arms[0] else 0
        hit = held(item, shown) if item.kind == "exam" else None
        for number in range(1 + orders):
            own = exam.permuted(item, number, seed=recipe.seed)
            turns = prompt.messages(own, shots if item.kind == "exam" else (), shown)
            yield Asked(own, name, arm, number, prompt.dump(turns), tuple(shown), hit)


@dataclass(frozen=True)
class _Library:
    """Where the passages of an arm come from; the index is opened once."""

    recipe: Recipe

    def passages(self, arm: Arm, items: Sequence[Item]) -> list[list[Passage]]:
        """What each item is shown; the question alone is searched for, since options give answers away."""
        said = self.recipe.rag
        if arm == "closed":
            return [[] for _ in items]
        if arm == "oracle":
            budget = said.budget if said else 1200
            return [prompt.passages([(f"{item.id}#explanation", "", item.explanation)], budget) for item in items]
        assert said is not None
        if arm == "rag":
            texts = [item.question for item in items]
            hits = self._retriever.search(texts, DEPTH * said.k, said.mode, leaked=said.leaked)
        else:
            hits = self._retriever.random([item.id for item in items], said.k, seed=self.recipe.seed)
        return [
            prompt.passages([(hit.id, hit.title, hit.text) for hit in new(own, said.k)], said.budget) for own in hits
        ]

    @property
    def index(self) -> dict[str, Any] | None:
        if not {"rag", "random"} & set(self.recipe.arms):
            return None
        return {"sha256": self._retriever.digest, "passages": len(self._retriever)}

    @cached_property
    def _retriever(self) -> Any:
        from qilin.rag.retrieve import Retriever

        assert self.recipe.rag is not None
        return Retriever(self.recipe.rag.index)
