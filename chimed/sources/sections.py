"""Running text into titled sections: the text layer of a PDF, a web page or a textbook becomes passages.

What upstream's extraction leaves behind is taken away: page numbers, running heads, tables of contents, the cells of
tables and figures, reference lists, citation marks. Hard-wrapped lines are joined. The text is then cut at its
headings (第一章, 第二节, 一、, 【病因】, （一）, or a short line of its own) into sections of a size to read.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from chimed.records import Passage
from chimed.sources.layout import OVERVIEWS, han, paragraphs

SHORT, LONG = 80, 4000  # characters: shorter sections go with the next one, longer ones are cut

_N = r"[一二三四五六七八九十百〇零\d]{1,4}"
_LEVELS = (
    re.compile(rf"第 ?{_N} ?(?:部分|篇|章)(?!节)"),
    re.compile(rf"第 ?{_N} ?节"),
    re.compile(r"[一二三四五六七八九十]{1,3}、"),
    re.compile(r"【[^】]{1,16}】"),
    re.compile(r"[（(][一二三四五六七八九十]{1,3}[）)]"),
)
_SUB = 4  # the level that cuts a section only when it is too long
_UNNUMBERED = 3.5
_GUIDE = re.compile(r"[^，。；：]{2,30}(?:诊疗(?:规范|指南|方案)|防治指南|技术规范)(?:[（(][^（）]{2,12}[）)]){0,2}")
_CHAPTER_NUMBER = re.compile(r"\d{1,3}[.．、] ?(?=\D)")
_DROPPED = re.compile(r"参考文献|名单|编写(?:专家|委员|人员)|执笔|起草|目 ?录$|知情同意书|登记表|记录[表单]")
_SENTENCE = re.compile(r"(?<=[。！？])(?![”’）)])")
_NAMES = re.compile(r"(?:(?:副?组长|成员|专家组?|秘书|顾问|审稿|主审|编写组)[:：]).{2,}")  # who wrote it
_CITATION = re.compile(r"\[\d{1,3}(?:[-–~,，、 ]{1,2}\d{1,3})*\]")  # what a line break had parted
_THOUSANDS = re.compile(r"(?<![\dA-Za-z.,])(\d{1,3}) (?=\d{3}(?: \d{3})*(?![\d.]))")
_YEAR = re.compile(r"[（(]?(\d{4}年版)[）)]?")
_AGAIN = re.compile(r"([\u4e00-\u9fff]{2}).*\1")  # cells of a table's head: 监测对象监测项目监测周期


@dataclass(slots=True)
class _Section:
    path: tuple[str, ...]
    lines: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(map(len, self.lines))


def level_of(line: str, following: str = "") -> float | None:
    """How deep a heading stands, 0 a chapter and 4 a sub-heading such as （一）; None for a line that is none.

    >>> level_of("第二章 脑血管病的预防"), level_of("一、病原学"), level_of("患者常有发热。")
    (0, 2, None)
    """
    if len(line) > 40 or line.endswith(("；", "，", "、")) or "。" in line[:-1]:
        return None
    for level, pattern in enumerate(_LEVELS):
        if pattern.match(line):
            return level
    if _GUIDE.fullmatch(line):
        return 0
    number = _CHAPTER_NUMBER.match(line)
    if number and following in OVERVIEWS:
        return 0
    if number or len(line) > 16 or not _TITLE.fullmatch(line):
        return None
    return None if _cells(line) else _UNNUMBERED


def _cells(line: str) -> bool:
    """Whether a line is the head of a table, its cells run together."""
    short = len(line) <= 16 and _TITLE.fullmatch(line) is not None
    return short and _AGAIN.search(line) is not None and not any(c in line for c in "与和及或、")


_TITLE = re.compile(r"[\u4e00-\u9fff][\u4e00-\u9fffA-Za-z0-9\- （）/]{1,15}")


def sections(text: str, title: str = "") -> tuple[Passage, ...]:
    """The sections of a document in order, each titled "document title · chapter · heading".

    Sections under 80 characters are joined to the next, those over 4,000 are cut at a sub-heading or a paragraph's
    end; reference lists, lists of names and forms are left out.

    >>> text = "一、病原学\\n本病由病毒引起，这种病毒对热和紫外线\\n都敏感。\\n-2-\\n二、传播途径\\n经飞沫传播。"
    >>> [p.text for p in sections(text, "某病诊疗方案")]
    ['一、病原学\\n本病由病毒引起，这种病毒对热和紫外线都敏感。\\n二、传播途径\\n经飞沫传播。']
    """
    lines = (_CITATION.sub("", line) for line in paragraphs(text))
    whole = (_THOUSANDS.sub(r"\1", line) if " " in line else line for line in lines)
    kept = [line for line in whole if not _NAMES.fullmatch(line)]
    found = [section for section in _cut(kept, title) if section.lines]
    return tuple(
        Passage(part, " · ".join(section.path))
        for section in _merged(found)
        for part in _parts(section.lines)
        if _reads(part)
    )


def _reads(text: str) -> bool:
    """Whether a passage is prose: it has a sentence's end and enough Chinese."""
    return ("。" in text or "；" in text) and han(text) >= 20


