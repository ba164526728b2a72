"""Lines as a page shows them into paragraphs as an author wrote them.

Three layouts circulate: hard-wrapped lines of a PDF (most lines equally wide), spans of a web page (a line break at
every change of font, so "60℃", "30", "分钟" are three lines), and one paragraph a line. The layout decides what a line
break, a short line or a lone number means.
"""

import re
from collections import Counter
from typing import Literal

Layout = Literal["wrapped", "spans", "paragraphs"]

_HAN = r"\u3400-\u9fff"
_BEYOND_HAN = re.compile(r"[^\u4e00-\u9fff]+")
_WIDE = r"\u3400-\u9fff\u3001-\u3002\u3008-\u3011\uff01-\uff0f\uff1a-\uff20“”‘’…"
_INNER_BLANK = re.compile(rf"(?<=[{_WIDE}]) (?=[{_WIDE}])")
_BY_PUNCTUATION = re.compile(r" (?=[，。；：、！？）】》%％])|(?<=[，。；：、！？（【《]) ")
_ITEM = re.compile(rf"^(\d{{1,2}}[.．、] ?[^\s，。；：]{{2,20}}) (?=[{_HAN}])")  # "2.一般治疗 卧床休息…"
_COLUMN = re.compile(r"[ \t\u3000\xa0]{2,}")
_CONTENTS = ("." * 5, "…" * 2, "·" * 5, ". " * 5)
_PAGE = re.compile(r"[—–\-一－•·_~]{1,3} ?\d{1,4} ?[—–\-一－•·_~]{0,3}|\d{1,4} ?[—–－]{1,3}|第 ?\d+ ?页.{0,8}")
_ROMAN = re.compile(r"[IVXⅠ-Ⅻ]{1,5}|[*#※†‡ ]+|附件 ?\d{0,2}|附：?")
_CITATION = re.compile(r"\[\d{1,3}(?:[-–~,，、 ]{1,2}\d{1,3})*\]")
_CAPTION = re.compile(r"(?:续?表|图) ?[\dA-Z]{1,3}(?:[-－.]\d{1,2})?(?![^，。]{0,6}[，。所示])")
_POINTER = re.compile(r".{0,20}[（(][图表] ?\d{1,3}(?:[-－.]\d{1,2})?[）)]")  # a heading with nothing but a figure
_CHAPTER = re.compile(r"\d{1,3}[.．、] ?\D{2}")
_NUMBERED = re.compile(r"(\d{1,3})[.．、] ?(\D[^，。；：]{1,38})")
OVERVIEWS = {"概述", "疾病概述", "定义"}  # what a chapter opens with
_ROSTER = re.compile(
    r"附录?[:：].{0,4}名单|[^，。；：]{6,34}(?:医院|大学|学院|中心|研究院|研究所)"
)  # who wrote it, and where
# What stands around the text of a web page.
_MENU = re.compile(r"返回主站|您现在所在位置|打印本页|发布时间：|阅读量：|版权所有|^\d{4}-\d{2}-\d{2} ?来源[:：]?$")
_FORM = re.compile(r"_{3,}|[□☐√]|＿{2,}|(?:\d{1,2} ){5,}")  # fields to fill in, boxes to tick, scales
_SIGNED = re.compile(r"[（(][\u4e00-\u9fff]{2,3}[）)]")
_HEADING_ENDS = {"证", "症", "法", "检查", "治疗"}  # spans that a font change cuts off a heading
_CLOSING = "。，、；：）”》】"
_ENDS = (*"。！？；：!?;:", "。”", "！”", "？”")
_HEAD = (
    r"第 ?[一二三四五六七八九十百\d]{1,4} ?[篇章节]|[一二三四五六七八九十]{1,3}、"
    r"|[（(][一二三四五六七八九十]{1,3}[）)]|【|参考文献"
)
_HEADS = re.compile(_HEAD)
_STARTS = re.compile(_HEAD + r"|\d{1,2}[.．、](?!\d)|[（(]\d{1,2}[）)]|\d[）)]|[①-⑳]|[●•■◆▶]|附录|附件|\[\d{1,3}\]")
# Headings run into the text around them: a break belongs before or behind.
_GLUED = (
    (re.compile(r"(第[一二三四五六七八九十]{1,3}节[^，。]{2,20})[—一－]、"), r"\1\n一、"),
    (re.compile(r"^[【［]([^】］]{1,16})[】］](?=.)|^[［]([^】］]{1,16})[】］]$", re.MULTILINE), r"【\1\2】\n"),
    (re.compile(r"(?<=。)(?=[【［][^】］]{1,16}[】］]|（[一二三四五六七八九十]{1,3}）)"), "\n"),
)


