"""The letters that a free reply answers an exam item with.

Every mention of an option, by its letter or by its text, becomes one token that holds which options it names; each
token is then judged by the words beside it. What is negated, weighed ("A或B") or supposed never counts. Of the rest,
what stands alone on the first line wins, then what is called the answer, then what is chosen, then what is concluded,
then what is called right; among equals the last one, since replies change their mind. When nothing is sure, the answer
is None: a failure, which the scores count.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import or_

# Tokens are characters of a private-use plane: where they start says how the options were named, the rest is one bit an
# option. S: letters. L: letters with the options' texts. W: small letters, and several in one word. M: texts alone.
_S, _L, _W, _M = 0xF0000, 0xF1000, 0xF2000, 0xF3000
_T = "[\U000f0000-\U000f3fff]"
_MOST = 10
# How telling the words beside a token are: it is called the answer, chosen, concluded, called right; or, a text without
# a letter, called the likeliest.
_CALLED, _CHOICE, _CLOSE, _FINE, _HINT = 5, 4, 3, 2, 1

_HAN = "\u3400-\u9fff"
_THOUGHT = re.compile(r"\A.*</(think|thinking|reasoning)>|<(think|thinking|reasoning)>.*\Z", re.S | re.I)
_BOX = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}|<answer>(.*?)(?:</answer>|\Z)", re.S | re.I)
_LATEX = re.compile(r"\\(?:text\w*|math\w*)\s*(?=\{)|\\[()\[\]]|[${}]")
_MARKS = re.compile(r"\*+|`+|__+|~~|</?(?:[a-z]{2,10}|[bipu])>|^[ \t]*(?:#+|>|[-•·●])[ \t]*(?=\S)", re.M)
_BLANK = re.compile(rf"(?<=[{_HAN}、。])[ \t]+|[ \t]+(?=[{_HAN}、。])")
_NEXT = re.compile(r"\n[#\s]*+(?:题目|问题|试题|例题|下一题|question|q)\s*\d*\s*[:.、]", re.I)
_ABOVE = r"(?:以上|上述)(?:选项|各项|几项|答案|说法|描述|内容|所有|[四五]项)*+(?:都|均|全部?|皆)+"
_ALL = re.compile(rf"{_ABOVE}(?:是|对|正确|有|包括|符合|可以?)(?!不|错|非)|all of (?:the )?above", re.I)
_NONE = re.compile(rf"{_ABOVE}(?:是|为)?(?:不(?:是|对|正确|符合)|错误?|非)|none of (?:the )?above", re.I)
_COMMON = {"是", "否", "对", "错", "正确", "错误", "不正确", "有", "无", "yes", "no", "true", "false"}

# A letter beside one of these is part of a word: 维生素C, B超, A型血.
_WORD_BEFORE = re.compile(
    "(?:维生素|维他命|辅酶|蛋白|抑素|孢素|霉素|菌素|血友病|血型|肝炎|流感|因子|补体|胡萝卜素|毒素|受体|型|"
    "vit\\.?|vitamin|hepatitis|type|group|class|stage|grade|influenza|protein|factor|apo|coenzyme)\\s*$",
    re.I,
)
_WORD_AFTER = re.compile(
    "超|型|细胞|淋巴|反应(?:性|蛋白)|族|群|肽|链|二聚|抗原|抗体|病毒|波|期(?!望)|级|组(?![成合织])|类(?!似)|区|段|受体|蛋白|酶|"
    "点(?!评)|线(?!索)|因子|胶|药(?!物)|环|抑制|毒素|字|形|肝炎|氨酸|"
    rf"\s*[-‐–+](?=[A-Za-z0-9{_HAN}])|['’]s\b|°|%"
)
_ARTICLE = re.compile(r"\s+(?!(?:is|are|and|or|because|since|as|was|would|should|which|for)\b)[a-z]")
_NAMED = re.compile(r"(?:option|choice|answer|\bis|choose|select|pick|[:(选案项])\s*$", re.I)

_BRACKET = r"[)\]】」』》\"'”’]*"
_AND = (
    rf"{_BRACKET}(?:选?项)?(?:\s*(?:、|/|&|\+|和|与|以?及|,?\s*\band\b)\s*|[ \t]+|(?<=[)\]】]))"
    r"(?:选项)?[(\[【「『《\"'“‘]*"
)
_LINK = (
    r"(?:[\s:=\-—>→(\[<'\"“‘「『《【]|是|为|即|就|则|应该?|应当|该|选择|选项|选|项|分别|包括|有|可能|可以|最|只能?|确实|我认为|我觉得|"
    r"\b(?:is|are|be|would|should|the|an?|options?|choices?|letters?|both|most|likely|clearly|probably|therefore)\b)*+"
)
_NOT = re.compile(
    r"(?:不|[误错](?=选(?!项))|别|勿|未|没有?|漏|若|如果|假如|假设|倘若|无法|难以|除了?|除去|排除|而非|并非|非|为什么|为何|"
    r"\b(?:not|isn't|aren't|never|neither|nor|exclud\w+|rul\w+ out|if|why|eliminat\w+|except|cannot|can't|than))"
    r"(?:\s|能|宜|会|要|当|再|首|应该?|应当|可以?|选择|选项|选|是|为|的?答案|项|判断|确定|知道|考虑|支持|使用|应用|采用|给予|the|is|choose|option|answer|pick)*+$",
    re.I,
)
_FILL = (
    r"(?:[二两三四五]个?选?项|选项|[这那][个一]|答案|说法|描述|叙述|表述|本身|明显|显然|比较|完全|确实|属于|可能|"
    r"[项的都均皆全也才则是为最较更\s:)\]】])*+"
)
_WRONG = re.compile(
    rf"[.、]?\s*\(?[×✗✘❌]|{_FILL}(?:不(?:正确|对|符|妥|恰|合|准|成立|够|全面|完整)|错|有误|无关|(?:除|以)?外|(?:可以?|应该?|被|故)*排除|吗|"
    rf"(?:不(?:是|属于|首?选|考虑|支持)|非)(?!{_LINK}{_T})|"
    r"\s*\b(?:(?:is|are)(?:n't|\s+not)|(?:is|are)?\s*(?:incorrect|wrong|false))\b)",
    re.I,
)
_RIGHT = re.compile(
    rf"[.、]?\s*\(?[√✓✔✅]|{_FILL}(?:正确|对(?![于应比抗症此照])|符合|成立|合适|恰当|准确|"
    r"\s*\b(?:is|are)\s+(?:both\s+|all\s+)?(?:the\s+)?(?:correct|right|true|best)\b)",
    re.I,
)
_RIGHT_END = re.compile(
    r"(?:(?<!不)(?:正确|符合(?:题意)?|属于|应选)|[√✓✔✅]|\b(?<!in)correct|\bright|\btrue)[\s。.!);]*$", re.I
)
_DOUBT_BEFORE = re.compile(rf"{_T}{_BRACKET}(?:选项|项)?,?\s*(?:或者?|还是|抑或|也可能|\bor\b|\bvs\b){_LINK}$", re.I)
_DOUBT_AFTER = re.compile(rf"{_BRACKET}(?:选项|项)?,?\s*(?:或者?|还是|抑或|也可能|\bor\b|\bvs\b){_LINK}{_T}", re.I)
_LETTERS = re.compile(
    rf"(?<![A-Za-z0-9])(?<![A-Za-zΑ-ω][-'.])(?P<name>[A-J]+|[a-j]+)(?![A-Za-z0-9])(?:[.、:)\]\s—-]*(?P<text>{_T}))?"
)
# Mentions that are one answer: A、B和D; B,D (but not 故选B,D项为慢性期表现); one a line.
_LISTED = re.compile(rf"{_T}(?:{_AND}{_T})+")
_COUNTED = re.compile(
    rf"{_T}(?:{_BRACKET}\s*[,;]\s*[(\[【]?{_T})+(?=(?:[二两三四五]?个?选?项)?{_BRACKET}"
    rf"(?:\s*$|[。.!?\n]|[,;](?!\s*{_T})|都|均|全|皆|{_RIGHT.pattern}))",
    re.I,
)
_LINES = re.compile(rf"{_T}[.。,;]?(?:\s*\n\s*{_T}[.。,;]?(?=\s*\n|\s*$))+")
_AGAIN = re.compile(
    r"(?:^|[。!?;,\n.])\s*(?:不对|等等|等一下|更正|纠正|修正|抱歉|对不起|我错了|重新[考分]\w|wait|sorry|correction|actually)"
    r"[^。\n]{0,12}?[,。:!.]",
    re.I,
)
_SAID = re.compile(r"[,。;.!\n]|:?(?:因|由于|理由|解)|\s*because")
_ABOUT = re.compile(r"(?:看|分析|对于|关于|至于|首先|例如|比如|选项(?:有|为|包括|分别))(?:选项|是)?$")

# The cues, most telling first. Each stands directly before a token but for the words of _LINK.
_ANSWER = re.compile(
    rf"(?:答案|正确的?选[项择]|最佳选[项择]|\bans(?:wer)?s?\b(?:[^.\n:]{{0,40}}?\b(?:is|are)\b)?|"
    rf"\b(?:correct|right|best)\s+(?:option|choice)s?){_LINK}$",
    re.I,
)
_ANSWERS = re.compile(
    rf"{_BRACKET}(?:选?项)?\s*(?:(?:不?正确|不?对|错误?|描述|说法|的)*[,;:]?\s*(?:就?是|即?为|即)\s*(?:(?:本题|此题)的?)?"
    r"(?:(?:正确|最佳|标准|最终|参考)的?(?:答案|选项|选择)|答案)|(?:正确|最佳)?答案)|"
    r"\s*\b(?:is|are)\s+the\s+(?:\w+\s+)?(?:answer|option|choice)",
    re.I,
)
_CHOSEN = re.compile(
    rf"(?:选(?![项手题])[择取定用出]?|\b(?:choos\w+|chose|pick|select|go(?:ing)? with|opt for)\b){_LINK}$", re.I
)
_CONCLUDED = re.compile(
    r"(?:(?<!描述)(?<!说)(?<!指)的是|而是|的有|的为|应[为是]|应该是|就是|结论|因此|所以|故|综上(?:所述)?|总之|最[终后]|倾向于?|"
    rf"\b(?:therefore|thus|hence|so|conclusion))[,:]?{_LINK}$",
    re.I,
)
_DIAGNOSED = re.compile(
    r"(?:诊断|考虑|首选|最(?:可能|佳|常见|有效|适宜|主要)|应(?:选|用|给予|采用|首先)|"
    r"most likely|diagnosis|correct|best)"
    rf"[^,。;\n.{_T[1:-1]}]{{0,30}}$",
    re.I,
)


@dataclass(frozen=True, slots=True)
class _Mention:
    """One token: how its options were named, which they are, how telling the words beside it are, and those words."""

    kind: int
    bits: int
    rank: int
    before: str
    after: str


def letters(reply: str, options: Sequence[str]) -> str | None:
    """The letters that the reply gives as its answer, in order; None where none can be read with confidence.

    Never a letter beyond the options, never "". White space around Chinese characters changes nothing. Raises
    ValueError for more than ten options.

    >>> letters("患者CT检查示左肺占位，综上所述，故选C。", ["肺炎", "肺结核", "肺癌", "肺脓肿"])
    'C'
    >>> letters("维生素C缺乏可致坏血病。", ["脚气病", "夜盲症", "佝偻病", "坏血病"])
    'D'
    >>> letters("抱歉，我无法回答。", ["脚气病", "夜盲症"]) is None
    True
    """
    if len(options) > _MOST:
        raise ValueError(f"an item has at most {_MOST} options, not {len(options)}")
    said = unicodedata.normalize("NFKC", _THOUGHT.sub("", reply)).strip()
    boxes = [one or two for one, two in _BOX.findall(said)]
    head = said[: found.start()] if (found := _NEXT.search(said)) else said
    for text in dict.fromkeys((*reversed(boxes), head, said)):
        if bits := _read(_tokens(text, tuple(options)), tuple(options)):
            return "".join(chr(ord("A") + place) for place in range(_MOST) if bits >> place & 1)
    return None


def _read(text: str, options: tuple[str, ...]) -> int:
    """The options that a text of tokens answers with, one bit each; 0 for none."""
    every = (1 << len(options)) - 1
    first = re.sub(rf"[^\w×✗✘❌√✓✔✅{_T[1:-1]}]", "", text.partition("\n")[0])
    if re.fullmatch(_T, first) and not _listed(*_named(first), every):
        return _named(first)[1]
    found = _mentions(text, every)
    if again := [mark.end() for mark in _AGAIN.finditer(text)]:
        late = _mentions(text[again[-1] :], every)
        found = late if max((mention.rank for mention in late), default=0) not in (0, _FINE) else found
    best = max((mention.rank for mention in found), default=0)
    if best == _FINE:
        right = _joined([mention.bits for mention in found if mention.rank == _FINE])
        above = _above(options, _ALL)
        return above if above and right == every & ~above else right
    if best:
        return [mention.bits for mention in found if mention.rank == best][-1]
    return _alone(text, found) or (every if _ALL.search(text) else 0)


def _alone(text: str, found: Sequence[_Mention]) -> int:
    """The options that are named without any cue, where only one choice is."""
    lettered = [mention for mention in found if mention.kind != _M]
    if lettered and not lettered[0].before.strip() and _SAID.match(lettered[0].after):
        others = {mention.bits for mention in lettered if re.search(r"[\n;。.]\s*$", mention.before)}
        if others <= {lettered[0].bits}:
            return lettered[0].bits
    named = {mention.bits for mention in lettered if mention.kind != _W and not _ABOUT.search(mention.before)}
    if lettered:
        return named.pop() if len(named) == 1 else 0
    named = {mention.bits for mention in found if mention.kind == _M and not _ABOUT.search(mention.before)}
    return named.pop() if len(named) == 1 and len(re.findall(r"\w", text)) <= 15 else 0


def _mentions(text: str, every: int) -> list[_Mention]:
    """The tokens that may be meant as an answer, in order."""
    found = []
    for token in re.finditer(_T, text):
        before, after = text[max(0, token.start() - 80) : token.start()], text[token.end() : token.end() + 80]
        kind, bits = _named(token[0])
        rank = _rank(kind, before, after)
        # "C错，为本题正确答案" answers a question that asks for what is wrong.
        wrong = not _ANSWERS.match(after) and _WRONG.match(after)
        if wrong or _NOT.search(before) or _DOUBT_BEFORE.search(before) or _DOUBT_AFTER.match(after):
            continue
        told = kind != _W or not before.strip()
        if rank or (told and not _listed(kind, bits, every)):
            found.append(_Mention(kind, bits, rank, before, after))
    return found


def _rank(kind: int, before: str, after: str) -> int:
    """How telling the words beside a token are."""
    if _ANSWER.search(before) or _ANSWERS.match(after):
        return _CALLED
    if _CHOSEN.search(before):
        return _CHOICE
    if kind != _M and _CONCLUDED.search(before):
        return _CLOSE
    starts = not before.rpartition("\n")[2].strip()
    if _RIGHT.match(after) or (starts and _RIGHT_END.search(after.partition("\n")[0])):
        return _FINE
    return _HINT if kind == _M and (_CONCLUDED.search(before) or _DIAGNOSED.search(before)) else 0


def _tokens(text: str, options: tuple[str, ...]) -> str:
    """The text in plain marks, with a token for every mention of options; mentions that belong together are one."""
    text = _plain(text)
    pattern, places = _texts(options)
    if (bits := places.get(_bare(text))) is not None:
        return chr(_M | bits)
    for above in (_ALL, _NONE):
        if bits := _above(options, above):
            text = above.sub(chr(_M | bits), text)
    text = pattern.sub(lambda found: chr(_M | places[_bare(found[0])]) if _bare(found[0]) in places else found[0], text)
    text = _LETTERS.sub(lambda found: _lettered(found, len(options)), text)
    for together in (_LISTED, _COUNTED, _LINES):
        text = together.sub(_merged, text)
    return text


def _lettered(found: re.Match[str], count: int) -> str:
    """The token of a run of letters, with or without the text of an option behind it; unchanged where it is a word."""
    name, text = found["name"], found["text"]
    before, after = found.string[max(0, found.start() - 12) : found.start()], found.string[found.end("name") :]
    places = [ord(letter) - ord("A") for letter in name.upper()]
    fits = len(set(places)) == len(places) and max(places) < count
    if name.islower():
        fits &= places == sorted(places) and not re.match(r"\s+[A-Za-z]|\.[a-z]", after)
    if not text:
        fits &= not (_WORD_BEFORE.search(before) or _WORD_AFTER.match(after))
        fits &= not (name == "A" and _ARTICLE.match(after)) or bool(_NAMED.search(before))
    if not fits:
        return found[0]
    kind = _L if text else _W if name.islower() or len(name) > 1 else _S
    return chr(kind | sum(1 << place for place in places))


def _merged(found: re.Match[str]) -> str:
    tokens = [_named(token) for token in re.findall(_T, found[0])]
    return chr(min(kind for kind, _ in tokens) | _joined([bits for _, bits in tokens]))


def _joined(bits: Sequence[int]) -> int:
    return reduce(or_, bits, 0)


def _named(token: str) -> tuple[int, int]:
    """How a token names its options, and which they are."""
    return ord(token) & 0xFF000, ord(token) & 0xFFF


def _listed(kind: int, bits: int, every: int) -> bool:
    """Whether a token only says all options over again."""
    return kind in (_L, _M) and bits == every


def _above(options: Sequence[str], pattern: re.Pattern[str]) -> int:
    """The option that speaks of all the others, such as 以上都对."""
    return next((1 << place for place, option in enumerate(options) if pattern.search(_plain(option))), 0)


def _plain(text: str) -> str:
    """The text without Markdown, LaTeX and the blanks beside Chinese characters."""
    text = _MARKS.sub("", _LATEX.sub("", unicodedata.normalize("NFKC", re.sub(_T, "", text))))
    return _BLANK.sub("", re.sub(r"[^\S\n]+", " ", text)).strip()


def _bare(text: str) -> str:
    return re.sub(r"\W", "", text).lower()


@lru_cache(maxsize=1024)
def _texts(options: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, int]]:
    """A pattern of the options' texts, those that are common words only where an answer may stand; each text's bit."""
    places: dict[str, int] = {}
    parts = []
    for place, option in enumerate(options):
        text = _plain(option).strip(" 。.;,")
        if not _bare(text) or re.fullmatch("[A-Ja-j]+", text):
            continue
        places.setdefault(_bare(text), 1 << place)
        opens = r"(?<![A-Za-z0-9.])" if re.match("[A-Za-z0-9]", text) else ""
        closes = r"(?![A-Za-z0-9]|\.[0-9])" if re.search("[A-Za-z0-9]$", text) else ""
        if len(text) == 1 or text.lower() in _COMMON:
            opens, closes = r"(?<=[:是为选])", r"(?=的?(?:\W|$))"
        parts.append((len(text), opens + re.escape(text) + closes))
    longest = "|".join(part for _, part in sorted(parts, reverse=True))
    return re.compile(longest or r"(?!)", re.I), places
