"""National clinical guidelines: the text layers of documents of the National Health Commission of China.

A document is a JSON object `title, url, year, content`, a list of such under `entries`, or a plain-text file. Other
files of the collection are not read, because they hold no running text: tables of drugs, machine-made summaries, and
web pages whose line breaks were lost (`fhs_guides.json`).
"""

import re
from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body
from chimed.sources.sections import sections
from chimed.sources.spec import Row, Source, first

_NOTICE = re.compile(r"^(?:.*?关于印发|关于将)(?P<name>.+?)(?:的通知)?$", re.DOTALL)
_TITLE = re.compile(r"\S{2,40}(?:方案|指南|规范|规程|标准|共识)(?:[（(].{2,12}[）)])?")
_BLANK = re.compile(r"\s+")


def parse(row: Row) -> Iterable[Body]:
    """The sections of a document.

    >>> content = "一、预防\\n勤洗手，多通风，流行季节少去人多的地方。"
    >>> parse({"title": "关于印发某病诊疗方案的通知", "content": content})[0].title
    '某病诊疗方案 · 预防'
    """
    if "content" in row:
        title, content = _BLANK.sub(" ", first(row, "title")), first(row, "content")
        notice = _NOTICE.match(title)
        title = (notice["name"] if notice else title).strip().strip("《》")
    elif isinstance(row.get("text"), str):
        title, content = _first_title(row["text"]), row["text"]
    else:
        raise RowError("unknown-columns", f"found {', '.join(map(str, row))}; expected title, content")
    found = sections(content, title)
    if not found:
        raise RowError("no-text", "nothing is left when page furniture is taken away")
    return found


def _first_title(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines()[:6]]
    for i, line in enumerate(lines):
        if _TITLE.fullmatch(line.replace(" ", "")):
            version = lines[i + 1].replace(" ", "") if i + 1 < len(lines) else ""
            return line + (version if version.startswith("（") and version.endswith("）") else "")
    return ""


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
)
