"""Signs: the words by which `chimed.quality` tells what is wrong with a text, most of them as patterns of RE2."""

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from chimed.characters import buffers, decode

_STAND_INS = (
    "无|暂无|暂缺|略|未知|不详|待补充|待更新|待完善|内容待完善|请等待更新|图片|见图|见附图|null|none|nan|n/?a|undefined"
    "|(暂无|暂时没有|没有|无)(相关)?(资料|数据|内容|信息|介绍|解析|答案|回答|描述)"
)
PLACEHOLDER = rf"(?i)^[\s\p{{P}}]*({_STAND_INS})[\s\p{{P}}]*$"
URL = r"(?i)^\s*(https?://|www\.)\S+\s*$"
LINK = r"(?i)https?://|www\."
SYMBOL = r"[^\p{L}\p{N}\p{M}\s]"
# Not 心电图示, 星状图中: only a figure that the words point at; of a table nothing follows on a line of its own.
FIGURE = (
    "如[上下左右]?附?图|[见附]图[0-9０-９一二三]|[见附][上下]?图[，。,（(示所]|[上下]图[中为是示所，。,]|[（(]图[）)0-9]|暂无图"
    r"|(^|[，。；：、])图[中示]|([见如]下表|下表提供|上述表格)[^\n]*$|加点的?[字词]"
    "|结构[通简]?式?[为是](，|的药)|(如下|[下上]列|以[下上])(化学)?结构式?的?[药抗]|结构式?如下的|^具有结构的"
    r"|(?i:(shown|radiograph) below|(scan|x-?ray|instrument|figure|image) given|given x-?ray|marked with arrow|^figure"
    r"|following (ecg|x-?ray|figure|image|diagram)|in (the )?(fig\b|figure|diagram|color plate))"
)
# 该 without anything before it that it could stand for.
LOST = (
    "^[^，。；：:？某一0-9]{0,10}该(患者|病人|患儿|处方|药物|孕妇|产妇|制剂)|^(关于|有关|对于|如果查找|为避免)?该药"
    "|^[^，。；：:]{0,4}(本病例|[本此]病人|此患者)|^[^。；]{0,16}(根据|基于|结合|依据)[上以][述上](信息|资料|材料|情况|病例|处方)"
    "|^[^。；，]{0,10}((应用|使用|服用|经)[上以][述上]药物|以上用药)"
)
COURTESY = (
    r"^([\s\p{P}]*(不客气|不用谢|不谢|没关系|谢谢您?的?(信任|理解|支持|咨询)?|感谢您?的?(信任|理解|支持|咨询)|您好|你好"
    r"|(祝|愿)您?你?(宝宝|孩子|家人)?(早日|身体|一切)?(康复|健康|顺利|平安)|再见|有事再联系|随时联系))+[\s\p{P}]*$"
)
NOISE = (
    r"^[^\p{L}]*$|\[详细\]|(\.\.\.|…|市三甲医院约)$|^@|@$"
    r"|^(查看更多|更多|查看全部|查看详情|详情|详细|展开|收起|点击.*)[\s\p{P}]*$"
)
VALUE_NOISE = r"^[^\p{L}\p{N}]*$|\[详细\]|(\.\.\.|…|市三甲医院约)$"

# A program went over a text and swapped words for their like, or for their contrary: recovery is 放慢, vaccines 麻醉.
# A sign is words with blanks between them; brackets hold what may stand in their place.
# One of these is enough: no patient or doctor writes so.
NEVER = (
    *("麻醉", "麻醉(胰岛素|的胰岛素)", "放慢", "提示音", "抗衡 战胜"),
    "消化(维生素|身体营养) 排便(优质|富含|高蛋白|含有|极冷|便会)",
    "专心(坚持|保持|口服|服食|用药|恶化)",
    "预防工作(干燥|闹肚子)",
    "需要有(去|及时|到|在医|做|注意|留意|马上|尽快|首先|看重|口服|采用|停止)",
    "绝不会(引|感染|传染|影响)",
    "救治(乙肝|大三阳|小三阳|期间|之外|以外|疾病|肝病)",
    "脉冲(点滴|注射|滴注|输液)",
    "切换酶 协助到 认为这样一定 护理培训 缓解高血压 监测数据血 疫苗疫苗 放柔",
)
# Of these two different ones are.
SELDOM = (
    "留意(歇息|饮食|休息)",
    "恰当(饮食|用药|膳食|作息|控制)",
    "(对症|及时|马上|实行|专业|理解|正规|积极|药物)救治 救治(效果|方法|方案|的)",
    "实施(治疗|救治|医治|检查|对症|全面|仔细)",
    "再次(出现|发生)",
    "期望(上述|我的|患者)",
    "不定期(复|健康|检)",
    "叙述的(这种|情况)",
    "需要有(通过|手术|看|长期|控制|患者|仔细|密切|积极|严格|多|使|坚|进)",
    "打击(食物|性|胃) 压制(病|血) 发觉(症状|有|自|的)",
    *("复检", "方才能", "(但|我|就)您好"),
    *("仔细检查", "服食", "喝啤酒", "喝药", "看重", "散播", "伤损", "碰触", "引来", "办到", "闹肚子", "绝不会"),
    *("隔代遗传", "自动免疫", "临床诊断上", "方法有许多", "不知晓", "复发的时候", "互相配", "持继", "抱括", "极冷"),
    *("约莫", "炼化", "切勿过饥", "祝患者身体早日", "想理解"),
)
# What else must be there.
WHERE = {
    "麻醉": "麻醉[^，。；、]{0,6}(?:疫苗|球蛋白)",
    "放慢": "放慢[^，。；、]{0,6}(?:康复|恢复|修补)",
    "提示音": "提示音[^，。；]{0,12}(?:乙肝|病毒|三阳)",
    "抗衡 战胜": "降低[^，。]{0,4}(?:抗衡|战胜)",
    "复检": "(?:^|[^重反])复检",
    "方才能": "[^处一地]方才能",
    "(但|我|就)您好": "[但我就]您好[^好像，！。!：,\n]",
}
_SIGNS = (*NEVER, *SELDOM)


