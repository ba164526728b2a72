"""Chinese wordings as data: how a relation is asked and told, how an exam is put, how a conversation is set.

A wording is a template with slots in braces; `fill` writes a whole column of them at once. Which wording a row gets is
decided by a hash of its own text (`pick`), never by chance: the same row reads the same in every build.
"""

from collections.abc import Sequence
from string import Formatter
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chimed.dedup.minhash import exact_keys

Codes = NDArray[np.int64]


class Wording(NamedTuple):
    """How one relation reads.

    form: "list" has entities for tails; "value" a short attribute, taken from one source only, since two values
        contradict each other; "prose" paragraphs that stand by themselves.
    asked: questions with the slot {head}.
    told: (RE2 pattern, sentences) pairs with the slots {head} and {tails}; a tail is told by the first pattern found in
        it, so that "否" becomes a sentence. The last pattern is empty: it takes every tail. Of an overview, the first
        sentences open a document, the last ones stand further down.
    """

    form: Literal["list", "value", "prose"]
    asked: tuple[str, ...]
    told: tuple[tuple[str, tuple[str, ...]], ...]


def _list(asked: Sequence[str], told: Sequence[str]) -> Wording:
    return Wording("list", tuple(asked), (("", tuple(told)),))


def _prose(asked: Sequence[str], told: Sequence[str]) -> Wording:
    return Wording("prose", tuple(asked), (("", tuple(told)),))


def _value(asked: Sequence[str], *told: tuple[str, tuple[str, ...]]) -> Wording:
    return Wording("value", tuple(asked), told)


