"""Personal data in text: found, checked and replaced by placeholders.

A compiled scan over the Arrow buffer picks the few rows that could hold any (a long run of digits, an @, a web address,
QQ, 微信); only those meet the patterns, which look at their neighbours and at check digits. Public emergency numbers
(120, 110, 12345, 12320), doses, codes, dates, ranges and registration numbers are not personal data, nor are addresses
of authorities, schools and organisations, and of the machine itself (localhost).
"""

import re
from collections.abc import Callable, Mapping
from datetime import date
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from chimed.characters import Strings, Table, buffers, decode, own, rewritten, scatter, whole

PLACEHOLDERS: Mapping[str, str] = MappingProxyType(
    {
        "url": "[网址]",
        "email": "[邮箱]",
        "id": "[身份证号]",
        "wechat": "[微信号]",
        "qq": "[QQ号]",
        "landline": "[电话号码]",
        "mobile": "[手机号]",
    }
)


def mask(texts: Strings) -> tuple[pa.StringArray, dict[str, pa.Int32Array]]:
    """The texts with personal data replaced, and by kind how many were replaced in each row.

    Kinds are the keys of `PLACEHOLDERS`, in the order they are looked for. Masking a masked text changes nothing.

    >>> masked, counts = mask(pa.array(["请加微信 yishi_2020 或打138-1234-5678", "青霉素1000000U，J18.900"]))
    >>> masked.to_pylist()
    ['请加微信 [微信号] 或打[手机号]', '青霉素1000000U，J18.900']
    >>> counts["mobile"].to_pylist()
    [1, 0]
    """
    texts = whole(texts)
    counts = {kind: np.zeros(len(texts), np.int32) for kind in PLACEHOLDERS}
    signs = np.zeros(len(texts), np.uint8)
    _scan(*buffers(texts), _ROLES, signs)
    rows = np.flatnonzero(signs)
    while len(rows):  # again where something was found, for a placeholder parts neighbours
        part = texts.take(pa.array(rows))
        pairs = zip(part.to_pylist(), rewritten(part, _narrow()).to_pylist(), signs[rows].tolist(), strict=True)
        results = [_mask(*pair) for pair in pairs]
        hit = np.array([len(found) > 0 for _, found in results])
        rows = rows[hit]
        masked = [(plain, found) for plain, found in results if found]
        for row, (_, found) in zip(rows, masked, strict=True):
            for kind in found:
                counts[kind][row] += 1
        texts = scatter(texts, rows, pa.array([plain for plain, _ in masked], pa.string()))
    return texts, {kind: pa.array(count) for kind, count in counts.items()}


def _mask(text: str, plain: str, signs: int) -> tuple[str, list[str]]:
    """One text masked, and the kind of each thing found; `plain` is the text in narrow characters, one for one."""
    found: list[str] = []
    for sign, kind, pattern, personal in _PATTERNS:
        spans = [m.span("it") for m in pattern.finditer(plain) if personal(m)] if signs & sign else []
        if spans:
            found += [kind] * len(spans)
            text, plain = (_put(PLACEHOLDERS[kind], one, spans) for one in (text, plain))
    return text, found


def _put(placeholder: str, text: str, spans: list[tuple[int, int]]) -> str:
    starts, ends = zip(*spans, strict=True)
    return placeholder.join(text[a:b] for a, b in zip((0, *ends), (*starts, len(text)), strict=True))


# What a row shows that could be personal data: bits of `_scan`, a superset of what the patterns find.
_WEB, _AT, _NUMBER, _CALL, _WECHAT, _QQ = (1 << bit for bit in range(6))
_PLAIN, _DIGIT, _SEPARATOR, _SIGN = range(4)


def _roles() -> npt.NDArray[np.uint8]:
    """By code point: nothing, a digit, what may part digits, or the last character of a sign."""
    roles = np.zeros(0x10000, np.uint8)
    for role, chars in (
        (_DIGIT, "0123456789０１２３４５６７８９"),
        (_SEPARATOR, " -()（）－—–−‐　"),
        (_SIGN, "qQxXcCvVwWlL@＠/.信微薇扣话线机真"),
    ):
        roles[[ord(char) for char in chars]] = role
    return roles


_ROLES = _roles()


