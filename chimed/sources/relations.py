"""The relations of the medical knowledge graphs: one Chinese vocabulary for every upstream spelling.

Sources name the same edge differently (`do_eat`, 推荐食物, 宜吃); parsers map onto the names here, so that a disease
known to two graphs is one node with one set of edges.
"""

from typing import NamedTuple

from chimed.records import Fact


class Ends(NamedTuple):
    """The types of a relation's two ends; tail type "text" marks prose or a value that is no entity of its own."""

    head: str
    tail: str


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


def fact(head: str, relation: str, tail: str, head_type: str = "") -> Fact:
    """The fact with the types that its relation has; `head_type` where heads of another type have the relation too.

    >>> fact("百日咳", "科室", "儿科")
    Fact(head='百日咳', relation='科室', tail='儿科', head_type='疾病', tail_type='科室')
    """
    ends = RELATIONS[relation]
    return Fact(head, relation, tail, head_type or ends.head, ends.tail)