OVERVIEW = "概述"
WORDINGS: dict[str, Wording] = {
    OVERVIEW: Wording(
        "prose",
        ("什么是{head}？", "{head}是什么病？", "请介绍一下{head}。", "能简单说说{head}吗？", "{head}是怎么回事？"),
        (
            (
                "",
                (
                    *("{tails}", "{head}简介：{tails}", "什么是{head}？{tails}", "【{head}】{tails}"),
                    *("认识{head}：{tails}", "{head}（概述）：{tails}"),
                    *("以下介绍{head}。{tails}", "关于{head}：{tails}"),
                ),
            ),
            ("", ("{tails}",)),
        ),
    ),
    "发病部位": _list(
        ("{head}发生在哪个部位？", "{head}的发病部位是哪里？", "{head}主要累及哪些部位？"),
        (
            *("{head}的发病部位是{tails}。", "{head}主要发生在{tails}。", "{head}的病变部位在{tails}。"),
            *("{tails}是{head}的发病部位。", "从部位来看，{head}主要累及{tails}。"),
        ),
    ),
    "症状": _list(
        (
            "{head}有哪些症状？",
            "得了{head}会有什么表现？",
            "{head}的常见症状是什么？",
            "{head}患者一般会出现哪些不适？",
            "出现哪些症状要考虑{head}？",
        ),
        (
            "{head}的常见症状包括{tails}。",
            "{head}患者可出现{tails}。",
            "{head}的主要表现有{tails}。",
            "{tails}是{head}的常见症状。",
            "得了{head}，常见的表现有{tails}。",
        ),
    ),
    "症状描述": _prose(
        ("{head}的临床表现是怎样的？", "请详细描述{head}的症状。", "{head}发病时具体有什么表现？"),
        ("{head}的临床表现：{tails}", "{head}的症状详述如下。{tails}", "具体来说，{head}有以下表现：{tails}"),
    ),
    "并发症": _list(
        ("{head}会引起哪些并发症？", "{head}的并发症有哪些？", "{head}如果不治疗会并发什么病？"),
        ("{head}可并发{tails}。", "{head}的并发症包括{tails}。", "{head}可能引起的并发症有{tails}。"),
    ),
    "病因": _prose(
        ("{head}的病因是什么？", "为什么会得{head}？", "{head}是怎么引起的？", "哪些原因会导致{head}？"),
        ("{head}的病因：{tails}", "{head}是怎么引起的？{tails}", "关于{head}的发病原因：{tails}"),
    ),
    "致病因素": _list(
        ("{head}的致病因素有哪些？", "哪些因素会引起{head}？", "{head}和哪些因素有关？"),
        ("{head}的致病因素包括{tails}。", "{head}的发生与以下因素有关：{tails}。", "可引起{head}的因素有{tails}。"),
    ),
    "易感人群": _value(
        ("哪些人容易得{head}？", "{head}的易感人群是哪些？", "{head}多见于什么人？"),
        ("^无(特殊|特定|特发|明显)", ("{head}没有特定的易感人群。", "{head}的发病没有特定人群。")),
        ("^(所有|任何|各种|一般)人群?。?$", ("任何人都可能得{head}。", "{head}可发生于任何人群。")),
        ("^.{0,4}(见|发生?|发病)[于在]", ("{head}{tails}。",)),
        ("^.{0,3}(发病|好发|起病|高发|高峰|平均)年龄", ("{head}的{tails}。",)),
        (
            "[多常少可]见|居多|为主|[好多高]发|起病|发病|多[于。]?$|均可|^(大?多|常|主要)|[，。；]",
            ("{head}的发病人群：{tails}。",),
        ),
        ("", ("{head}的易感人群：{tails}。", "{head}的易感人群是{tails}。", "容易得{head}的人是{tails}。")),
    ),
    "患病比例": _value(
        ("{head}的患病比例是多少？", "{head}的发病率高吗？", "得{head}的人多不多？"),
        ("^[0-9.]+.{0,12}$", ("{head}的患病比例约为{tails}。", "据资料统计，{head}的患病比例约为{tails}。")),
        ("^[^，。；]{0,12}(发病|患病|发生)率", ("{head}的{tails}。",)),
        ("^(罕见|少见|多见|常见|属于|极?罕)", ("{head}{tails}。",)),
        ("", ("{head}的患病比例：{tails}。", "关于{head}的患病比例，资料记载：{tails}。")),
    ),
    "传染方式": _value(
        ("{head}会传染吗？", "{head}是怎么传播的？", "{head}有传染性吗？"),
        ("^(无|没有|不具有|非|不)传染", ("{head}没有传染性。", "{head}不会传染。")),
        ("^(部分)?(有|具有).*传染性", ("{head}{tails}。",)),
        ("", ("{head}的传播途径：{tails}。", "{head}有传染性，传播方式为{tails}。")),
    ),
    "检查": _list(
        ("{head}需要做哪些检查？", "确诊{head}要做什么检查？", "怀疑{head}应该查什么？", "{head}的检查项目有哪些？"),
        (
            "{head}需要做的检查有{tails}。",
            "诊断{head}常用的检查包括{tails}。",
            "怀疑{head}时，可以做{tails}。",
            "{head}的检查项目有{tails}。",
        ),
    ),
    "科室": _list(
        ("{head}应该挂什么科？", "得了{head}去哪个科室看？", "{head}属于哪个科室？"),
        ("{head}应就诊的科室是{tails}。", "得了{head}可以到{tails}就诊。", "{head}的就诊科室为{tails}。"),
    ),
    "治疗方法": _list(
        ("{head}怎么治疗？", "{head}有哪些治疗方法？", "得了{head}该怎么治？", "治疗{head}有什么办法？"),
        ("{head}的治疗方法包括{tails}。", "治疗{head}可采用{tails}。", "{head}的治疗手段有{tails}。"),
    ),
    "常用药物": _list(
        ("{head}吃什么药？", "治疗{head}常用哪些药物？", "{head}的常用药有哪些？"),
        ("{head}的常用药物有{tails}。", "治疗{head}常用的药物包括{tails}。", "{head}患者常用的药有{tails}。"),
    ),
    "推荐药物": _list(
        ("{head}推荐用什么药？", "得了{head}可以选用哪些药物？", "有哪些药可以用来治疗{head}？"),
        ("{head}的推荐药物有{tails}。", "治疗{head}可选用{tails}。", "可用于{head}的药物包括{tails}。"),
    ),
    "治疗周期": _value(
        ("{head}多久能治好？", "{head}的治疗周期是多长？", "治疗{head}需要多长时间？"),
        ("^[0-9一二三四五六七八九十半两].{0,12}$", ("{head}的治疗周期约为{tails}。", "治疗{head}一般需要{tails}。")),
        ("^需要?", ("{head}{tails}。",)),
        ("^(终身|长期|间歇|终生)", ("{head}需要{tails}。",)),
        ("", ("{head}的治疗周期：{tails}。", "关于{head}的治疗周期，资料记载：{tails}。")),
    ),
    "治愈率": _value(
        ("{head}能治好吗？", "{head}的治愈率是多少？", "{head}治愈的可能性大吗？"),
        ("^[0-9].{0,12}$", ("{head}的治愈率约为{tails}。", "据资料记载，{head}的治愈率约为{tails}。")),
        ("^[^，。；0-9]{0,8}(治愈|生存|根治|好转|有效)率", ("{head}的{tails}。",)),
        ("^(目前)?(无法|不能|不易|难以|很难|可以|可治愈|需要?)", ("{head}{tails}。",)),
        ("", ("{head}的治愈情况：{tails}。", "关于{head}的治愈率，资料记载：{tails}。")),
    ),
    "治疗费用": _value(
        ("治疗{head}要花多少钱？", "{head}的治疗费用是多少？", "看{head}大概需要多少钱？"),
        ("^(根据|因)", ("{head}的治疗费用{tails}。", "治疗{head}的费用{tails}。")),
        ("", ("{head}的治疗费用：{tails}。", "关于{head}的治疗费用，资料记载：{tails}。")),
    ),
    "医保": _value(
        ("{head}可以用医保报销吗？", "{head}属于医保范围吗？", "治疗{head}能走医保吗？"),
        ("^(否|不|非)", ("{head}不属于医保疾病。", "{head}不在医保疾病范围内。")),
        ("^(是|属于|可以|医保疾病)", ("{head}属于医保疾病。", "{head}在医保疾病范围内。")),
        ("", ("{head}的医保情况：{tails}。",)),
    ),
    "宜吃": _list(
        ("{head}患者宜吃什么？", "得了{head}吃什么好？", "{head}适合吃哪些食物？"),
        ("{head}患者宜吃{tails}。", "得了{head}可以多吃{tails}。", "适合{head}患者的食物有{tails}。"),
    ),
    "宜吃原则": _prose(
        ("{head}患者饮食上宜注意什么？", "{head}宜吃哪一类食物？", "得了{head}，饮食的原则是什么？"),
        ("{head}的适宜饮食：{tails}", "饮食方面，{head}患者应做到：{tails}", "{head}患者的饮食原则：{tails}"),
    ),
    "忌吃": _list(
        ("{head}患者不能吃什么？", "得了{head}忌吃哪些食物？", "{head}需要忌口吗，不宜吃什么？"),
        ("{head}患者忌吃{tails}。", "得了{head}不宜吃{tails}。", "{head}患者应避免食用{tails}。"),
    ),
    "忌吃原则": _prose(
        ("{head}在饮食上有什么禁忌？", "{head}患者应避免哪一类食物？", "{head}的忌口原则是什么？"),
        ("{head}的饮食禁忌：{tails}", "饮食禁忌方面，{head}患者应注意：{tails}", "{head}患者的忌口原则：{tails}"),
    ),
    "推荐食谱": _list(
        ("{head}有什么推荐的食谱？", "适合{head}患者的菜有哪些？", "{head}患者可以做些什么菜吃？"),
        ("{head}的推荐食谱有{tails}。", "适合{head}患者的食谱包括{tails}。", "{head}患者可选的食谱有{tails}。"),
    ),
    "护理": _prose(
        ("{head}患者怎么护理？", "得了{head}日常要注意什么？", "{head}的护理要点是什么？"),
        ("{head}的护理：{tails}", "得了{head}，日常护理如下：{tails}", "护理{head}患者时应注意：{tails}"),
    ),
    "预防": _prose(
        ("怎么预防{head}？", "{head}该如何预防？", "平时怎样避免得{head}？"),
        ("{head}的预防：{tails}", "怎样预防{head}？{tails}", "预防{head}，应注意以下几点。{tails}"),
    ),
    "预防措施": _list(
        ("{head}有哪些预防措施？", "预防{head}要注意什么？", "采取什么措施可以预防{head}？"),
        ("{head}的预防措施包括{tails}。", "预防{head}可采取以下措施：{tails}。", "为预防{head}，应做到{tails}。"),
    ),
    "别名": _list(
        ("{head}还有什么名称？", "{head}又叫什么？", "{head}的别名有哪些？"),
        (
            *("{head}又称{tails}。", "{head}的别名有{tails}。", "{head}也叫{tails}。", "{head}，又名{tails}。"),
            *("{tails}是{head}的别名。", "也有人把{head}称作{tails}。"),
        ),
    ),
    "组成": _list(
        ("{head}由哪些药组成？", "{head}的组成是什么？", "{head}这个方子用了哪些药？"),
        (
            *("{head}由{tails}组成。", "{head}的药物组成为{tails}。", "{head}所用的药有{tails}。"),
            *("{tails}组成{head}。", "组成{head}的药物有{tails}。", "方剂{head}含{tails}。", "配制{head}，用{tails}。"),
        ),
    ),
    "功效": _list(
        ("{head}有什么功效？", "{head}的功效是什么？", "{head}在中医里有什么作用？"),
        ("{head}的功效为{tails}。", "{head}能{tails}。", "{head}具有{tails}的功效。"),
    ),
    "主治": _list(
        ("{head}主治什么病症？", "{head}可以治哪些病？", "{head}的主治是什么？"),
        (
            *("{head}主治{tails}。", "{head}的主治病症有{tails}。", "{head}可用于{tails}。", "{tails}可用{head}治疗。"),
            *("{tails}是{head}的主治病症。", "遇有{tails}，可用{head}。", "用{head}治疗的病症有{tails}。"),
        ),
    ),
    "功能主治": _list(
        ("{head}的功能主治是什么？", "{head}这个方子用来治什么？", "什么情况下用{head}？"),
        ("{head}的功能主治为{tails}。", "{head}的功能与主治：{tails}。", "{head}用于{tails}。"),
    ),
    "药性": _list(
        ("{head}的药性是什么？", "{head}性寒还是性热？", "{head}属于哪种药性？"),
        ("{head}性{tails}。", "{head}的药性为{tails}。"),
    ),
    "药味": _list(
        ("{head}是什么味？", "{head}的五味是什么？", "{head}的药味如何？"),
        ("{head}味{tails}。", "{head}的药味为{tails}。"),
    ),
    "归经": Wording(
        "list",
        ("{head}的归经是什么？", "{head}归经如何？", "从归经来说，{head}入什么经？"),
        (("经。?$", ("{head}归{tails}。", "{head}入{tails}。")), ("", ("{head}归{tails}经。", "{head}入{tails}经。"))),
    ),
    "产地": _list(
        ("{head}产于哪里？", "{head}分布在哪些地方？", "{head}的产地有哪些？"),
        ("{head}分布于{tails}等地。", "{head}产于{tails}。", "{head}的产地有{tails}。"),
    ),
    "出处": _list(
        ("{head}出自哪部书？", "哪些医书记载了{head}？", "{head}的出处是什么？"),
        ("{head}出自{tails}。", "{head}见于{tails}。", "记载{head}的书有{tails}。"),
    ),
}