@njit(cache=True, nogil=True)
def _scan(offsets: Any, data: Any, roles: Any, signs: Any) -> None:
    """Fills in the bits above for each row. Digits count as one run across up to two blanks, hyphens or brackets."""
    for row in range(len(signs)):
        i, end = offsets[row], offsets[row + 1]
        digits: Any = np.int64(0)
        longest: Any = np.int64(0)
        gap: Any = np.int64(3)
        last: Any = np.int64(0)
        before: Any = np.int64(0)
        found: Any = np.int64(0)
        while i < end:
            code, size = decode(data, i)
            i += size
            role = roles[code] if code < 0x10000 else _PLAIN
            if role == _PLAIN:
                gap = 3
            elif role == _DIGIT:
                digits = digits + 1 if gap <= 2 else 1
                gap = 0
                longest = max(longest, digits)
            elif role == _SEPARATOR:
                gap += 1
            else:
                gap = 3
                after = np.int64(data[i]) if i < end else 0
                found |= _sign(code, last, before, after)
            before = last
            last = code
        if longest < 5:
            found &= ~_QQ
        if longest < 7:
            found &= ~_CALL
        signs[row] = found | (_NUMBER if longest >= 10 else 0)


@njit(cache=True, nogil=True)
def _sign(code: Any, last: Any, before: Any, after: Any) -> Any:
    """The bit that a character calls for, by its two neighbours before and the byte behind it."""
    low, last_low = code | 0x20, last | 0x20
    found = 0
    if code in (0x40, 0xFF20):
        found = _AT
    elif code == 0x2E:  # a.b
        found = _WEB if last > 0x2F and 0x61 <= after | 0x20 <= 0x7A else 0
    elif code == 0x2F:  # ://
        found = _WEB if last == 0x2F and before == 0x3A else 0
    elif code in (0x71, 0x51, 0x6263):  # q Q 扣
        found = _QQ
    elif code in (0x8BDD, 0x7EBF, 0x673A, 0x771F):  # 电话 固话 热线 座机 传真
        found = _CALL if last in (0x7535, 0x56FA, 0x70ED, 0x5EA7, 0x4F20) else 0
    elif code in (0x4FE1, 0x5FAE, 0x8587):  # 微信 薇信 威信 徽信 加微 加薇
        found = _WECHAT if last in (0x5FAE, 0x8587, 0x5A01, 0x5FBD, 0x52A0) else 0
    elif low == 0x6C:  # tel
        found = _CALL if last_low == 0x65 and before | 0x20 == 0x74 else 0
    elif low == 0x63:  # wec(hat)
        found = _WECHAT if last_low == 0x65 and before | 0x20 == 0x77 else 0
    elif last == 0x52A0 or (low == 0x78 and last_low in (0x76, 0x77)):  # 加v 加w vx wx
        found = _WECHAT
    return found


@cache
def _narrow() -> Table:
    """Wide digits, letters and signs as plain ones, one for one, so that what is found in the copy is there."""
    identity = own()
    table = identity.copy()
    table[0xFF01:0xFF5F] = identity[0x21:0x7F]
    stops = [ord(c) for c in "！，；？"]  # these end a web address, unlike their narrow forms
    table[stops] = identity[stops]
    table[[ord(c) for c in "—–−‐"]] = identity[ord("-")]
    table[0x3000] = identity[ord(" ")]
    return table


_S = r"[-\s]"
# Behind the first character of a number: no letter, digit or decimal point before it.
_EDGE = r"(?:(?<![0-9A-Za-z].)|(?<=[Tt]el.)|(?<=TEL.)|(?<=hone.))(?<![0-9A-Za-z][-._].)"
_END = r"(?![0-9]|\.[0-9]|-[0-9]{1,6}(?![0-9]))"
_SUFFIX = r"(?:3\d|4[014-9]|5[0-35-9]|6[2567]|7[0-8]|8\d|9[0-35-9])"  # of the 1 that begins a mobile number
_MOBILE = rf"{_SUFFIX}(?:{_S}?\d{{4}}{_S}?\d{{4}}|\d{_S}\d{{4}}{_S}\d{{3}}|\d{_S}\d{{3}}{_S}\d{{4}})"
_AREA = r"(?:10|2[0-57-9]|[3-9]\d\d)"  # of the 0 that begins an area code
_SUBSCRIBER = rf"{_S}?(?:\d{{7,8}}|\d{{3,4}}{_S}\d{{4}})(?:(?:转|-|ext\.?)\s?\d{{1,5}}(?!\d))?"
_URL = r"[!#-&*-;=?-Z^_a-z~%]"
_URL_END = r"[#-&*+/-9=@-Z^_a-z~%-]"
_LABEL = r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)"