def words(sign: str) -> Iterator[str]:
    """The words of a sign.

    >>> list(words("留意(歇息|休息) 引来"))
    ['留意歇息', '留意休息', '引来']
    """
    for written in sign.split():
        yield from map("".join, product(*(part.split("|") for part in re.split("[()]", written))))


def _dictionary() -> tuple[Any, ...]:
    """By code point, the number of a character that is among the first two of a word; by two numbers, from where to
    where the words stand that begin so; the words' offsets and bytes; the bit of each word's sign.
    """
    entries = sorted((word, 1 << bit) for bit, sign in enumerate(_SIGNS) for word in words(sign))
    known, bits = zip(*entries, strict=True)
    numbers = {char: number for number, char in enumerate(sorted({char for word in known for char in word[:2]}), 1)}
    number = np.zeros(0x110000, np.uint8)
    number[[ord(char) for char in numbers]] = list(numbers.values())
    spans = np.zeros((len(numbers) + 1, len(numbers) + 1, 2), np.uint8)
    for place, word in reversed(list(enumerate(known))):
        span = spans[numbers[word[0]], numbers[word[1]]]
        span[:] = place, max(span[1], place + 1)
    return number, spans, *buffers(pa.array(known)), np.array(bits, np.uint64)


_DICTIONARY = _dictionary()


@njit(cache=True, nogil=True)
def _held(turns: Any, offsets: Any, data: Any, dictionary: Any, held: Any) -> None:
    """Fills in the signs of which each conversation holds a word, as bits, into zeros."""
    number, spans, ends, words, bits = dictionary
    for row in range(len(held)):
        for turn in range(turns[row], turns[row + 1]):
            i, end = offsets[turn], offsets[turn + 1]
            last: Any = np.uint8(0)
            while i < end:
                code, size = decode(data, i)
                this = number[code]
                for word in range(spans[last, this, 0], spans[last, this, 1]):
                    k, stop = ends[word] + 6, ends[word + 1]  # what begins a word is two times three bytes
                    ahead = i + 3 - k
                    while k < stop and ahead + k < end and data[ahead + k] == words[k]:
                        k += 1
                    if k == stop:
                        held[row] |= bits[word]
                last = this
                i += size


def _enough(held: Any) -> Any:
    """Whether these are one sign that nobody writes, or two of any."""
    return (held & np.uint64((1 << len(NEVER)) - 1) | held & (held - np.uint64(1))) != 0


def reworded(talks: pa.ListArray) -> NDArray[np.bool_]:
    """Which conversations show a sign that nobody writes, or two different ones that are seldom.

    >>> texts = ["肝炎患者可以麻醉乙肝疫苗。", "引来发热的原因很多，留意休息。", "引来发热的原因很多。"]
    >>> reworded(pa.array([[text] for text in texts])).tolist()
    [True, True, False]
    """
    held = np.zeros(len(talks), np.uint64)
    _held(talks.offsets.to_numpy(), *buffers(talks.values), _DICTIONARY, held)
    for sign, pattern in WHERE.items():
        bit = np.uint64(1 << _SIGNS.index(sign))
        rows = np.flatnonzero((held & bit != 0) & _enough(held))
        texts = pc.binary_join(talks.take(pa.array(rows)), "\n")
        held[rows[~pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False)]] ^= bit
    found: NDArray[np.bool_] = _enough(held)
    return found
