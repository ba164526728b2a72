r"""Classics of traditional Chinese medicine: books of the Tang to the Republic as text files in GB18030.

A book is a run of chapters marked <目录> (part of the book) and <篇名> (chapter), whose text is hard-wrapped and opens
with 内容： or 属性：. Marks of the typesetting (\x for bold, \r…\r for a picture) are taken off. A conversion between
scripts put phrases of today all through the collection (香港脚 for 脚气, 盒饭 for 便当); the old ones are put back.
Characters that its code does not hold are lost: some left a blank, others HT or KT, which become □. Chapters whose
lines were cut off upstream are left out, and those without a sentence; of a last sentence that was cut, what is left
goes. Files without marks are modern texts from web pages, not classics, and are rejected.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from chimed.errors import RowError
from chimed.records import Body, Passage
from chimed.sources.forms import unknown_columns
from chimed.sources.origins import Origin, Remote
from chimed.sources.sections import parted
from chimed.sources.spec import Row, Source

SHORT, LONG = 80, 4000  # characters: shorter chapters go with the next one, longer ones are cut
_NUMBER = re.compile(r"^\d+[-－_ ]*")
_CHAPTER = re.compile(r"^<(目录|篇名)>", re.MULTILINE)
_LABEL = re.compile(r"^(?:内容|属性)：")
_ITEM = re.compile(r"^[０-９\d]+[.．、]\s*")  # a chapter's number in its name
_COUNT = re.compile(r"[一二三四五六七八九十百\d]+")  # a name that says nothing
_PICTURE = re.compile(r"\\r[^\\\n]*\\p[^\\\n]*\\r|\\r[^\\\n]*\\r")
_MARK = re.compile(r"\\[A-Za-z]")
# What the conversion left nothing of but in headings. 浓 stands for 厚 and for itself (浓煎, 浓汁), 根据 for 依 and, in
# books of the Republic, for itself (有根据). Each begins with the word: a search that looks behind first is slow.
_THICK = "煎汁煮茶墨血稠粘浊磨米姜酒醋调绿浆痰阴研熬汤涕泔缩淡盐泡郁艳云睡厚白黑黄青沫"
_SLIPS = tuple(
    (re.compile(found), meant)
    for found, meant in (
        ("浓(?:(?=[朴薄味肠衣涂])|(?<=[味气皮肉叶衣]浓))", "厚"),
        (f"浓(?<![浓煎稠取令熬汁研候调色粘]浓)(?![{_THICK}浓])", "厚"),
        ("根据(?<![有的之为作确理]根据)(?![地点的])", "依"),
        ("毒瓦斯", "毒气"),
        ("盒饭", "便当"),
        ("锻石", "石灰"),
        ("共享", "共用"),
        ("厘清", "分清"),
        ("黄胆", "黄疸"),
        ("超时", "逾时"),
        ("字符化", "字元化"),
        ("程序(?<=[之为]程序)", "程式"),
        ("[HK]T(?:[HK]T)*(?![a-zA-Z])", "□"),
        ("香港脚", "脚气"),
        ("冷冻饮料", "冷饮"),
        ("营运", "运行"),
        ("学人", "学者"),
        ("帮助", "说明"),
        ("干元(?:(?=资|者|亨)|(?<=哉干元))", "乾元"),
        ("∶", "："),
    )
)
_ENDS = ("。", "；", "：", "！", "？", "!", "?", "）", ")", "」", "”", "】", "〕")
_BRACKETS = re.compile(r"[（(〔][^（()）〔〕]*(?:[）)〕]|$)")
# A line that stands for itself though no mark ends it: the name of a recipe, what opens a list, a table or a verse.
_OWN = re.compile(r"(?:[方丸散汤丹膏饮煎酒歌诀法论门曰云题序]|又|矣|也|[一-龥] [一-龥]+)$")
_NEW = re.compile(r"[《【〔\[○●◎]|[上又治按凡一右]|.{0,9} |[^，。；：]{2,5}（")
_STUB = 4  # characters of a line that holds only the beginning of what it held
_SENTENCE = re.compile(r"(?<=[。！？])")


def parse(row: Row) -> Iterable[Body]:
    """The chapters of a book, titled "book · part · chapter".

    >>> text = "<目录>卷一\\\\草部\\n<篇名>甘草\\n内容：味甘，平。主脏腑寒热邪 \\n气，坚筋骨。"
    >>> parse({"text": text, "name": "003-甘草小识"})[0]
    Passage(text='甘草\\n味甘，平。主脏腑寒热邪气，坚筋骨。', title='甘草小识 · 草部')
    """
    if not isinstance(row.get("text"), str):
        raise unknown_columns(row, "plain text")
    book = _NUMBER.sub("", str(row.get("name") or "")).strip()
    if "<篇名>" not in row["text"]:
        raise RowError("unmarked-book", f"{book}: found no chapter marked <篇名>")
    found = tuple(
        Passage(part, section.title) for section in _merged(_chapters(row["text"], book)) for part in section.parts()
    )
    if not found:
        raise RowError("no-text", f"{book}: no chapter is whole and has a sentence")
    return found


@dataclass(slots=True)
class _Chapter:
    path: tuple[str, ...]  # book and part
    names: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(map(len, self.lines))

    @property
    def title(self) -> str:
        named = len(self.names) == 1 and self.size >= SHORT and not _COUNT.fullmatch(self.names[0])
        return " · ".join((*self.path, *self.names) if named else self.path)

    def parts(self) -> list[str]:
        """Its text, cut between paragraphs, or between the sentences of a long one, where it is too long."""
        return [text for text in parted(self.lines, LONG) if _SENTENCE.search(text) or "；" in text]


def _chapters(text: str, book: str) -> Iterator[_Chapter]:
    part = ""
    _, *cut = _CHAPTER.split(text)
    for mark, body in zip(cut[::2], cut[1::2], strict=True):
        name, _, rest = body.partition("\n")
        name = _MARK.sub("", _tidy(name)) if mark == "篇名" else name.strip()
        if mark == "目录":
            part = _tidy(name.replace("\\", "/").rpartition("/")[2])
            continue
        if "书名：" in rest[:40]:  # the title page
            continue
        lines = _paragraphs(rest)
        if lines:
            name = _ITEM.sub("", name)
            yield _Chapter((book, part) if part and part != book else (book,), [name], lines)


def _tidy(text: str) -> str:
    for slip, meant in _SLIPS:
        text = slip.sub(meant, text)
    return text.strip()


def _paragraphs(text: str) -> list[str]:
    """The paragraphs of a chapter, [] when its lines were cut off: two stubs one behind the other."""
    text = _tidy(_MARK.sub("", _PICTURE.sub("", text)))
    lines = [line for line in (_LABEL.sub("", line.strip()) for line in text.split("\n")) if line]
    stubs = [len(line) <= _STUB and not line.endswith(_ENDS) for line in lines]
    if any(one and other for one, other in pairwise(stubs)):
        return []
    full = max(map(len, lines), default=0)
    joined: list[str] = []
    whole = True
    for line, following in pairwise([*lines, ""]):
        if whole:
            joined.append(line)
        else:
            joined[-1] += line
        # A line that is not full ends its paragraph, unless it is the overflow of the one before or a comma goes on.
        goes_on = len(line) <= _STUB or line.endswith(("，", "、")) or _goes_on(line, following)
        whole = len(line) < 0.8 * full and (line.endswith(_ENDS) or (len(line) < 0.6 * full and not goes_on))
    return _finished(joined)


def _goes_on(line: str, following: str) -> bool:
    """Whether a sentence that no mark ends goes on in the next line.

    >>> _goes_on("久服轻身。治小儿", "风痫惊悸。"), _goes_on("治小儿中风，口噤。桂枝散方", "桂枝 独活")
    (True, False)
    """
    if following.startswith(("，", "。", "；", "、", "）")):
        return True
    told = any(mark in _BRACKETS.sub("", line) for mark in "，。；、")
    return told and following != "" and not line.endswith(_ENDS) and not _OWN.search(line) and not _NEW.match(following)


def _finished(paragraphs: list[str]) -> list[str]:
    """Paragraphs without the last sentence of the last one where that was cut."""
    if not paragraphs or paragraphs[-1].endswith(_ENDS):
        return paragraphs
    told, mark, rest = paragraphs[-1].rpartition("。")
    cut = mark and (rest.endswith(("，", "、")) or ("，" in rest and not _OWN.search(rest)) or len(rest) <= _STUB)
    return [*paragraphs[:-1], told + mark] if cut else paragraphs


def _merged(chapters: Iterable[_Chapter]) -> Iterator[_Chapter]:
    """Chapters of a size: a short one takes in the next of its part; each keeps its name as a line above its text."""
    held: _Chapter | None = None
    for chapter in chapters:
        named = [*chapter.names, *chapter.lines]
        if held and held.path == chapter.path and held.size < SHORT:
            held.names += chapter.names
            held.lines += named
            continue
        if held:
            yield held
        held = _Chapter(chapter.path, chapter.names, named)
    if held:
        yield held


SOURCE = Source(
    name="tcm-classics",
    title="Classics of traditional Chinese medicine",
    homepage="https://github.com/xiaopangxia/TCM-Ancient-Books",
    license="unknown",
    files={"**/*.txt*": "train"},
    parse=parse,
    shapes=("passage",),
    stages=("cpt", "rag"),
    text="file",
    origin=Origin(
        (
            Remote(
                "https://github.com/xiaopangxia/TCM-Ancient-Books/archive/refs/heads/master.zip",
                "TCM-Ancient-Books.zip",
            ),
        ),
    ),
)