# What stands before a number that names a thing, not a person.
_CODED = re.compile(
    r"(?:[准注]字|文号|[证册批编码单水院诊历案本记]号|条形?码|编码|10\.\d{4,9}/|"
    r"\b(?:PMC?ID|PMC|DOI|ISBN|ISSN|NCT|ISRCTN|ChiCTR|GB|ISO|ATC|CAS|SN|NO|chr\w{0,2}|rs))[^\d\n\]]{0,4}[A-Za-z]{0,3}$",
    re.IGNORECASE,
)
_UNIT = re.compile(
    r"\s*(?:copies|拷贝|cfu|个|元|万|亿|次|/?[mμukd]?(?:l|g|m|mol)(?![a-z])|[ik]?u(?![a-z])|/m|/l|bp|%|℃|×|\*10)",
    re.IGNORECASE,
)
_CUE = re.compile(
    r"(?:电话|手机|座机|固话|传真|热线|联系方式|致电|拨打|咨询|tel|phone|☎)[^\d\[\]\n]{0,6}$", re.IGNORECASE
)


_PUBLIC = re.compile(
    r"(?:[a-z]+://)?(?:(?:[a-z0-9-]+\.)*(?:gov|edu|mil|int|org)(?:\.[a-z]{2})?|localhost|127\.0\.0\.1|0\.0\.0\.0"
    r"|192\.168\.\d+\.\d+)(?:[:/?#]|$)|git@github\.com$",
    re.IGNORECASE,
)


def _before(match: re.Match[str]) -> str:
    start = match.start("it")
    return match.string[max(0, start - 24) : start]


def _is_personal(match: re.Match[str]) -> bool:
    return True


def _is_private(match: re.Match[str]) -> bool:
    """Not the address of an authority, a school or an organisation, nor one inside a house."""
    return not _PUBLIC.match(match["it"])


def _is_number(match: re.Match[str]) -> bool:
    """Neither a measured quantity nor the number of a thing."""
    return not _UNIT.match(match.string, match.end("it")) and not _CODED.search(_before(match))


def _is_mobile(match: re.Match[str]) -> bool:
    return _is_number(match) and not match["it"].endswith("00000")


def _is_landline(match: re.Match[str]) -> bool:
    """Digits in one run need a cue, or begin as subscribers' numbers do; so do three round numbers (400-800-1200)."""
    if not _is_number(match):
        return False
    cue = _CUE.search(_before(match)) is not None
    groups = re.findall(r"\d+", match["it"])
    if groups[0][0] != "0":
        return cue or not all(group.endswith("00") for group in groups)
    if len(groups) > 1:
        return True
    return cue or groups[0][3 if groups[0][1] in "12" else 4] in "2345678"


def _is_local(match: re.Match[str]) -> bool:
    digits = re.sub(r"\D", "", match["it"])
    return _is_number(match) and not (len(digits) == 8 and _is_date(digits))


def _is_identity(match: re.Match[str]) -> bool:
    return is_id_number(re.sub(r"[^\dX]", "", match["it"].upper()))


def _is_wechat(match: re.Match[str]) -> bool:
    """A name of letters alone needs to be announced: 微信号abc, 加微信abc, 微信：abc."""
    name, cue = match["it"], match[0][: match.start("it") - match.start()]
    if not name.isalpha():
        return True
    return re.search(r"[:号是为]|id|加", cue, re.IGNORECASE) is not None and name.lower() not in ("wechat", "weixin")


def _is_date(digits: str) -> bool:
    try:
        return 1900 <= date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])).year < 2100
    except ValueError:
        return False


_PROVINCES = (
    *range(11, 16),
    *range(21, 24),
    *range(31, 38),
    *range(41, 47),
    *range(50, 55),
    *range(61, 66),
    71,
    81,
    82,
)


def is_id_number(digits: str) -> bool:
    """Whether this is a Chinese resident identity number: GB 11643, its check digit by ISO 7064 MOD 11-2.

    The old form of 15 digits has no check digit: its province and date of birth must be valid.

    >>> is_id_number("11010519491231002X"), is_id_number("110105194912310021"), is_id_number("110105491231002")
    (True, False, True)
    """
    if int(digits[:2]) not in _PROVINCES:
        return False
    if len(digits) == 15:
        return _is_date("19" + digits[6:12])
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(digits[:17]))
    return _is_date(digits[6:14]) and "10X98765432"[total % 11] == digits[17]