def paragraphs(text: str) -> list[str]:
    """The paragraphs and headings of a text layer, in order, without what belongs to the page.

    >>> paragraphs("1\\n流感是一种呼吸道传染病，甲型流感病毒可引起\\n大流行，乙型流感病毒每年引起流行。\\n2")
    ['流感是一种呼吸道传染病，甲型流感病毒可引起大流行，乙型流感病毒每年引起流行。']
    """
    text = text.replace("\ufeff", "").replace("\x0c", "\n")
    for pattern, parted in reversed(_GLUED):
        text = pattern.sub(parted, text)
    lines = [line for line in map(_tidy, text.split("\n")) if line]
    if not lines:
        return []
    layout, width = _layout(lines)
    lines = _chapters(_without_contents(_without_page_numbers(lines, layout)))
    lines = _without_running_heads(lines)
    if layout == "wrapped":
        lines = _without_cells(lines, width)
    return [line for line in _without_references(_joined(lines, layout, width)) if not _MENU.search(line)]


def _chapters(lines: list[str]) -> list[str]:
    """Chapters that only a number marks ("14.肾透明细胞肉瘤", then 概述), marked so that nothing is joined to them."""
    return [
        f"第{number[1]}章 {number[2]}" if number and following in OVERVIEWS else line
        for line, following in zip(lines, [*lines[1:], ""], strict=False)
        for number in [_NUMBERED.fullmatch(line)]
    ]


def _tidy(line: str) -> str:
    """A line without the blanks that justify it; a gap of several parts a heading from its text and stays one blank."""
    line = line.strip()
    if " " in line or "\t" in line or "\u3000" in line or "\xa0" in line:
        line = _INNER_BLANK.sub("", _ITEM.sub("\\1\u3000", _COLUMN.sub("\u3000", line)))
    if line.startswith("["):
        return line
    return _CITATION.sub("", _BY_PUNCTUATION.sub("", line) if " " in line else line).replace("\u3000", " ")


def han(text: str) -> int:
    """How many Han characters a text holds.

    >>> han("COPD 患者")
    2
    """
    return len(_BEYOND_HAN.sub("", text))


def _wide(line: str) -> int:
    """The columns a line takes: two for a Han character, one for a Latin letter."""
    return (len(line.encode("utf-8", "ignore")) + len(line)) // 2


