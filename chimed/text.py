"""Text steps over Arrow string columns: what a reader sees, the key that duplicates share, scripts and language.

Every function takes a column of strings without nulls and gives an array of the same length. A text is one row and
nothing else: cutting a column into batches changes nothing. `mask` lives in `chimed.privacy`.
"""

import html
import re
from collections.abc import Callable
from functools import cache, partial
from html.entities import html5
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import opencc
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from chimed import characters as ch
from chimed.privacy import mask
from chimed.spacing import arrange

__all__ = ["alike", "census", "clean", "fold", "han_share", "language", "mask"]

Script = Literal["simplified", "as-is"]
Rules = tuple[tuple[str, str], ...]


def clean(texts: ch.Strings, *, script: Script = "simplified") -> pa.StringArray:
    """What a reader sees of each text, in one spelling.

    Entities are decoded and HTML tags removed; wide letters, digits and compatibility characters become plain ones
    (NFKC), except where that changes what is read (10², ①, ½, ℃, Ⅱ and Chinese punctuation stay); invisible and broken
    characters go; blanks, line ends and repeated marks follow the rules of `chimed.spacing`; what web pages leave
    behind ([详细], 点击查看) goes; GB 2312 read as Latin-1 is read again. A text that holds code keeps its layout and
    tags. With script="simplified", traditional characters are converted by OpenCC, phrase by phrase.

    Cleaning a cleaned text changes nothing.

    >>> clean(pa.array(["你好！！！　　血壓１２０／８０，<br>PaO&lt;sub&gt;2&lt;/sub&gt;<8kPa，"]))[0].as_py()
    '你好！血压120/80，\\nPaO2<8kPa'
    """
    texts = ch.whole(texts)
    rounds: list[tuple[pa.StringArray, npt.NDArray[np.int64]]] = []
    while True:
        needs = _needs(texts, script)
        hit = np.flatnonzero(needs)
        before = texts.take(pa.array(hit))
        after = _step(before, needs[hit])
        changed = np.flatnonzero(pc.not_equal(before, after).to_numpy(zero_copy_only=False))
        if not len(changed):
            break
        rounds.append((texts, hit[changed]))
        texts = after.take(pa.array(changed))
    for before, rows in reversed(rounds):
        texts = ch.scatter(before, rows, texts)
    return texts


def fold(texts: ch.Strings) -> pa.StringArray:
    """The key under which duplicates meet: case, width, accents, script and punctuation do not count.

    Only letters, digits and Han characters remain; a folded text folds to itself.

    >>> keys = fold(pa.array(["高血壓，能吃党参吗？", "高血压 能吃党参吗"]))
    >>> keys[0] == keys[1]
    True
    """
    return ch.rewritten(ch.whole(texts), ch.tables().fold)


def alike(one: ch.Strings, other: ch.Strings) -> npt.NDArray[np.bool_]:
    """Which pairs of texts fold to the same key, and not to an empty one.

    >>> alike(pa.array(["高血压？", "高血压", "？"]), pa.array(["高血壓。", "低血压", "！"])).tolist()
    [True, False, False]
    """
    same = np.zeros(len(one), np.bool_)
    _alike(ch.buffers(ch.whole(one)), ch.buffers(ch.whole(other)), ch.tables().fold, same)
    return same


def census(texts: ch.Strings) -> npt.NDArray[np.int32]:
    """How many characters of each kind, as `chimed.characters` numbers them, every text has: shape (n, 16)."""
    counts = np.zeros((len(texts), 16), np.int32)
    ch.census(*ch.buffers(ch.whole(texts)), ch.tables().kind, counts)
    return counts


def han_share(texts: ch.Strings) -> pa.DoubleArray:
    """The share of Han characters among those that are not blank; 0 for a text without any.

    >>> han_share(pa.array(["血糖 6.1", ""])).to_pylist()
    [0.4, 0.0]
    """
    counts = census(texts)
    shown = counts.sum(axis=1) - counts[:, ch.BLANK] - counts[:, ch.LINE]
    return pa.array(counts[:, ch.HAN] / np.maximum(shown, 1))