# A user's own graph has relations of its own: their names, nouns or verbs, stand in the slot {relation}.
_GENERIC_ASKED = (
    "{head}的“{relation}”是什么？",
    "关于{head}，“{relation}”有哪些？",
    "请说明{head}的“{relation}”。",
    "{head}在“{relation}”方面有什么内容？",
)
GENERIC: dict[str, Wording] = {
    "list": _list(
        _GENERIC_ASKED,
        (
            "{head}的“{relation}”：{tails}。",
            "{head}的“{relation}”包括{tails}。",
            "就“{relation}”而言，{head}有{tails}。",
        ),
    ),
    "prose": _prose(_GENERIC_ASKED, ("{head}的“{relation}”：{tails}", "关于{head}的“{relation}”：{tails}")),
}

# What an entity list that is too long for one sentence goes on with, and what is said when even that is too long.
MORE = ("此外还有{tails}。", "除此之外，还有{tails}。", "另有{tails}。")
CUT = ("以上列出{shown}项，资料中共有{count}项。",)

# Who a document calls "本病" once it has named it.
PRONOUNS: dict[str, tuple[str, ...]] = {
    "疾病": ("该病", "本病"),
    "药品": ("该药", "本品"),
    "药物": ("该药", "本品"),
    "中药": ("该药", "本品"),
    "方剂": ("该方", "本方"),
    "同名方": ("该方", "本方"),
    "穴位": ("该穴", "本穴"),
}

