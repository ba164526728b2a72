"""Xywy-KG: 8,800 diseases of the encyclopedia xywy.com with symptoms, treatment, drugs and food.

Two forms: an object of objects with sections (`gaishu_info`, `food_info`, …) and the original of QASystemOnMedicalKG,
one object a line (`name, desc, cause, …`, upstream's own spelling). Both give one fact an edge.
"""

import re
from collections.abc import Iterable, Iterator

from chimed.errors import RowError
from chimed.records import Body
from chimed.sources.origins import Origin, github
from chimed.sources.relations import fact, is_appliance, treatments
from chimed.sources.spec import Row, Source

# (section, field, relation); section "" is the row itself.
_SECTIONS = (
    ("gaishu_info", "desc", "概述"),
    ("gaishu_info", "medical_insurance", "医保"),
    ("gaishu_info", "disease_ratio", "患病比例"),
    ("gaishu_info", "susceptible_people", "易感人群"),
    ("gaishu_info", "transmission_way", "传染方式"),
    ("gaishu_info", "has_complication", "并发症"),
    ("gaishu_info", "belongs_to_department", "科室"),
    ("gaishu_info", "treat_way", "治疗方法"),
    ("gaishu_info", "treat_cycle", "治疗周期"),
    ("gaishu_info", "cure_prob", "治愈率"),
    ("gaishu_info", "common_drug", "常用药物"),
    ("gaishu_info", "treat_cost", "治疗费用"),
    ("", "cause_info", "病因"),
    ("", "prevent_info", "预防"),
    ("symptom_data", "symptoms", "症状"),
    ("symptom_data", "symptom_detail", "症状描述"),
    ("", "inspect_info", "检查"),
    ("", "nursing_info", "护理"),
    ("food_info", "good_food", "宜吃"),
    ("food_info", "good_diet_text", "宜吃原则"),
    ("food_info", "avoid_food", "忌吃"),
    ("food_info", "avoid_diet_text", "忌吃原则"),
    ("food_info", "recommand_recipes", "推荐食谱"),
)
_FLAT = (
    ("", "desc", "概述"),
    ("", "yibao_status", "医保"),
    ("", "get_prob", "患病比例"),
    ("", "easy_get", "易感人群"),
    ("", "get_way", "传染方式"),
    ("", "acompany", "并发症"),
    ("", "cure_department", "科室"),
    ("", "cure_way", "治疗方法"),
    ("", "cure_lasttime", "治疗周期"),
    ("", "cured_prob", "治愈率"),
    ("", "common_drug", "常用药物"),
    ("", "recommand_drug", "推荐药物"),
    ("", "cost_money", "治疗费用"),
    ("", "cause", "病因"),
    ("", "prevent", "预防"),
    ("", "symptom", "症状"),
    ("", "check", "检查"),
    ("", "do_eat", "宜吃"),
    ("", "not_eat", "忌吃"),
    ("", "recommand_eat", "推荐食谱"),
)
# Headings of the page that stand before prose, or in place of it.
_HEADINGS = {
    "病因": "发病原因|疾病病因|病因病机|病因学|病因",
    "预防": "日常预防|一般预防|专业指导|健康教育|预防措施|预防",
    "护理": "日常护理|一般护理|专业护理|对症护理|饮食护理|术后护理|临床护理|护理措施|护理",
    "症状描述": "临床表现|临床症状|症状",
}
_NOTHING = {"", "无", "暂无", "不详", "未知", "暂无相关资料", "暂无相关资料。"}.union(
    *(names.split("|") for names in _HEADINGS.values())
)
_HEADED = {
    relation: re.compile(rf"([(（]一[)）]|一、|1[.、．])?[ \t]*[【\[]?(?:{names})[】\]]?[ \t]*(?:[：:]\s*|\n\s*)")
    for relation, names in _HEADINGS.items()
}
# A heading further down, or the next number: then the first one tells parts apart and stays.
_PARTS = re.compile(
    r"(?m)^\W*(?:[一二三四五2-9][)）.、．]+)?\s*[^\s，。；：]{0,6}(?:机制|机理|病理|体征|并发症|护理|预防|指导|教育|措施|检查|诊断|治疗)"
    r"[】\]]?[ \t]*(?:[：:]|$)"
)
_SECOND = re.compile(r"(?m)^\s*(?:[(（]二[)）]|二、|2[.、．])")
_ONE_TEXT = {"症状描述"}  # a list of paragraphs that are one text
_TOLD = {"概述", "病因", "症状描述", "预防"}  # texts in sentences; upstream lost the end of some at a rare character
_SHORTEST = 8  # characters of such a text that say anything
_DIETS, _DIET = {"宜吃原则", "忌吃原则"}, 80  # characters from which the end of a text on diet may be cut off
_STOPS = "。！？；!?;.…)）”》】"
# A last line without a full stop after one that has it, and the heading between them.
_LOOSE = re.compile(r"(?<=[。；;])(?:\n[^\n。；]{1,8})?\n[^\n。！？；，!?;,]+(?<!等)$")
_PAUSE = re.compile(r"[。！？；，!?;,](?=[^。！？；，!?;,]*$)")
_BEGUN = re.compile(
    r"(?:^|(?<=[。；！？\n]))\s*[(（①-⑳]?\d{0,2}[)）.．、]?[^，。；！？]{0,4}$|[，；]?(?:例如|比如|其中|以及|如|或|及)$"
)
_GARBLED = re.compile("[\u00a1-\u00ff]{6}")  # Chinese that was read in a Western encoding
# A section that says that there is nothing to say, with its heading.
_BLANK = re.compile(r"\n[^\n。；]{0,14}\n(?:目前)?(?:暂|尚)?(?:无|没有)(?:相关|可靠)?(?:资料|数据)[。.]?(?=\n|$)")
# Lines that upstream broke: within a foreign name, and in overviews, which have no headings, in any sentence.
_BROKEN_NAME = re.compile(r"(?<=[A-Za-z,])[ \t]*\n[ \t]*(?=[a-z])")
_BROKEN = re.compile(
    r"(?<=[^\s。！？；：:;!?…”）)】》])[ \t]*\n[ \t]*(?=[\u4e00-\u9fffA-Za-z(（])"
    r"(?![一二三四五六七八九十]{1,2}[、.．]|[(（][一二三四五六七八九十\d])"
)
_ESCAPED = re.compile(r"\\+(?=[\"'])")