def language(texts: ch.Strings) -> pa.StringArray:
    """ "zh", "en" or "other", by the scripts of the letters.

    Chinese from three Han characters in ten letters on, unless kana make it Japanese (one letter in twenty: a product
    name does not); English where half of the letters are Latin. The script decides because a detector trained on
    sentences fails on the short questions this corpus is full of.

    >>> language(pa.array(["HBV-DNA 检查结果正常吗", "What is HBV?", "薬を飲みました", "12.5"])).to_pylist()
    ['zh', 'en', 'other', 'other']
    """
    counts = census(texts)
    han, latin, kana = counts[:, ch.HAN], counts[:, ch.LATIN], counts[:, ch.KANA]
    letters = np.maximum(han + latin + kana + counts[:, ch.LETTER], 1)
    chinese = (han >= 0.3 * letters) & (kana < 0.05 * letters)
    return pa.array(np.select([chinese, latin >= 0.5 * letters], ["zh", "en"], "other"), pa.string())


@njit(cache=True, nogil=True)
def _next(data: Any, i: Any, end: Any, table: Any) -> Any:
    """The bytes that `table` has for the first character from byte i on that has any, and the byte after it; or 0."""
    packed = np.uint64(0)
    while i < end and not packed:
        code, size = ch.decode(data, i)
        packed = table[code] if code < ch.LIMIT else np.uint64(0)
        i += size
    return packed >> np.uint64(8), i


@njit(cache=True, nogil=True)
def _alike(ones: Any, others: Any, table: Any, same: Any) -> None:
    """Fills in which pairs of texts `table` makes one, and not an empty one: read only until they differ."""
    (offsets, data), (other_offsets, other_data) = ones, others
    low, eight = np.uint64(0xFF), np.uint64(8)
    for row in range(len(same)):
        end, stop = np.int64(offsets[row + 1]), np.int64(other_offsets[row + 1])
        one, i = _next(data, np.int64(offsets[row]), end, table)
        other, j = _next(other_data, np.int64(other_offsets[row]), stop, table)
        some = one != 0
        while one and one & low == other & low:
            one, other = one >> eight, other >> eight
            if not one:
                one, i = _next(data, i, end, table)
            if not other:
                other, j = _next(other_data, j, stop, table)
        same[row] = some and one == other


def _arrange(texts: pa.StringArray) -> pa.StringArray:
    offsets, data = ch.buffers(texts)
    out = np.empty(2 * int(offsets[-1] - offsets[0]) + 8, np.uint8)
    ends = np.zeros(len(texts) + 1, np.int32)
    arrange(offsets, data, ch.tables().kind, out, ends)
    return ch.from_buffers(ends, out)


_CODE = (
    r"(?m)^\s*```|`[^`\n]+`|#include *<|[;{]\s*?\n[ \t]+\S|[)\]]:\s*?\n[ \t]+\S|^\s*(?:else|try|finally):\s*?\n[ \t]+\S"
)


def _needs(texts: pa.StringArray, script: Script) -> npt.NDArray[np.uint16]:
    """The steps each text needs; CODE is settled here, from suspicion to fact."""
    tables = ch.tables()
    needs = np.zeros(len(texts), np.uint16)
    ch.scan(*ch.buffers(texts), tables.kind, tables.need, needs)
    if script == "as-is":
        needs &= ~np.uint16(ch.SCRIPT)
    suspects = np.flatnonzero(needs & ch.CODE)
    needs &= ~np.uint16(ch.CODE)
    if len(suspects):
        code = pc.match_substring_regex(texts.take(pa.array(suspects)), _CODE).to_numpy(zero_copy_only=False)
        needs[suspects[code]] &= ch.REWRITE | ch.COMPOSE | ch.SCRIPT
        needs[suspects[code]] |= np.where(needs[suspects[code]], ch.CODE, 0).astype(np.uint16)
    return needs


