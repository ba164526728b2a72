"""Citations in a reply, checked against the passages that were shown.

Passages are shown as [1], [2] and so on. Models cite them as [1], 【1】, [1,2] or [1-3], and by name: （资料1）,
参考资料 2, 第一条资料, Source 1. Letters are options and four digits are a year, unless a passage has that number. What
a reasoning model thinks before it replies cites nothing.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

# Signs of double width and Chinese brackets as their ASCII forms, one for one, so that places stay what they are.
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | str.maketrans("【】〔〕〖〗　、；", "[][][] ,;")
_HAN = "一二三四五六七八九十"

# 临床资料60例 describes patients, 资料3份 counts: neither cites.
_OTHER = r"(?<!临床)(?<!一般)(?<!病例)(?<!病历)(?<!病史)(?<!检查)(?<!影像)(?<!个人)(?<!基本)(?<!基线)(?<!统计)(?<!研究)"
_UNIT = r"\s*(?:%|℃|[例类](?![如似])|[份个篇条则种名岁年月周天日次倍型期级度位]|小时|分钟|毫|微克|克)|\d|[A-Za-z]|\.\d"
# A numeral in Han characters is one where the sentence goes on about the passage: not 资料一般, 资料一致, 资料三方面.
_GOES_ON = (
    r"(?=[^\u3400-\u9fff]|[中里内的所和与及也都均则]|指出|提[到及示]|显示|表明|说|认为|介绍|描述|记载|建议|可[知见]|$)"
)
_NUMBER = rf"(?:(?:第\s*)?\d+(?!{_UNIT})|(?:第\s*)?[{_HAN}]{_GOES_ON})"
_ENGLISH = r"(?<![A-Za-z])(?:source|passage|reference|ref|document|doc)s?\.?"
_NAME = rf"(?:{_OTHER}(?:参考)?(?:资料|文献|来源|出处)|编号|{_ENGLISH})"
_GAP = r"[^\S\n]*"  # what begins a line counts the lines
_NAMED = rf"{_NAME}(?:编号)?{_GAP}(?:[:为是#(\[]|no\.)?{_GAP}"
_AND = rf"{_GAP}[)\]]?{_GAP}(?:[,;&~–—-]|和|与|以?及|至|到|\band\b){_GAP}"
_BY_NAME = re.compile(rf"{_NAMED}(?P<list>{_NUMBER}(?:{_AND}(?:{_NAMED}|[(\[])?{_NUMBER})*)", re.I)
# 参考资料：1. 内科学 begins a list that the model made up: the number is its own.
_OWN_LIST = re.compile(r":\s*\d+\s*[.,]\s*[^\d\s]")
_BY_PLACE = re.compile(
    rf"(?:第(?P<list>\s*(?:\d+|[{_HAN}])(?:{_AND}第?\s*(?:\d+|[{_HAN}]))*)\s*[条份篇则个]?|(?P<plain>\d+)\s*号)"
    r"\s*(?:参考)?(?:资料|文献|来源|出处)"
)
_BARE = re.compile(r"\[\s*(?P<list>\^?#?\s*\d+(?:\s*(?:[,;&~–—-]|和|与|至|到|\s)\s*(?:资料|#)?\s*\d+)*)\s*\\?\]")
_PART = re.compile(rf"\d+|[{_HAN}]")
_RANGE = re.compile(r"\s*(?:[~–—-]|至|到)\s*")
_THOUGHT = re.compile(r"\A.*</think>", re.S)


class Shown(Protocol):
    """A passage as a model saw it: `number` is how it is cited."""

    @property
    def id(self) -> str: ...
    @property
    def number(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Citations:
    """What a reply cites: ids of passages in the order of their first citation, and numbers that were never shown."""

    cited: tuple[str, ...]
    unknown: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Mention:
    """The characters [start, end) of a reply that name passages; several numbers for a range."""

    start: int
    end: int
    numbers: tuple[int, ...]


def citations(reply: str, shown: Sequence[Shown]) -> Citations:
    """The passages that a reply cites, each once, and the numbers in it that name no passage that was shown.

    >>> from qilin.evaluate.prompt import Passage
    >>> shown = [Passage("a/1@0", 1, "", "甲"), Passage("a/2@0", 2, "", "乙")]
    >>> citations("多见于小儿【2】。另见资料1和资料7；2020年[2020]的指南选[A]。", shown)
    Citations(cited=('a/2@0', 'a/1@0'), unknown=(7,))
    """
    ids = {passage.number: passage.id for passage in shown}
    numbers = dict.fromkeys(number for mention in mentions(reply, ids) for number in mention.numbers)
    cited = dict.fromkeys(ids[number] for number in numbers if number in ids)
    return Citations(tuple(cited), tuple(number for number in numbers if number not in ids))


def mentions(reply: str, shown: Collection[int]) -> list[Mention]:
    """Where a reply names passages, in its order; `shown` are the numbers that it was given.

    A range in brackets alone counts where one of its ends was shown; [60-100] is a quantity.

    >>> mentions("见[1-3]，心率[60-100]。", {1, 2})
    [Mention(start=2, end=5, numbers=(1, 2, 3))]
    """
    text = reply.translate(_WIDE)
    thought = _THOUGHT.match(text)
    begin = thought.end() if thought else 0
    found: dict[int, Mention] = {}
    for pattern in (_BY_NAME, _BY_PLACE, _BARE):
        for match in pattern.finditer(text, begin):
            if pattern is _BY_NAME and _OWN_LIST.search(text, match.start(), match.end() + 3):
                continue
            for mention in _parts(match, shown):
                found.setdefault(mention.end, mention)
    return [found[end] for end in sorted(found)]


def _parts(match: re.Match[str], shown: Collection[int]) -> list[Mention]:
    """The numbers and ranges of one list, each with its place."""
    name = "list" if match["list"] else "plain"
    parts = [*_PART.finditer(match.string, *match.span(name))]
    made: list[Mention] = []
    while parts:
        first = last = parts.pop(0)
        if parts and _RANGE.fullmatch(match.string, first.end(), parts[0].start()):
            last = parts.pop(0)
        ends = _value(first[0]), _value(last[0])
        if first is not last and match.re is _BARE and not set(ends) & set(shown):
            continue
        within = (number for number in range(min(ends), max(ends) + 1) if number in shown)
        numbers = [number for number in sorted({*within, *ends}) if number in shown or number < 1000]
        if numbers:
            made.append(Mention(first.start(), last.end(), tuple(numbers)))
    return made


def _value(numeral: str) -> int:
    return _HAN.index(numeral) + 1 if numeral in _HAN else int(numeral)
