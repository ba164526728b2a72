"""Personal data: what is masked, what is not, and how well, on planted strings in hand-written medical sentences."""

import random
from pathlib import Path

import pyarrow as pa
import pytest

from chimed.privacy import PLACEHOLDERS, is_id_number
from chimed.text import clean, mask


def masked(text: str) -> str:
    return mask(pa.array([text]))[0][0].as_py()


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("电话13812345678咨询", "电话[手机号]咨询"),
        ("手机:138-1234-5678，或138 1234 5679", "手机:[手机号]，或[手机号]"),
        ("１３８１２３４５６７８", "[手机号]"),
        ("+86 13812345678、86-138-1234-5678、Tel13912345678", "[手机号]、[手机号]、Tel[手机号]"),
        ("13812345678/13912345678-13712345678", "[手机号]/[手机号]-[手机号]"),
        ("010-12345678转801，(021)62345678，（０７５５）1234567", "[电话号码]，[电话号码]，[电话号码]"),
        ("拨打4008208820或800-820-8820", "拨打[电话号码]或[电话号码]"),
        ("检验科咨询电话7220332(请保留)", "检验科咨询电话[电话号码](请保留)"),
        ("身份证11010519491231002X，旧证110105491231002", "身份证[身份证号]，旧证[身份证号]"),
        ("110105 19491231 002x", "[身份证号]"),
        ("邮箱zhang.san@qq.com。或li＠163．com", "邮箱[邮箱]。或[邮箱]"),
        ("见https://a.com/b?c=1，www.abc.com/x。haodf.com上", "见[网址]，[网址]。[网址]上"),
        ("见http://gov.abc.com/x，edu-abc.cn，fda.gov.abc.com", "见[网址]，[网址]，[网址]"),
        ("QQ：12345678，qq群 123456789，加q 123456", "QQ：[QQ号]，qq群 [QQ号]，加q [QQ号]"),
        ("相信我的加我扣123456789", "相信我的加我扣[QQ号]"),
        ("微信号：zhangsan_1，加微信yishi2020，vx:abc12345", "微信号：[微信号]，加微信[微信号]，vx:[微信号]"),
        ("加V：doctor88，微信13812345678，wxid_abc123", "加V：[微信号]，微信[微信号]，[微信号]"),
    ],
)
def test_masked(raw: str, safe: str) -> None:
    assert masked(raw) == safe
    assert masked(safe) == safe
    assert clean(pa.array([safe]))[0].as_py() == safe


@pytest.mark.parametrize(
    "text",
    [
        "青霉素1000000U静滴，诊断J18.900，2010-2015年，1990－2000年",
        "国药准字H20103456，批准文号：13812345678，注册证号13912345678",
        "PMID: 13812345678，doi:10.3760/cma.j.cn112137-20200212-00332，10.1177/0284185119878357",
        "10.3760/cma.j.cn.112137，ISO 13485，GB 11643-1999，ChiCTR2000029308，NCT04252274",
        "条码6901234567892，chr7:140453136-140453137",
        "110105194912310021不是，01234567890123不是，113812345678901不是",
        "拨打120急救，12345热线，12320，110",
        "v.s.安慰剂，E.coli，Node.js，0.9%氯化钠，0.125-0.25",
        "HBV-DNA 13500000000copies/ml，1.35E+10，费用50000-1000000元",
        "剂量400-800-1200mg，血压135/85，1:1000 1:2000，12000 13000 14000",
        "2020-01-15，20200115，电话20200115，01100100 01100101",
        "QQ群里说，aug-QQR-626，加VitC，加vitamin治疗，增加VEGF表达",
        "微信公众号，微信app，WeChat支付，微信咨询医生",
        "A．http://www.nmpa.gov.cn B．www.who.int C．https://www.cdc.gov/flu/x.html D．cochrane.org，pumc.edu.cn",
        "curl http://localhost:3000/api，127.0.0.1:8080，http://192.168.1.5/",
        "git clone git@github.com:a/b.git",
    ],
)
def test_left_alone(text: str) -> None:
    assert masked(text) == text


def test_counts() -> None:
    texts = pa.chunked_array([["打13812345678或13912345678，a@b.com"], ["头痛"]])
    safe, counts = mask(texts)
    assert safe.to_pylist() == ["打[手机号]或[手机号]，[邮箱]", "头痛"]
    assert {kind: count.to_pylist() for kind, count in counts.items() if sum(count.to_pylist())} == {
        "mobile": [2, 0],
        "email": [1, 0],
    }
    assert set(counts) == set(PLACEHOLDERS)
    assert all(count.type == pa.int32() for count in counts.values())
    assert len(mask(pa.array([], pa.string()))[0]) == 0


