"""What clean, fold, han_share and language give for texts written by hand after what the sources really hold."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from chimed import characters
from chimed.text import clean, fold, han_share, language


def cleaned(text: str, **options: str) -> str:
    return clean(pa.array([text], pa.string()), **options)[0].as_py()  # type: ignore[arg-type]


def folded(text: str) -> str:
    return fold(pa.array([text], pa.string()))[0].as_py()


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        # width: letters, digits and signs become plain, Chinese punctuation stays
        ("血压１２０／８０ｍｍＨｇ，Ｂ超（正常）；好吗？！", "血压120/80mmHg，B超（正常）；好吗？！"),
        ("５０％的患者：３～５天", "50%的患者：3～5天"),
        ("体重60㎏，75㎎，30㎖，2㎡", "体重60kg，75mg，30ml，2m²"),
        ("ﬁbrin ⼀⽇", "fibrin 一日"),
        ("黄帝问曰∶何也", "黄帝问曰：何也"),
        ("︵甲︶﹐乙", "（甲），乙"),
        # what would be read as something else stays
        ("10²不是102，½片，①②，38.5℃，Ca²⁺，H₂O，Ⅱ度，№5", "10²不是102，½片，①②，38.5℃，Ca²⁺，H₂O，Ⅱ度，№5"),
        # entities and tags
        ("A&nbsp;B&amp;nbsp;C&amp;amp;lt;1", "A B C<1"),
        ("滴度&gt;1:20，E/A&lt;1，&ldquo;好&rdquo;", "滴度>1:20，E/A<1，“好”"),
        ("意见：<br>多休息<BR/><p class='x'>少盐</p>", "意见：\n多休息\n\n少盐"),
        ("<b>注意</b>：<a href='x'>饮食</a>", "注意：饮食"),
        ("白细胞10×10<sup>9</sup>/L，Cl<sup>-</sup>，PaO<sub>2</sub>", "白细胞10×10⁹/L，Cl⁻，PaO2"),
        ("log[sub]10[/sub]", "log10"),
        ("<script>alert(1)</script>头痛<!-- 广告 -->", "头痛"),
        ("p<0.05，<3岁，a<b>c，x<y且y>z，<篇名>", "p<0.05，<3岁，a<b>c，x<y且y>z，<篇名>"),
        ("AT&T &unknown; &lt", "AT&T &unknown; &lt"),
        # invisible and broken characters
        ("\ufeff头\u200b痛\u00ad发\x00热\x07", "头痛发热"),
        ("一位医\ufffd\ufffd好\ue5e5\ue5e5吗\uf06c", "一位医好 吗"),
        ("甲\r\n乙\r丙\u2028丁\x0b戊", "甲\n乙\n丙\n丁\n戊"),
        ("甲方\t乙方\u3000丙方\u00a0丁", "甲方 乙方 丙方 丁"),
        ("Ménie\u0300re", "Ménière"),
        # blanks
        ("  头痛 ， 发热 。\n  （ 三 ）  治疗  ", "头痛，发热。\n（三）治疗"),
        ("桔梗 川芎  白芍 CT 检查 5 mg", "桔梗 川芎 白芍 CT 检查 5 mg"),
        ("颅 内 静 脉 血 栓 形 成 （ Cerebral Venous ）", "颅内静脉血栓形成（Cerebral Venous）"),
        ("姜 枣 二味", "姜 枣 二味"),
        ("甲\n \n\n\n乙", "甲\n\n乙"),
        ("Hello, world! It is 5 mg.", "Hello, world! It is 5 mg."),
        # repeated marks
        ("头痛。。。。怎么办？？？！！", "头痛。怎么办？！"),
        ("发热，，咳嗽，。腹泻。，然后、；好", "发热，咳嗽。腹泻。然后；好"),
        ("能缓解吗?,如何治疗。。谢谢!!!", "能缓解吗?如何治疗。谢谢!"),
        ("口干......还有…………然后...吧——————完", "口干……还有……然后……吧——完"),
        ("wait... 1..2 and so on.", "wait... 1..2 and so on."),
        ("发生状态：；描述词：", "发生状态：；描述词："),
        # residue
        ("。一般小脑萎缩不会，", "一般小脑萎缩不会"),
        ("：、肺癌晚期", "肺癌晚期"),
        ("问题分析：多饮水", "问题分析：多饮水"),
        ("癫痫病吃什么好,无", "癫痫病吃什么好"),
        ("手术史，无", "手术史，无"),
        ("尿频 尿急 [详细]", "尿频 尿急"),
        ("需要复查附件：点击查看大图", "需要复查"),
        ("先化验血常规。以上是对“孩子咳嗽怎么办？”这个问题的建议，希望对您有帮助，祝您健康！", "先化验血常规。"),
        ("少吃盐\n以上是对血压高问题的建议。", "少吃盐"),
        ("以上是对照组的数据，问题的建议见后。", "以上是对照组的数据，问题的建议见后。"),
        ("注意休息。查看更多>>", "注意休息。"),
        ("注意休息。\n展开全文\n少盐", "注意休息。\n\n少盐"),
        ("请点击查看报告单后再来", "请点击查看报告单后再来"),
        ("预防感染。医学教`育网搜集整理注意卫生", "预防感染。注意卫生"),
        ("A 头痛\\nB 发热\\r\\n\\t1\\u3000甲", "A 头痛\nB 发热\n1 甲"),
        ("以（）为主，f() 与 [] 不动", "以（）为主，f() 与 [] 不动"),
        ("$\\nu \\times 3$", "$\\nu \\times 3$"),
        # GB 2312 read as Latin-1; names with accents are not that
        ("绿豆汤".encode("gb2312").decode("latin-1"), "绿豆汤"),
        ("Sjögren, Ménière, Löfgren, Guérin", "Sjögren, Ménière, Löfgren, Guérin"),
        # nothing to do
        ("", ""),
        ("高血压能吃党参吗？", "高血压能吃党参吗？"),
    ],
)
def test_clean(raw: str, seen: str) -> None:
    assert cleaned(raw) == seen
    assert cleaned(seen) == seen


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        ("高血壓，腎臟腫瘤；什麼藥？", "高血压，肾脏肿瘤；什么药？"),
        ("皮膚乾燥，乾坤；噁心", "皮肤干燥，乾坤；恶心"),
        ("磺胺甲噁唑、蒜薹、目劄、癥瘕积聚", "磺胺甲噁唑、蒜薹、目劄、癥瘕积聚"),
        ("婦人癥瘕，癥結所在，磺胺甲噁唑劑", "妇人癥瘕，症结所在，磺胺甲噁唑剂"),
        ("筋惕肉瞤，頭痛", "筋惕肉瞤，头痛"),
        ("薬を飲みました。頭痛", "薬を飲みました。頭痛"),
    ],
)
def test_script(raw: str, seen: str) -> None:
    assert cleaned(raw) == seen
    assert cleaned(raw, script="as-is") == raw


CODE = "用法：\n```python\ndef f(x):\n\tif x:\n\t    return [] , '<b>'\n```"


@pytest.mark.parametrize("code", [CODE, "if (a) {\n    b();;\n}", "def f():\n    return 1", "写`a  <br> b`即可"])
def test_code_keeps_its_layout(code: str) -> None:
    assert cleaned(code.replace("\n", "\r\n") + "\u200b") == code


def test_markup_written_with_wide_signs_is_found_too() -> None:
    assert cleaned("＆ｌｔ；头痛") == "&lt；头痛"
    assert cleaned("甲＜ｂｒ＞乙") == "甲\n乙"


def test_deeply_nested_entities_end() -> None:
    assert cleaned("&" + "amp;" * 50_000 + "lt;3") == "<3"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("高血壓，能吃党参吗？", "高血压 能吃党参吗"),
        ("ＨＢＶ－ＤＮＡ", "hbv dna"),
        ("Ménière 病", "meniere病"),
        ("①多饮水", "1、多饮水"),
        ("看著", "看着"),
        ("臍帶\n", "脐带"),
        ("⾼⾎压", "高血压"),
        ("磺胺甲噁唑", "磺胺甲恶唑"),
    ],
)
def test_fold_meets(one: str, other: str) -> None:
    assert folded(one) == folded(other) != ""


def test_fold_keeps_letters_digits_and_han_only() -> None:
    assert folded("（3.5）mg — α-L，𠮷 😀 が\n") == "35mgαl𠮷か"
    assert folded("？！…") == ""
    assert folded("高血压") != folded("低血压")


def test_fold_is_closed_for_every_character() -> None:
    chars = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    once = fold(pa.array(chars))
    assert fold(once).equals(once)


def test_the_character_tables_are_closed() -> None:
    chars = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    table = characters.tables().clean
    once = characters.rewritten(pa.array(chars), table)
    assert characters.rewritten(once, table).equals(once)


def test_han_share() -> None:
    shares = han_share(pa.array(["血糖 6.1", "", " \n", "头痛", "abc", "血 糖\n"])).to_pylist()
    assert shares == [0.4, 0.0, 0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("乙肝两对半检查结果正常吗", "zh"),
        ("HBV-DNA PCR 阳性怎么办", "zh"),
        ("做CT好还是MRI好", "zh"),
        ("高血压の日常护理与饮食注意事项以及用药的原则和定期复查的安排", "zh"),
        ("What is the treatment of hepatitis B?", "en"),
        ("Ménière's disease", "en"),
        ("薬を飲んで頭痛が治りました", "other"),
        ("간염 치료", "other"),
        ("Гипертония", "other"),
        ("120/80", "other"),
        ("", "other"),
    ],
)
def test_language(text: str, expected: str) -> None:
    assert language(pa.array([text])).to_pylist() == [expected]


@pytest.mark.parametrize("step", [clean, fold, han_share, language])
def test_columns_of_every_make_are_taken(step) -> None:  # type: ignore[no-untyped-def]
    texts = ["头痛。。", "", "ＡＢ", "血壓", "x"] * 3
    whole = step(pa.array(texts))
    assert len(whole) == len(texts)
    assert step(pa.chunked_array([texts[:4], texts[4:5], texts[5:]])).equals(whole)
    assert step(pa.array(["前", *texts, "后"]).slice(1, len(texts))).equals(whole)
    assert step(pa.array(texts, pa.large_string())).equals(whole)
    for empty in (pa.array([], pa.string()), pa.chunked_array([], pa.string())):
        assert len(step(empty)) == 0


def test_clean_and_fold_of_real_texts(raw: Path) -> None:
    rows = json.loads((raw / "huatuo26m" / "huatuo26M_test.json").read_text("utf-8"))
    texts = pa.array([text for row in rows for text in (*row["instruction"], *row["output"])])
    once = clean(texts)
    assert clean(once).equals(once)
    keys = fold(once)
    assert fold(keys).equals(keys)
    assert np.mean(han_share(once).to_numpy()) > 0.5