def _step(texts: pa.StringArray, needs: npt.NDArray[np.uint16]) -> pa.StringArray:
    """Each text after the steps it needs, once through."""
    rare = np.flatnonzero(needs & ~np.uint16(ch.ARRANGE))
    if len(rare) < len(texts):  # most are arranged and nothing else: the other steps do not copy them
        return ch.scatter(_arrange(texts), rare, _step(texts.take(pa.array(rare)), needs[rare]))
    for need, repair in _REPAIRS:
        rows = np.flatnonzero(needs & need)
        if len(rows):
            part = texts if len(rows) == len(texts) else texts.take(pa.array(rows))
            fixed = (
                ch.rewritten(part, ch.tables().clean, (needs[rows] & ch.CODE) > 0) if repair is None else repair(part)
            )
            texts = ch.scatter(texts, rows, fixed)
    return texts


def _sub(texts: pa.StringArray, rules: Rules) -> pa.StringArray:
    for pattern, replacement in rules:
        texts = pc.replace_substring_regex(texts, pattern, replacement)
    return texts


def _ungarble(texts: pa.StringArray) -> pa.StringArray:
    """GB 2312 bytes that were read as Latin-1, read again; a text that does not decode to Han stays."""

    def again(text: str) -> str:
        try:
            plain = text.encode("latin-1").decode("gb2312")
        except UnicodeError:
            return text
        high = [c for c in plain if c > "\x7f"]
        han = sum("\u4e00" <= c <= "\u9fff" for c in high)
        return plain if 2 * han > len(high) else text

    return _each(again, texts)


_ENTITY = re.compile(r"&(?:amp;)*(#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});|&65533;")
_RAISED = re.compile(r"(?i)<sup> ?([-+−]?\d{0,4}[-+−]?) ?</sup>")
_UP = str.maketrans("0123456789+-−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻")
_TAGS: Rules = (
    (r"(?is)<!--.*?-->|<(?:script|style)\b[^<>]*>.*?</(?:script|style)\s*>", ""),
    (r"(?i)\[(/?su[bp])\]", r"<\1>"),
    (r"(?i)<(?:br|hr)\s*/?>", "\n"),
    (
        r"(?i)</?(?:p|div|li|ul|ol|tr|table|tbody|thead|h[1-6]|section|article|blockquote|d[ldt]|pre)(?:\s[^<>]*)?/?>",
        "\n",
    ),
    (r"(?i)</?t[dh](?:\s[^<>]*)?>", " "),
    (
        r"(?i)</?(?:span|font|strong|em|su[bp]|img|center|label|small|big|strike|del|ins|html|head|body|title|meta|link|"
        r"form|input|button|iframe|figure|video|audio|embed|object|code|nobr|wbr|o:p)(?:\s[^<>]*)?/?>|<a\s[^<>]*>",
        "",
    ),
)
_LETTER_TAG = r"(?i)</[abiqsu]>"  # a<b>c is mathematics, <b>c</b> is not


def _markup(texts: pa.StringArray) -> pa.StringArray:
    """Entities decoded, tags removed or turned into line ends, superscript numbers raised."""

    def decode(found: re.Match[str]) -> str:
        name = found[1] or "#65533"
        return html.unescape(f"&{name};") if name[0] == "#" else html5.get(f"{name};", found[0])

    def entities(text: str) -> str:
        return _RAISED.sub(lambda m: m[1].translate(_UP), _ENTITY.sub(decode, text))

    texts = _where(texts, r"(?i)&#?\w{2,31};|<sup>", partial(_each, entities))
    texts = _where(texts, r"(?i)</?[a-z!]|\[/?su[bp]\]", lambda part: _sub(part, _TAGS))
    return _where(texts, _LETTER_TAG, lambda part: _sub(part, ((r"(?i)</?[abiqsu](?:\s[^<>]*)?>", ""),)))


def _each(repair: Callable[[str], str], texts: pa.StringArray) -> pa.StringArray:
    return pa.array(map(repair, texts.to_pylist()), pa.string())


