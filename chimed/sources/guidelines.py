"""National clinical guidelines: the text layers of documents of the National Health Commission of China.

A document is a JSON object `title, url, year, content`, a list of such under `entries`, or a plain-text file. Other
files of the collection are not read, because they hold no running text: tables of drugs, machine-made summaries, and
web pages whose line breaks were lost (`fhs_guides.json`).
"""

import re
from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body
from chimed.sources.origins import Origin
from chimed.sources.sections import sections
from chimed.sources.spec import Row, Source, first

_NOTICE = re.compile(r"^(?:.*?关于印发|关于将)(?P<name>.+?)(?:的通知)?$", re.DOTALL)
_TITLE = re.compile(r"\S{2,40}(?:方案|指南|规范|规程|标准|共识)(?:[（(].{2,12}[）)])?")
_PLAIN_TITLE = re.compile(r"(?!第|附件|[（(\d一二三四五六七八九十])[^，。；：]{2,40}")
_BLANK = re.compile(r"\s+")
_LOOSE = re.compile(r"(?<=[\u4e00-\u9fff（\d]) (?=[\u4e00-\u9fff\d])")  # a space that a PDF put within a name
# The edition of a name that went through a file name, which lost its brackets and could be cut short.
_EDITION = re.compile(r" +(试行第.{1,2}版|\d{4}年版)(?: ?(修[订正]版))?(?: ?和.*)?$")


def parse(row: Row) -> Iterable[Body]:
    """The sections of a document.

    >>> content = "一、预防\\n勤洗手，多通风，流行季节少去人多的地方。"
    >>> parse({"title": "关于印发某病诊疗方案的通知", "content": content})[0].title
    '某病诊疗方案 · 预防'
    """
    if "content" in row:
        title, content = _name(first(row, "title")), first(row, "content")
    elif isinstance(row.get("text"), str):
        title, content = _name(_first_title(row["text"])), row["text"]
        if not title:
            raise RowError("no-name", "no title stands in the first lines; put the name of the document there")
    else:
        raise RowError("unknown-columns", f"found {', '.join(map(str, row))}; expected title, content")
    found = sections(content, title)
    if not found:
        raise RowError("no-text", "nothing is left when page furniture is taken away")
    return found


def _name(title: str) -> str:
    """What a document is called, without the notice that brought it.

    >>> _name("关于印发某病诊疗方案 2020年版 修订版的通知"), _name("《某病诊疗方案（2024 年版）》修订要点")
    ('某病诊疗方案（2020年版修订版）', '某病诊疗方案（2024年版）修订要点')
    """
    title = _BLANK.sub(" ", title)
    notice = _NOTICE.match(title)
    title = re.sub("[《》]", "", notice["name"] if notice else title).strip()
    return _LOOSE.sub("", _EDITION.sub(lambda found: f"（{found[1]}{found[2] or ''}）", title))


def _first_title(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines()[:6]] or [""]
    for i, line in enumerate(lines):
        if _TITLE.fullmatch(line.replace(" ", "")):
            version = lines[i + 1].replace(" ", "") if i + 1 < len(lines) else ""
            return line + (version if version.startswith("（") and version.endswith("）") else "")
    return lines[0] if _PLAIN_TITLE.fullmatch(lines[0]) else ""


SOURCE = Source(
    name="guidelines",
    title="National clinical guidelines",
    homepage="https://www.nhc.gov.cn",
    license="unknown",
    files={
        "guides/*.json": "train",
        "guides_ocr/*.json": "train",
        "nhc_guides.json": "train",
        "*.txt": "train",
    },
    parse=parse,
    shapes=("passage",),
    stages=("cpt", "rag"),
    text="file",
    origin=Origin(
        where="The National Health Commission publishes each guideline on a page of its own at https://www.nhc.gov.cn: "
        "save the documents you need as text, or as JSON objects `title, url, year, content` in a folder guides",
    ),
)