def _cut(lines: list[str], title: str) -> list[_Section]:
    """Sections by heading; the path of one holds the headings above it, at most two."""
    above: dict[float, str] = {}
    cut = [_Section((title,) if title else ())]
    dropping: float | None = None
    again = {line for line, times in Counter(lines).items() if times > 2}
    for line, following in zip(lines, (*lines[1:], "")[: len(lines)], strict=True):
        level = level_of(line, following)
        if "。" not in line and line.count("医院") + line.count("大学") > 2:  # names and where they work
            continue
        if _cells(line):
            continue
        if level is None or (level == _SUB and dropping is None) or (level == 0 and above.get(0) == line in again):
            if dropping is None:
                cut[-1].lines.append(line)
            continue
        if dropping is not None and level > dropping:
            continue
        dropping = level if _DROPPED.search(line) else None
        if level == _SUB:
            cut[-1].lines.append(line)
            continue
        above = {deep: heading for deep, heading in above.items() if deep < level}
        above[level] = _name(line)
        if dropping is None:
            path = [heading for _, heading in sorted(above.items()) if _bare(heading) not in _bare(title)]
            cut.append(_Section((title, *path[-2:]) if title else tuple(path[-3:]), [] if level == 0 else [line]))
    return cut


def _bare(heading: str) -> str:
    return _YEAR.sub(r"\1", heading.replace(" ", ""))


def _name(heading: str) -> str:
    """A heading without its number.

    >>> _name("二、流行病学"), _name("第3章 血管通路")
    ('流行病学', '血管通路')
    """
    for pattern in (*_LEVELS[:3], _CHAPTER_NUMBER):
        heading = pattern.sub("", heading, count=1).strip() or heading
    return heading.strip("【】：:。 ")


def _merged(found: list[_Section]) -> list[_Section]:
    """Sections of a size: a short one takes in the next of its chapter, or goes with the one before."""
    merged: list[_Section] = []
    for section in found:
        last = merged[-1] if merged else None
        if last and last.size < SHORT and _chapter(last) == _chapter(section):
            last.lines += section.lines
            common = 0
            while common < min(len(last.path), len(section.path)) and last.path[common] == section.path[common]:
                common += 1
            last.path = last.path[:common] or last.path[:1]
        else:
            _settle(merged)
            merged.append(section)
    _settle(merged)
    return merged


def _chapter(section: _Section) -> tuple[str, ...]:
    """The document and, where it has chapters with headings below them, the chapter: texts of two are never joined."""
    return section.path[:2] if len(section.path) > 2 else section.path[:1]


def _settle(merged: list[_Section]) -> None:
    """Put a short section that is last of its chapter to the one before; a heading of nothing goes."""
    if not merged or merged[-1].size >= SHORT:
        return
    if all(level_of(line) is not None for line in merged[-1].lines):
        merged.pop()
    elif len(merged) > 1 and _chapter(merged[-1]) == _chapter(merged[-2]):
        merged[-2].lines += merged.pop().lines


def _parts(lines: list[str]) -> list[str]:
    """The text of a section, cut where it is too long: before a sub-heading once half full, else between paragraphs."""
    return parted(lines, LONG, lambda line: level_of(line) == _SUB)


def parted(lines: list[str], most: int, begins: Callable[[str], bool] = lambda _: False) -> list[str]:
    """Texts of at most `most` characters: lines joined, and cut between lines, or between sentences of a longer line.

    begins: which lines open a new text when the one before is half full.

    >>> parted(["休息。多饮水。", "复诊。"], 5)
    ['休息。', '多饮水。', '复诊。']
    """
    if sum(map(len, lines)) <= most:
        return ["\n".join(lines)] if lines else []
    parts = [""]
    for line in lines:
        for place, piece in enumerate(_SENTENCE.split(line) if len(line) > most else (line,)):
            size = len(parts[-1])
            if size and (size + len(piece) > most or (size > most // 2 and begins(piece))):
                parts.append("")
            parts[-1] += ("\n" if parts[-1] and not place else "") + piece
    return [part for part in parts if part]