def _layout(lines: list[str]) -> tuple[Layout, int]:
    """The layout, and the width of a full line: the one that most of the text comes near to."""
    text = Counter[int]()  # width -> how much text stands in lines of this width
    for width in map(_wide, lines):
        text[width] += width
    near = {full: sum(text[width] for width in range(full * 17 // 20, full * 23 // 20 + 1)) for full in range(30, 131)}
    full = max(near, key=lambda width: (near[width], text[width]))
    if near[full] >= 0.42 * text.total() and len(lines) > 2:
        return "wrapped", full
    unfinished = sum(not line.endswith(_ENDS) and not _HEADS.match(line) for line in lines)
    return ("spans" if unfinished >= 0.4 * len(lines) and len(lines) >= 8 else "paragraphs"), full


def _without_page_numbers(lines: list[str], layout: Layout) -> list[str]:
    """Drops "-3-", and lone numbers that count pages: a neighbour is one more or one less. Spans have none."""
    lone = [(i, int(line)) for i, line in enumerate(lines) if line.isdecimal() and len(line) < 5]
    pages: set[int] = set()
    for k, (i, number) in enumerate(lone):
        before = {n for _, n in lone[max(k - 3, 0) : k]}
        after = {n for _, n in lone[k + 1 : k + 4]}
        if before & {number - 1, number - 2} or after & {number + 1, number + 2}:
            pages.add(i)
    pages |= {i for i, _ in lone if i == 0}
    if layout == "spans":
        pages = set()
    return [
        line
        for i, line in enumerate(lines)
        if i not in pages and not _PAGE.fullmatch(line) and not _ROMAN.fullmatch(line) and not _SIGNED.fullmatch(line)
    ]


def _without_contents(lines: list[str]) -> list[str]:
    """Drops dotted contents lines, the wrapped ones between them, and the bare list under 目录."""
    dotted = [any(dots in line for dots in _CONTENTS) for line in lines]
    kept: list[str] = []
    listing = False
    for i, line in enumerate(lines):
        if line.replace(" ", "") == "目录":
            listing = True
        elif listing and not dotted[i]:
            near = any(dotted[i + 1 : i + 4])
            listing = near or (_STARTS.match(line) is not None and not line.endswith(_ENDS) and _listed(line, lines, i))
        elif dotted[i]:
            continue
        if not listing and not dotted[i]:
            kept.append(line)
    return kept


def _listed(line: str, lines: list[str], at: int) -> bool:
    """Whether a line under 目录 is an entry: the line, or its words without number, stands again further down."""
    words = _STARTS.sub("", line, count=1).strip()
    return any(words in later for later in lines[at + 1 :]) or line.startswith("附")


def _without_running_heads(lines: list[str]) -> list[str]:
    """Drops a chapter's name where a page repeats it, alone, behind a page number, or run into the text."""

    def bare(line: str) -> str:
        return line.lstrip("0123456789 ").replace("—", "一").replace(" ", "")

    heads = {h for h, n in Counter(bare(line) for line in lines if len(line) < 24).items() if n > 2 and h[:1] == "第"}
    seen: set[str] = set()
    kept: list[str] = []
    for line in lines:
        name = bare(line)
        head = next((head for head in heads if name.startswith(head)), None)
        if head is None:
            kept.append(line)
            continue
        if head not in seen:
            seen.add(head)
            kept.append(head)
        if len(name) > len(head):
            kept.append(name[len(head) :])
    return kept


def _without_cells(lines: list[str], width: int) -> list[str]:
    """Drops what tables and figures leave in wrapped text: captions, form fields, runs of short unfinished lines."""
    loose = [
        _wide(line) < 0.62 * width and not line.endswith((*_ENDS, ".")) and not _HEADS.match(line) for line in lines
    ]
    # The last line of a paragraph is short too: a line after a full one that does not end belongs to it.
    for i in range(1, len(lines)):
        before = lines[i - 1]
        if loose[i] and not loose[i - 1] and not before.endswith(_ENDS) and _wide(before) > 0.8 * width:
            loose[i] = False
    kept: list[str] = []
    i = 0
    while i < len(lines):
        run = i
        while run < len(lines) and loose[run]:
            run += 1
        if run - i >= 3:
            # The last of the run can be the heading of what follows, with a chapter's name above it.
            last = lines[run - 1]
            if run < len(lines) and not _HEADS.match(lines[run]) and _wide(last) <= 24 and not last[-1].isdecimal():
                kept += [line for line in lines[run - 2 : run - 1] if _CHAPTER.match(line)]
                kept.append(last)
            i = run
            continue
        for line in lines[i : max(run, i + 1)]:
            caption = (_CAPTION.match(line) and _wide(line) < width) or _POINTER.fullmatch(line)
            roster = loose[i] and _ROSTER.fullmatch(line)
            if not caption and not roster and not _FORM.search(line):
                kept.append(line)
        i = max(run, i + 1)
    return kept


def _joined(lines: list[str], layout: Layout, width: int) -> list[str]:
    """Paragraphs from lines: a line goes on with the next unless it ends a sentence, is a heading, or the next starts
    a numbered item."""
    joined: list[str] = []
    whole = True  # the paragraph before is complete
    for i, line in enumerate(lines):
        if not joined or (whole and line[0] not in _CLOSING) or _opens(line, joined[-1]):
            joined.append(line)
        else:
            joined[-1] += _glue(joined[-1], line) + line
        whole = _complete(lines, i, joined[-1], layout, width)
    return joined


def _opens(line: str, before: str) -> bool:
    if _HEADS.match(line):
        return True
    return _STARTS.match(line) is not None and before.endswith((*_ENDS, "，", ".", "）"))


def _complete(lines: list[str], i: int, paragraph: str, layout: Layout, width: int) -> bool:
    line = lines[i]
    following = lines[i + 1] if i + 1 < len(lines) else ""
    if line.endswith(_ENDS):
        # A full wrapped line can end a sentence by chance, in the middle of a paragraph.
        by_chance = layout == "wrapped" and _wide(line) >= 0.93 * width and line.endswith("。")
        return not by_chance or _wide(following) < 0.3 * width
    if layout == "wrapped" and paragraph.startswith("["):  # an entry of a reference list
        return _wide(line) < 0.62 * width
    if paragraph != line and not _HEADS.match(paragraph):
        return False
    if layout == "wrapped":
        return _wide(line) < 0.62 * width
    if _HEADS.match(paragraph) and len(paragraph) < 30:
        if layout == "paragraphs":
            return True
        named = len(_HEADS.sub("", paragraph, count=1)) > 1 and "，" not in paragraph
        return named and following not in _HEADING_ENDS and not _heading_goes_on(lines, i)
    return layout == "paragraphs" and len(line) < 16


def _heading_goes_on(lines: list[str], i: int) -> bool:
    """Whether the short spans behind a heading belong to it: then another heading follows soon."""
    for line in lines[i + 1 : i + 5]:
        if _HEADS.match(line) or _STARTS.match(line):
            return line is not lines[i + 1]
        if len(line) > 10 or any(c in line for c in "，。；："):
            return False
    return False


def _glue(before: str, line: str) -> str:
    latin = before[-1].isascii() and line[0].isascii()
    return " " if latin and before[-1].isalnum() and line[0].isalnum() else ""


def _without_references(lines: list[str]) -> list[str]:
    """Drops the entries of reference lists: "[3] …" and what is left of them, Latin throughout."""
    kept: list[str] = []
    inside = False
    for line in lines:
        entry = line.startswith("[") and re.match(r"\[\d{1,3}\]", line) is not None
        latin = han(line) < 0.3 * len(line) and not _HEADS.match(line)
        inside = entry or (inside and latin) or line.replace(" ", "") in {"参考文献", "参考文献："}
        if not inside:
            kept.append(line)
    return kept