# Heads of which the name alone does not say which is meant: documents tell of them, but nobody can be asked.
UNASKED = ("同名方",)

# A document's paragraphs: which relations stand together, and the orders in which the paragraphs can come.
PARAGRAPHS: dict[str, tuple[str, ...]] = {
    "about": ("概述", "别名", "出处", "发病部位", "易感人群", "患病比例", "传染方式", "药性", "药味", "归经", "产地"),
    "cause": ("病因", "致病因素"),
    "signs": ("症状", "症状描述", "并发症"),
    "check": ("科室", "检查"),
    "treat": (
        "组成",
        "功效",
        "主治",
        "功能主治",
        "治疗方法",
        "常用药物",
        "推荐药物",
        "治疗周期",
        "治愈率",
        "治疗费用",
        "医保",
    ),
    "food": ("宜吃原则", "宜吃", "忌吃原则", "忌吃", "推荐食谱"),
    "care": ("护理", "预防", "预防措施"),
}
ORDERS: tuple[tuple[str, ...], ...] = (
    ("about", "cause", "signs", "check", "treat", "food", "care"),
    ("about", "signs", "cause", "check", "treat", "care", "food"),
    ("about", "signs", "check", "treat", "cause", "care", "food"),
    ("signs", "about", "cause", "check", "treat", "food", "care"),
    ("cause", "about", "signs", "check", "treat", "care", "food"),
    ("check", "about", "signs", "cause", "treat", "food", "care"),
)