def test_id_number_check_digits() -> None:
    assert is_id_number("11010519491231002X")
    assert not is_id_number("110105194912310021")  # check digit
    assert not is_id_number("11010519491331002X")  # month 13
    assert not is_id_number("99010519491231002X")  # no such province
    assert not is_id_number("110105490231002")  # 30 February


TEMPLATES = [
    "您好，我母亲高血压十年，{}，想咨询用药。",
    "患者男，56岁，血糖6.1mmol/L，{}。",
    "建议到心内科复查（{}），不要自行停药。",
    "医生：请把化验单发给我，{}\n患者：好的",
    "孩子发热39.2℃两天，已口服布洛芬5ml；{}；急！",
    "病情分析：考虑为慢性胃炎。{} 请及时就医",
]


def _id_number(rng: random.Random) -> str:
    body = (
        rng.choice(["110105", "310104", "440305", "510107"])
        + f"{rng.randint(1940, 2015)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}"
    )
    body += f"{rng.randint(0, 999):03}"
    return next(body + last for last in "0123456789X" if is_id_number(body + last))


def _planted(rng: random.Random, kind: str) -> str:
    def digits(n: int) -> str:
        return "".join(rng.choices("0123456789", k=n - 1)) + rng.choice("123456789")

    head, rest = f"1{rng.choice(['38', '39', '50', '86', '77', '99', '47', '65'])}", digits(8)
    name = "".join(rng.choices("abcdefghkmnprstuy", k=6))
    match kind:
        case "mobile":
            shape = rng.choice(["{}{}{}", "{}-{}-{}", "{} {} {}", "+86 {}{}{}", "手机号：{}{}{}", "联系我{}{}{}谢谢"])
            text = shape.format(head, rest[:4], rest[4:])
            return text.translate({c: c + 0xFEE0 for c in range(0x30, 0x3A)}) if rng.random() < 0.1 else text
        case "landline":
            area, local = rng.choice([("010", 8), ("021", 8), ("0755", 8), ("0731", 7), ("0535", 7)])
            number = digits(local)
            number = rng.choice("2345678") + number[1:]
            return rng.choice(
                [
                    f"{area}-{number}",
                    f"({area}){number}",
                    f"（{area}）{number}",
                    f"{area}{number}",
                    f"电话{area} {number}",
                    f"400-{digits(3)}-{digits(4)}",
                    f"800{digits(7)}",
                ]
            )
        case "id":
            number = _id_number(rng)
            old = number[:6] + number[8:17]
            return rng.choice(
                [number, number.lower(), f"身份证号{number}", f"{number[:6]} {number[6:14]} {number[14:]}", old]
            )
        case "email":
            return rng.choice(
                [
                    f"{name}@qq.com",
                    f"邮箱{name}.{digits(3)}@163.com",
                    f"{digits(9)}@qq.com",
                    f"{name}_1@mail.pku.edu.cn",
                ]
            )
        case "url":
            return rng.choice(
                [
                    f"https://www.{name}.com/a/{digits(5)}.html",
                    f"http://{name}.cn",
                    f"www.{name}.com.cn/x?id={digits(4)}",
                    f"登录{name}.com查询",
                ]
            )
        case "qq":
            return rng.choice(["QQ：{}", "我的QQ{}", "qq群：{}", "QQ号是{}", "加Q {}", "扣扣{}"]).format(
                rng.choice("123456789") + digits(rng.randint(5, 9))
            )
    handle = rng.choice([f"{name}{digits(3)}", f"{name}_{digits(2)}", f"wx{digits(6)}", head + rest])
    return rng.choice(
        ["微信：{}", "微信号{}", "加微信 {}", "vx:{}", "加V：{}", "wx {}", "薇信{}", "WeChat: {}"]
    ).format(handle)


