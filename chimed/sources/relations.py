"""The relations of the medical knowledge graphs: one Chinese vocabulary for every upstream spelling.

Sources name the same edge differently (`do_eat`, 推荐食物, 宜吃); parsers map onto the names here, so that a disease
known to two graphs is one node with one set of edges.
"""

import re
from typing import NamedTuple

from chimed.records import Fact


class Ends(NamedTuple):
    """The types of a relation's two ends; tail type "text" marks prose or a value that is no entity of its own."""

    head: str
    tail: str


VARIANT = "同名方"  # a prescription of several under one name, told apart by a number of upstream's own

RELATIONS: dict[str, Ends] = {
    # edges between entities: a head has many tails
    "症状": Ends("疾病", "症状"),
    "并发症": Ends("疾病", "疾病"),
    "科室": Ends("疾病", "科室"),
    "治疗方法": Ends("疾病", "治疗方法"),
    "常用药物": Ends("疾病", "药品"),
    "推荐药物": Ends("疾病", "药品"),
    "检查": Ends("疾病", "检查"),
    "宜吃": Ends("疾病", "食物"),
    "忌吃": Ends("疾病", "食物"),
    "推荐食谱": Ends("疾病", "食谱"),
    "发病部位": Ends("疾病", "部位"),
    "致病因素": Ends("疾病", "致病因素"),
    "预防措施": Ends("疾病", "预防措施"),
    "别名": Ends("疾病", "名称"),
    # edges of herbs, prescriptions and acupoints
    "组成": Ends("方剂", "中药"),
    "功效": Ends("中药", "功效"),
    "主治": Ends("中药", "病症"),
    "功能主治": Ends("方剂", "功效"),
    "药性": Ends("中药", "药性"),
    "药味": Ends("中药", "药味"),
    "归经": Ends("中药", "经脉"),
    "产地": Ends("中药", "地区"),
    "出处": Ends("中药", "书籍"),
    # short attributes: a value, sometimes several
    "传染方式": Ends("疾病", "text"),
    "易感人群": Ends("疾病", "text"),
    "患病比例": Ends("疾病", "text"),
    "治愈率": Ends("疾病", "text"),
    "治疗周期": Ends("疾病", "text"),
    "治疗费用": Ends("疾病", "text"),
    "医保": Ends("疾病", "text"),
    # prose: one long tail a head
    "概述": Ends("疾病", "text"),
    "病因": Ends("疾病", "text"),
    "预防": Ends("疾病", "text"),
    "护理": Ends("疾病", "text"),
    "症状描述": Ends("疾病", "text"),
    "宜吃原则": Ends("疾病", "text"),
    "忌吃原则": Ends("疾病", "text"),
}


# What the pages of encyclopedias write around a short attribute: its own name, brackets around a sum of money.
_OWN_NAME = {
    "治疗周期": re.compile("^治疗周期约?为?[:：]?(?=[0-9一二三四五六七八九十半])"),
    "治愈率": re.compile("^治愈率约?为?[:：]?(?=[0-9])"),
    "患病比例": re.compile("^(人群)?患病概率[:：]?(?=[0-9])|^本病(?=.)"),
}
_RANGE = re.compile(r"(?<=[0-9%天日周月年元])\s*(?:[-－‐–—―─]\s*)+(?=[0-9])")
_SUM = re.compile(r"约\s*[（(〔](\d+(?:\.\d+)?(?:[-～~]\d+)?)\s*元?[）)〕]|约(\d+[-～~]\d+)$")
_MONTHS = re.compile(r"(?<=\d)\s*个?月(?!份)")
_BARE = re.compile("药物|手术|支持性|饮食|放射|化学|物理|心理|康复|介入|对症|中医|西医")  # 治疗 is left out behind them
_PARTS = re.compile(r"[，,；;+]|(?<=[\u4e00-\u9fff])\s+(?=[\u4e00-\u9fff])")
_TOLD = re.compile("如|可|为主|需|须|必要|者|予|给|等|以及|其他|不|行|无")  # words of a sentence, not of a name
_APPLIANCE = re.compile(
    "(仪|机|器|器械包|(疝气|治疗|压力|悬吊|锁骨|绷)带|夹|系统|套件|(工具|专用)盒|导管?|(授精|喂养)管|支架|人工晶(状)?体|接触镜"
    "|检眼镜|显微镜|阴道镜|胆道镜|消化道镜|接骨板|髓内钉|髋关节|(骨|胸|检)针|斜视钩|异物镊|锐匙|剥离刀|试纸|采集卡|托槽"
    "|修补网|造口装置|水门汀)$"
)


def fact(head: str, relation: str, tail: str, head_type: str = "") -> Fact:
    """The fact with the types that its relation has; `head_type` where heads of another type have the relation too.

    Short attributes lose what pages write around them: ranges get one hyphen, sums of money no brackets.

    >>> fact("百日咳", "科室", "儿科")
    Fact(head='百日咳', relation='科室', tail='儿科', head_type='疾病', tail_type='科室')
    >>> fact("百日咳", "治疗费用", "市三甲医院约（1000――3000元）").tail
    '市三甲医院约1000-3000元'
    """
    ends = RELATIONS[relation]
    if ends.tail == "text":
        tail = _value(relation, tail)
    elif relation == "治疗方法":
        tail = tail.rstrip("。；;，,、 ")
        tail = f"{tail}治疗" if _BARE.fullmatch(tail) else tail
    return Fact(head, relation, tail, head_type or ends.head, ends.tail)


def _value(relation: str, text: str) -> str:
    if relation in _OWN_NAME:
        text = _OWN_NAME[relation].sub("", text)
    if len(text) > 60:  # prose
        return text
    text = _RANGE.sub("-", text)
    if relation == "治疗费用":
        text = _SUM.sub(r"约\1\2元", text)
    return _MONTHS.sub("个月", text) if relation == "治疗周期" else text


def treatments(text: str) -> list[str]:
    """The treatments that a cell lists, where it lists nothing but their names.

    >>> treatments("手术治疗，药物治疗"), treatments("药物治疗，必要时手术")
    (['手术治疗', '药物治疗'], ['药物治疗，必要时手术'])
    """
    parts = [part.strip(" 。、") for part in _PARTS.split(text)]
    named = all(1 < len(part) <= 12 and not _TOLD.search(part) for part in parts)
    return parts if named else [text]


def is_appliance(text: str) -> bool:
    """Whether what stands among drugs is a device, not a drug.

    >>> is_appliance("红光治疗仪"), is_appliance("雌二醇缓释贴片")
    (True, False)
    """
    return bool(_APPLIANCE.search(text))