# Exam instructions; {kind} is "单项选择题" or "多项选择题".
EXAM_KINDS = ("单项选择题", "多项选择题")
EXAM_EXPLAINED = (
    "请回答下面的{kind}，并给出解析。\n{question}\n{options}",
    "以下是一道医学{kind}，请选出正确答案并说明理由。\n{question}\n{options}",
    "{kind}：{question}\n{options}\n请给出答案和解析。",
    "{question}\n{options}\n这是一道{kind}，应该怎么选？请解释原因。",
    "请作答并解析这道{kind}。\n{question}\n{options}",
)
EXAM_BARE = (
    "请回答下面的{kind}。\n{question}\n{options}",
    "以下是一道医学{kind}，请选出正确答案。\n{question}\n{options}",
    "{kind}：{question}\n{options}\n请给出答案。",
    "{question}\n{options}\n这是一道{kind}，应该怎么选？",
)
# An exam asked as exams are: letters first, and why when that is asked.
EXAM_BRIEF = (
    "请回答下面的{kind}，只写出正确选项的字母。\n{question}\n{options}",
    "{kind}：{question}\n{options}\n只回答选项字母，不必解释。",
    "{question}\n{options}\n这是一道医学{kind}，请直接给出正确选项的字母。",
)
EXAM_WHY = ("请给出解析。", "为什么？请说明理由。", "请解释原因。")
EXAM_ANSWER = ("正确答案是{answer}", "答案：{answer}", "本题选{answer}", "应选{answer}")
EXAM_TEXT = (
    "{question}\n{options}\n答案：{answer}",
    "题目：{question}\n{options}\n正确答案是{answer}",
    "{kind}\n{question}\n{options}\n本题选{answer}",
)

# Labels of the user and of the assistant in a transcript: clinical talk, and anything else.
CLINICAL = (("患者：", "医生："), ("病人：", "医生："))
NEUTRAL = (("问：", "答："), ("提问：", "回答："), ("问题：", "解答："))


def pick(keys: pa.Array, options: int | Codes, salt: str = "") -> Codes:
    """A number from 0 to options - 1 for every key: the same for the same key and salt, evenly spread.

    >>> pick(pa.array(["百日咳", "哮喘", "百日咳"]), 5).tolist()[::2]
    [1, 1]
    """
    seed = np.uint64(int.from_bytes(salt.encode()[:8].ljust(8, b"\0"), "little"))
    spread = (exact_keys(keys)[:, 0] ^ seed) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)
    return (spread % np.asarray(options, np.uint64)).astype(np.int64)


def _pieces(template: str) -> list[tuple[str, str]]:
    """The (text, slot after it) pairs of a template."""
    return [(text, slot or "") for text, slot, _, _ in Formatter().parse(template)]


def fill(templates: Sequence[str], which: Codes, **slots: pa.Array | str) -> pa.Array:
    """One text a row: template number `which[row]` with each slot's value of that row.

    >>> fill(["{head}的症状？", "得了{head}会怎样？"], np.array([1, 0]), head=pa.array(["哮喘", "痛风"])).to_pylist()
    ['得了哮喘会怎样？', '痛风的症状？']
    """
    rows = len(which)
    names = ["", *slots]
    values: list[Any] = [pa.repeat("", rows)]
    values += [pa.repeat(value, rows) if isinstance(value, str) else value for value in slots.values()]
    cut = [_pieces(template) for template in templates]
    columns: list[pa.Array] = []
    for place in range(max(map(len, cut))):
        here = [pieces[place] if place < len(pieces) else ("", "") for pieces in cut]
        columns.append(pa.array([text for text, _ in here], pa.string()).take(pa.array(which)))
        slot = np.array([names.index(name) for _, name in here])[which]
        if slot.any():
            columns.append(pc.choose(pa.array(slot), *values))
    return pc.binary_join_element_wise(*columns, "")