def test_recall_on_planted_strings() -> None:
    rng = random.Random(7)
    kinds = [kind for kind in PLACEHOLDERS for _ in range(286)]
    planted = [_planted(rng, kind) for kind in kinds]
    texts = [rng.choice(TEMPLATES).format(text) for text in planted]
    safe, counts = mask(pa.array(texts))
    missed = [
        (kind, text)
        for row, (kind, text) in enumerate(zip(kinds, planted, strict=True))
        if counts[kind][row].as_py() != 1
    ]
    assert len(texts) > 2000
    assert len(missed) <= 0.01 * len(texts), missed
    assert mask(safe)[0].equals(safe)
    kept = [text for text, row in zip(planted, safe.to_pylist(), strict=True) if text in row]
    assert len(kept) <= 0.01 * len(texts), kept


def _clean_sentence(rng: random.Random) -> str:
    def n(low: int, high: int) -> int:
        return rng.randint(low, high)

    parts = [
        f"青霉素{n(1, 99) * 100000}U静滴，每日{n(1, 4)}次",
        f"诊断：{rng.choice('IJKEM')}{n(10, 99)}.{n(0, 999):03}",
        f"{n(1950, 1999)}-{n(2000, 2024)}年随访{n(100, 99999)}例",
        f"{n(1950, 1999)}－{n(2000, 2024)}年",
        f"国药准字{rng.choice('HZSJ')}{n(10000000, 20999999)}",
        f"批准文号：国药准字Z{n(10000000, 20999999)}",
        f"白细胞{n(3, 30)}.{n(0, 99)}×10^9/L，血小板{n(50, 400)}×10⁹/L",
        f"HBV-DNA {n(100, 999999999)}IU/ml",
        f"HBV-DNA {n(13000000000, 19999999999)}copies/ml",
        f"血压{n(90, 200)}/{n(50, 120)}mmHg，心率{n(50, 150)}次/分",
        f"{n(2000, 2024)}-{n(1, 12):02}-{n(1, 28):02} {n(0, 23):02}:{n(0, 59):02}复查",
        f"入院日期{n(2000, 2024)}{n(1, 12):02}{n(1, 28):02}",
        f"PMID: {n(10000000, 39999999)}，第{n(1, 60)}卷第{n(1, 12)}期{n(1, 900)}-{n(901, 1800)}页",
        f"doi:10.{n(1000, 9999)}/j.cn{n(100000, 999999)}-{n(20000101, 20241231)}-{n(10000, 99999)}",
        f"基因位点chr{n(1, 22)}:{n(10000000, 199999999)}-{n(10000000, 199999999)}，rs{n(1000000, 99999999)}",
        f"条形码69{n(10000000000, 99999999999)}",
        f"标本号{n(10**11, 10**12)}，住院号{n(10**6, 10**10)}",
        f"产品批号{n(10000000, 99999999)}，有效期至{n(2024, 2030)}.{n(1, 12):02}",
        f"费用约{n(1, 9) * 1000}-{n(1, 9) * 10000}元",
        f"试验编号NCT{n(10000000, 99999999)}、ChiCTR{n(1000000000, 2999999999)}",
        f"剂量{n(1, 9) * 100}-{n(1, 9) * 100}-{n(1, 9) * 1000}mg",
        f"甲胎蛋白{n(1, 9999)}.{n(0, 99)} ng/ml（{n(0, 9)}-{n(10, 99)}）",
        f"请拨打{rng.choice(['120', '110', '12345', '12320'])}",
        f"TSH {n(0, 9)}.{n(100, 999)}，FT3 {n(2, 9)}.{n(10, 99)} 正常值{n(0, 9)}.{n(10, 99)}-{n(3, 9)}.{n(10, 99)}",
        f"样本量{n(100, 900)} {n(100, 900)} {n(100, 900)}",
        f"流水号{n(10**17, 10**18 - 1)}",
    ]
    return "，".join(rng.sample(parts, 3)) + "。"


def test_no_false_masks_on_clean_sentences() -> None:
    rng = random.Random(11)
    texts = [_clean_sentence(rng) for _ in range(10_000)]
    safe = mask(pa.array(texts))[0].to_pylist()
    wrong = [(before, after) for before, after in zip(texts, safe, strict=True) if before != after]
    assert len(wrong) <= 1, wrong[:5]


def test_masking_of_real_texts_is_rare_and_stable(raw: Path) -> None:
    text = (raw / "toyhom" / "样例_内科5000-6000.csv").read_text("gb18030")
    lines = clean(pa.array([line for line in text.splitlines() if line]))
    safe, counts = mask(lines)
    assert mask(safe)[0].equals(safe)
    assert clean(safe).equals(safe)
    assert sum(sum(count.to_pylist()) for count in counts.values()) <= 5