_PATTERNS: tuple[tuple[int, str, re.Pattern[str], Callable[[re.Match[str]], bool]], ...] = tuple(
    (sign, kind, re.compile(pattern, flags | re.ASCII), personal)
    for sign, kind, pattern, flags, personal in (
        (_WEB, "url", rf"(?P<it>(?:https?|Https?|HTTPS?|ftp)://{_URL}*{_URL_END})", 0, _is_private),
        (_AT, "email", rf"(?P<it>[a-z0-9][a-z0-9._%+-]{{0,63}}@{_LABEL}+[a-z]{{2,24}})", re.IGNORECASE, _is_private),
        (
            _WEB,
            "url",
            rf"(?P<it>[wW](?<![A-Za-z0-9].)[wW]{{2}}\.(?i:{_LABEL}+[a-z]{{2,}})(?:[/?:]{_URL}*{_URL_END}|/)?)",
            0,
            _is_private,
        ),
        (
            _WEB,
            "url",  # a bare domain: lower case, for "blood.Com" is a missing blank
            rf"(?P<it>[a-z0-9](?<![A-Za-z0-9@./_-].)(?:[a-z0-9-]{{0,61}}[a-z0-9])?\.{_LABEL}*(?:com|cn|net|org|gov|edu|info)(?:/{_URL}*{_URL_END}|/)?)(?![A-Za-z0-9_@-]|\.[a-z])",
            0,
            lambda match: re.search(r"[a-z]", match["it"].rpartition(".")[0]) is not None and _is_private(match),
        ),
        (_NUMBER, "id", rf"(?P<it>[1-8]{_EDGE}\d{{5}}{_S}?\d{{8}}{_S}?\d{{3}}[\dXx])(?![0-9A-Za-z])", 0, _is_identity),
        (
            _NUMBER,
            "id",
            rf"(?P<it>[1-8]{_EDGE}\d{{14}}){_END}(?![A-Za-z])",
            0,
            lambda match: _is_number(match) and _is_identity(match),
        ),
        (_WECHAT, "wechat", r"(?<![a-z0-9_])(?P<it>wxid_[a-z0-9]{6,})", re.IGNORECASE, _is_personal),
        (
            _WECHAT,
            "wechat",
            r"(?:加?[微薇威徽]信|(?<![a-z])(?:we\s?chat|[vw]x)(?![a-z]{1,3}(?![a-z0-9_-]))|加(?:[vw](?=[^a-z])|[微薇]))"
            r"(?:同?号码?|账号|id)?[-:是为\s]*"
            r"(?P<it>[a-z][a-z0-9_-]{5,19}|1[3-9]\d[- ]?\d{4}[- ]?\d{4}|[1-9]\d{4,11})(?![a-z0-9_])",
            re.IGNORECASE,
            _is_wechat,
        ),
        (
            _QQ,
            "qq",
            r"(?:[qQ](?:[qQ]|(?<![A-Za-z].)(?=\s*:))|加我?[qQ扣]|扣扣)\s*(?:群号|群|号码?)?\s*(?:是|为|:)?\s*"
            r"(?P<it>[1-9]\d{4,10})(?!\d|[-.]\d)",
            0,
            _is_number,
        ),
        (
            _NUMBER,
            "mobile",
            rf"(?P<it>[1+08]{_EDGE}(?:(?<=1){_MOBILE}|(?:(?<=\+)86|(?<=0)086|(?<=8)6){_S}?1{_MOBILE})){_END}",
            0,
            _is_mobile,
        ),
        (
            _NUMBER,
            "landline",
            rf"(?P<it>[(0+48]{_EDGE}(?:(?<=\()0{_AREA}\){_SUBSCRIBER}|(?<=0){_AREA}{_SUBSCRIBER}|(?<=\+)86{_S}?{_AREA}{_SUBSCRIBER}|"
            rf"(?<=[48])00{_S}?(?:\d{{3}}{_S}?\d{{4}}|\d{{4}}{_S}?\d{{3}}))){_END}",
            0,
            _is_landline,
        ),
        (
            _CALL,
            "landline",
            r"(?:电(?<!\[电)话|座机|固话|传真|热线|[tT][eE][lL])[^\d\[\]\n]{0,6}"
            rf"(?P<it>[2-9]\d{{6,7}}|[2-9]\d{{2,3}}{_S}\d{{4}}){_END}",
            0,
            _is_local,
        ),
    )
)
