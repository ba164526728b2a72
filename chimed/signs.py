"""Signs: the words by which `chimed.quality` tells what is wrong with a text, as patterns of RE2."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

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
# One of these is enough: no patient or doctor writes so.
_NEVER = (
    "麻醉(?:[^，。；、]{0,6}(?:疫苗|球蛋白)|的?胰岛素)",
    "放慢[^，。；、]{0,6}(?:康复|恢复|修补)",
    "提示音[^，。；]{0,12}(?:乙肝|病毒|三阳)",
    "消化(?:维生素|身体营养)|排便(?:优质|富含|高蛋白|含有|极冷|便会)",
    "专心(?:坚持|保持|口服|服食|用药|恶化)",
    "预防工作(?:干燥|闹肚子)",
    "需要有(?:去|及时|到|在医|做|注意|留意|马上|尽快|首先|看重|口服|采用|停止)",
    "绝不会(?:引|感染|传染|影响)",
    "救治(?:乙肝|大三阳|小三阳|期间|之外|以外|疾病|肝病)",
    "脉冲(?:点滴|注射|滴注|输液)",
    "切换酶|协助到|认为这样一定|护理培训|缓解高血压|监测数据血|疫苗疫苗|放柔|降低[^，。]{0,4}(?:抗衡|战胜)",
)
# Of these two different ones are.
_SELDOM = (
    "留意(?:歇息|饮食|休息)",
    "恰当(?:饮食|用药|膳食|作息|控制)",
    "(?:对症|及时|马上|实行|专业|理解|正规|积极|药物)救治|救治(?:效果|方法|方案|的)",
    "实施(?:治疗|救治|医治|检查|对症|全面|仔细)",
    "再次(?:出现|发生)",
    "期望(?:上述|我的|患者)",
    "(?:^|[^重反])复检",
    "不定期(?:复|健康|检)",
    "[^处一地]方才能",
    "叙述的(?:这种|情况)",
    "[但我就]您好[^好像，！。!：,\n]",
    "需要有(?:通过|手术|看|长期|控制|患者|仔细|密切|积极|严格|多|使|坚|进)",
    "打击(?:食物|性|胃)|压制(?:病|血)|发觉(?:症状|有|自|的)",
    *("仔细检查", "服食", "喝啤酒", "喝药", "看重", "散播", "伤损", "碰触", "引来", "办到", "闹肚子", "绝不会"),
    *("隔代遗传", "自动免疫", "临床诊断上", "方法有许多", "不知晓", "复发的时候", "互相配", "持继", "抱括", "极冷"),
    *("约莫", "炼化", "切勿过饥", "祝患者身体早日", "想理解"),
)
_ANY = "|".join((*_NEVER, *_SELDOM))


def reworded(texts: pa.StringArray) -> NDArray[np.bool_]:
    """Which texts show a sign that nobody writes, or two different ones that are seldom.

    >>> texts = ["肝炎患者可以麻醉乙肝疫苗。", "引来发热的原因很多，留意休息。", "引来发热的原因很多。"]
    >>> reworded(pa.array(texts)).tolist()
    [True, True, False]
    """
    found: NDArray[np.bool_] = pc.match_substring_regex(texts, _ANY).to_numpy(zero_copy_only=False)
    suspects = texts.take(pa.array(np.flatnonzero(found)))
    signs = np.zeros(len(suspects), np.int64)
    for weight, patterns in ((2, _NEVER), (1, _SELDOM)):
        for pattern in patterns:
            signs += weight * pc.match_substring_regex(suspects, pattern).to_numpy(zero_copy_only=False)
    found[found] = signs > 1
    return found