def parse(row: Row) -> Iterable[Body]:
    """The facts of one disease; values that are empty, placeholders or cut short by upstream ("…能...") are left out.

    >>> [f.tail for f in parse({"name": "百日咳", "symptom": ["痉挛性咳嗽", "鸡鸣样吸气声"], "desc": ""})]
    ['痉挛性咳嗽', '鸡鸣样吸气声']
    """
    sections = "gaishu_info" in row
    about = row["gaishu_info"] if sections else row
    if not isinstance(about, dict) or not (sections or "name" in row):
        raise RowError("unknown-columns", f"found {', '.join(map(str, row))}; expected gaishu_info or name, desc, …")
    head = str(about.get("name") or "").strip()
    if not head:
        raise RowError("no-name")
    if head.endswith("测试"):
        raise RowError("test-entry", f"found {head}, which the editors of the page made to try it")
    facts = tuple(
        fact(head, relation, tail)
        for section, field, relation in (_SECTIONS if sections else _FLAT)
        for tail in _tails(row, section, field, relation, head)
    )
    if not facts:
        raise RowError("no-facts", f"{head} has nothing but its name")
    return facts


def _tails(row: Row, section: str, field: str, relation: str, head: str) -> Iterator[str]:
    holder = row.get(section) if section else row
    value = holder.get(field) if isinstance(holder, dict) else None  # whole sections can be ""
    if isinstance(value, list):
        items = [str(item).strip() for item in value]
        values = ["\n".join(filter(None, items))] if relation in _ONE_TEXT else items
    else:
        values = [str(value or "").strip()]
    if relation in _HEADED:
        values = [_headless(text, relation, head) for text in values]
    if relation in _TOLD or relation == "护理":
        values = [_joined(text, relation) for text in values]
    if relation in _TOLD or relation in _DIETS:
        values = [_whole(text, relation) for text in values]
    if relation == "治疗方法":
        values = [name for text in values for name in treatments(text)]
    for tail in dict.fromkeys(_ESCAPED.sub("", text) for text in values):
        too_short = len(tail) < 2 and (relation == "症状" or not tail.isalnum())
        nothing = too_short or tail in _NOTHING or (relation in _HEADED and tail.removeprefix(head) in _NOTHING)
        appliance = relation.endswith("药物") and is_appliance(tail)
        if not nothing and not appliance and not _GARBLED.search(tail) and not tail.endswith(("...", "…")):
            yield tail


def _headless(text: str, relation: str, head: str) -> str:
    """Prose without the heading that leads it, with or without the name, where that is a heading of the whole."""
    bare = text.removeprefix(head)
    found = _HEADED[relation].match(bare)
    if not found:
        return text
    rest = bare[found.end() :]
    parted = _PARTS.search(rest) or (found[1] and _SECOND.search(rest))
    return text if parted or len(rest) < 2 else rest


def _joined(text: str, relation: str) -> str:
    """Prose with its lines joined where a sentence goes on, without blank lines and sections that say nothing.

    >>> _joined("颗粒细胞瘤(granular cell\\ntumor)少见，\\n多为良性。", "概述")
    '颗粒细胞瘤(granular cell tumor)少见，多为良性。'
    """
    text = _BROKEN_NAME.sub(" ", _BLANK.sub("", text))
    if relation == "概述":
        text = _BROKEN.sub("", text)
    return re.sub(r"\n\s*\n", "\n", text)


def _whole(text: str, relation: str) -> str:
    """Prose without the last clause where that was cut; "" where too little is left."""
    if relation in _DIETS and len(text) < _DIET:
        return text
    text = text if text.endswith(tuple(_STOPS)) else _LOOSE.sub("", text)
    pause = _PAUSE.search(text)
    if text.endswith(tuple(_STOPS)) or not pause or "\n" in text[pause.start() :]:
        return text
    left = _BEGUN.sub("", text[: pause.start()]).rstrip("。；;，, \n")
    return f"{left}。" if len(left) >= _SHORTEST else ""


SOURCE = Source(
    name="xywy-kg",
    title="Xywy-KG",
    homepage="https://github.com/liuhuanyong/QASystemOnMedicalKG",
    license="unknown",
    files={"**/*.json*": "train"},
    parse=parse,
    shapes=("fact",),
    stages=("cpt", "sft", "dpo", "rag"),
    origin=Origin(github("liuhuanyong/QASystemOnMedicalKG", "master", "data/medical.json")),
)
