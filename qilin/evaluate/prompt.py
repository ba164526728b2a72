"""The one frame in which every model, method and arm is asked: messages, and their plain form for base models."""

import hashlib
import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from qilin.errors import DataError
from qilin.evaluate.exam import Item

Messages = list[dict[str, str]]

_TASK = "请回答下面的医学选择题。正确答案可能是一项或多项，只需写出正确选项的字母。"
_GROUNDS = "以下资料可供参考，也可能与问题无关；用到时请注明编号。"
_QUESTION, _ANSWER = "问题：", "答案："
# The plain form: turns follow each other with a blank line between, which therefore ends an answer.
END_OF_PLAIN = "\n\n"
STOP_OF_PLAIN = f"\n{_QUESTION}"
CUT = "\0cut\0"  # what stands after a reply that ended where its room did


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage as it is shown: `id` is what a citation is checked against, `number` what the model sees."""

    id: str
    number: int
    title: str
    text: str

    @property
    def block(self) -> str:
        """What the model reads of it, but for its number: a title stands on a line of its own."""
        return f"{self.title}\n{self.text}" if self.title else self.text


def messages(item: Item, shots: Sequence[Item] = (), passages: Sequence[Passage] = ()) -> Messages:
    """The conversation that asks an item: shots as solved turns, the item's history, passages, and the question.

    >>> item = Item("a/1", "a", "test", "首选药是", ("甲", "乙"), "B")
    >>> print(messages(item)[0]["content"])
    请回答下面的医学选择题。正确答案可能是一项或多项，只需写出正确选项的字母。
    <BLANKLINE>
    问题：首选药是
    A. 甲
    B. 乙
    >>> [turn["content"] for turn in messages(item, [item]) if turn["role"] == "assistant"]
    ['B']
    """
    turns: Messages = []
    for shot in shots:
        turns += [
            {"role": "user", "content": _asked(shot)},
            {"role": "assistant", "content": shot.answer},
        ]
    turns += [{"role": turn["role"], "content": turn["content"]} for turn in item.history]
    return [*turns, {"role": "user", "content": _shown(passages) + _asked(item)}]


def plain(turns: Messages) -> str:
    """The messages as one text for a model without a chat template, up to where its answer begins.

    >>> plain([{"role": "user", "content": "甲"}, {"role": "assistant", "content": "B"}, {"role": "user",
    ... "content": "乙"}])
    '甲\\n答案：B\\n\\n乙\\n答案：'
    """
    parts = []
    for turn in turns:
        if turn["role"] == "assistant":
            parts.append(f"{turn['content']}{END_OF_PLAIN}")
        else:
            parts.append(f"{turn['content']}\n{_ANSWER}" if turn["role"] == "user" else turn["content"] + END_OF_PLAIN)
    return "".join(parts)


def draw(candidates: Sequence[Item], number: int, asked: Sequence[Item], *, seed: int) -> list[Item]:
    """So many solved examples, chosen by the seed and the items' ids alone; never a question that is asked itself.

    Raises DataError where the candidates do not suffice.
    """
    taken = {item.question for item in asked}
    free = [item for item in candidates if item.kind == "exam" and item.question not in taken]
    if len(free) < number:
        raise DataError(f"{number} shots are wanted, the set holds {len(free)} exam items besides those asked")
    return heapq.nsmallest(number, free, key=lambda item: hashlib.sha256(f"shot {seed}/{item.id}".encode()).digest())


def passages(found: Sequence[tuple[str, str, str]], budget: int) -> list[Passage]:
    """The (id, title, text) that fit a budget of characters, titles included, best first; the last is cut to fit.

    A title that its text begins with is not shown twice.

    >>> [passage.text for passage in passages([("a", "", "甲乙丙"), ("b", "", "丁戊"), ("c", "", "己")], 4)]
    ['甲乙丙', '丁']
    """
    kept: list[Passage] = []
    for id_, named, said in found:
        title, text = " ".join(named.split()), said.strip()
        passage = Passage(id_, len(kept) + 1, "" if text.startswith(title) else title, text)
        over = len(passage.block) - budget
        if over > 0:
            passage = replace(passage, text=passage.text[: max(0, len(passage.text) - over)])
        if not passage.text:
            break
        kept.append(passage)
        budget -= len(passage.block)
    return kept


def digest() -> str:
    """sha256 of the wording, over one question of each kind in both forms: equal digests, equal frames."""
    asked = Item("a/1", "a", "test", "甲", ("乙", "丙"), "A"), Item("a/2", "a", "test", "甲", (), "乙")
    shown = [Passage("丁", 1, "戊", "己"), Passage("庚", 2, "", "辛")]
    forms = [messages(item, asked[:1], shown) for item in asked]
    return hashlib.sha256("\0".join([*map(dump, forms), *map(plain, forms)]).encode()).hexdigest()


def dump(turns: Messages) -> str:
    """Messages as the text that goes through an `LM` and into hashes."""
    return json.dumps(turns, ensure_ascii=False)


def _asked(item: Item) -> str:
    if item.kind == "open":
        return item.question
    options = (f"{letter}. {option}" for letter, option in zip(item.letters, item.options, strict=True))
    return "\n".join([_TASK, "", f"{_QUESTION}{item.question}", *options])


def _shown(given: Sequence[Passage]) -> str:
    if not given:
        return ""
    blocks = [f"[{passage.number}] {passage.block}" for passage in given]
    return "\n\n".join([_GROUNDS, *blocks, ""]) + "\n"