def _where(texts: pa.StringArray, pattern: str, repair: Callable[[pa.StringArray], pa.StringArray]) -> pa.StringArray:
    """The texts with those that match repaired."""
    rows = np.flatnonzero(pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False))
    return ch.scatter(texts, rows, repair(texts.take(pa.array(rows)))) if len(rows) else texts


# A backslash and a letter that some export wrote for a line end or blank; \nu and \times are LaTeX.
_ESCAPES: Rules = (
    (r"\\r\\n", "\n"),
    (r"\\n([^a-z]|$)", "\n\\1"),
    (r"\\r([^a-zA-Z]|$)", "\n\\1"),
    (r"\\t([^a-zA-Z]|$)", r" \1"),
    (r"\\u(?:3000|00[aA]0)", " "),
    (r"\\u00[01][0-9a-fA-F]|\\u200[b-fB-F]|\\u[fF][eE][fF]{2}", ""),
)
_GAP = r"[^\u3005\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\n]{0,2}"  # nothing, or what is not Han
# What web pages leave behind: a sign that a text may hold it (cheap to look for), what it is, what stays.
_RESIDUE = tuple(
    (sign, partial(re.compile(pattern, re.ASCII).sub, left))
    for sign, pattern, left in (
        (r"详细\]", r"^>>.*\[详细\]\Z|\[详细\]", ""),
        ("搜集整理", rf"(?:资料来源\s*[:：]\s*)?医{_GAP}学{_GAP}教{_GAP}育{_GAP}网{_GAP}搜集整理", ""),
        ("点击", r"(?m)(?:附件[：:]\s*)?点击(?:查看|打开|展开)(?:大图|图片|更多|详情|全文|原文|全部)?\s*[>»]*$", ""),
        ("查看|展开|详情", r"(?m)(^|[。！？…\s])(?:查看|展开|更多)(?:更多|全文|详情|全部)\s*[>»]*$", r"\1"),
        (
            "以上是对",  # the farewell of a platform
            r"(?m)以上是对[^\n。]{0,120}问题的?建议[,，。]?([希期]望对您有[帮协]助)?[,，。!！]*(祝您(身体)?(早日)?(恢复)?(健康|降))?[!！。]?$",
            "",
        ),
        (r"[,，]\s*无$", r"([^史敏病症状]|^)[,，]\s*无\Z", r"\1"),  # an empty field that was glued to the one before
    )
)


def _residue(texts: pa.StringArray) -> pa.StringArray:
    for sign, repair in _RESIDUE:
        texts = _where(texts, sign, partial(_each, repair))
    return texts


@cache
def _converter() -> Callable[[str], str]:
    convert: Callable[[str], str] = opencc.OpenCC("t2s").convert
    return convert


def _simplify(texts: pa.StringArray) -> pa.StringArray:
    """Traditional script to simplified, with OpenCC's phrases (乾燥 but 乾坤); the characters in `KEPT` stay."""
    convert = _converter()
    hidden = [(char, chr(0xFDD0 + place)) for place, char in enumerate(sorted(ch.KEPT))]  # as code points no text has

    def simple(text: str) -> str:
        text = text.replace("噁心", "恶心").replace("癥結", "症结")
        for char, stand_in in hidden:
            text = text.replace(char, stand_in)
        text = convert(text)
        for char, stand_in in hidden:
            text = text.replace(stand_in, char)
        return text

    plain = _each(simple, texts)
    return ch.rewritten(plain, ch.tables().clean, np.ones(len(plain), bool))


_REPAIRS: tuple[tuple[int, Callable[[pa.StringArray], pa.StringArray] | None], ...] = (
    (ch.GARBLED, _ungarble),
    (ch.MARKUP, _markup),
    (ch.ESCAPE, partial(_sub, rules=_ESCAPES)),
    (ch.RESIDUE, _residue),
    (ch.COMPOSE, partial(pc.utf8_normalize, form="NFC")),
    (ch.REWRITE, None),
    (ch.ARRANGE, _arrange),
    (ch.SCRIPT, _simplify),
)
