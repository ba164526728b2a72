"""BLEU and ROUGE of Chinese replies, in the conventions of the field, each under a name and with a signature.

    zh            corpus BLEU-1 to 4 of sacrebleu (tokenizer zh, smoothing exp); ROUGE-1, 2 and L as F1 on characters
    paper         the CMExam scripts: corpus BLEU on jieba words, unsmoothed; ROUGE on characters, n-grams as sets, and
                  an L that weighs precision by itself over recall
    llamafactory  LLaMA-Factory: sentence BLEU-4 on characters, smoothing method 3; rouge-chinese on jieba words

Figures of different modes cannot be compared: one pair of sentences has a BLEU-4 from 0 to 40. All run from 0 to 100.
An empty reply scores 0 and counts, and the length of the replies stands beside the figures: BLEU pays for length until
the references' is reached, ROUGE's F1 too, so a difference between systems of unlike length says little by itself.
"""

import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Literal, cast

import numpy as np

from qilin.evaluate.stats import Interval, Values, bootstrap

Mode = Literal["zh", "paper", "llamafactory"]
MODES: tuple[Mode, ...] = ("zh", "paper", "llamafactory")
WITHIN = 0.10  # how much shorter the shorter of two replies may be where lengths are matched
_STRATA = 5
_BLEU = ("bleu-1", "bleu-2", "bleu-3", "bleu-4")
_ROUGE = ("rouge-1", "rouge-2", "rouge-l")


@dataclass(frozen=True, slots=True)
class AnswerScores:
    """The scores of replies, 0 to 100.

    signature: tools and their versions, tokenizer, smoothing, order: what must be equal before figures are compared.
    empty: how many replies were. length_ratio: characters of all replies over those of all references.
    intervals: 95 % bootstrap over items; none for a single item. items: each metric of each item by itself.
    """

    mode: str
    signature: str
    n: int
    empty: int
    length_ratio: float
    values: Mapping[str, float]
    intervals: Mapping[str, Interval]
    items: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Two systems on the same n items; difference: second minus first, with its paired bootstrap interval."""

    n: int
    first: Mapping[str, float]
    second: Mapping[str, float]
    difference: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class Matched:
    """Two systems compared as they are, and with what length does taken out.

    everything: all items. within: the items whose two replies differ by at most a tenth in length. standardised: all;
    the score of each system within fifths of reply length over reference length, averaged with the same weights for
    both (direct standardisation). overlap: the share of replies in fifths that both systems reach; the others are left
    out of `standardised`. None where fewer than two items, or no fifth, can be compared.
    """

    mode: str
    signature: str
    everything: Pairs | None
    within: Pairs | None
    standardised: Pairs | None
    overlap: float


@dataclass(frozen=True, slots=True)
class _Measured:
    """What each item adds to the scores: one row an item, so that scores of any choice of rows can be computed.

    smoothing: of corpus BLEU, whose counts are the first ten columns; None where every metric is a mean of its column.
    """

    signature: str
    metrics: tuple[str, ...]
    rows: Values
    smoothing: str | None

    def value(self, rows: Values, place: int) -> float:
        """The metric at this place of `metrics`, over these rows."""
        if self.smoothing is None or place >= len(_BLEU):
            return float(rows[:, place if self.smoothing is None else place + 6].mean())
        from sacrebleu.metrics.bleu import BLEU

        sums = [int(total) for total in rows[:, :10].sum(axis=0)]
        order = place + 1
        found = BLEU.compute_bleu(
            *(sums[:order], sums[4 : 4 + order], sums[8], sums[9]), smooth_method=self.smoothing, max_ngram_order=order
        )
        return float(found.score)

    def values(self, rows: Values) -> dict[str, float]:
        return {metric: self.value(rows, place) for place, metric in enumerate(self.metrics)}


def score(
    mode: Mode, replies: Sequence[str], references: Sequence[str], *, seed: int = 0, resamples: int = 1000
) -> AnswerScores:
    """The scores of replies against one reference each, with bootstrap intervals.

    Raises ValueError for unlike numbers of replies and references, for none, and for an empty reference.

    >>> found = score("zh", ["高血压患者应低盐饮食", ""], ["高血压患者要低盐饮食", "多喝水"], resamples=10)
    >>> found.empty, round(found.values["rouge-1"], 1), round(found.values["bleu-1"], 1)
    (1, 45.0, 66.7)
    """
    measured = _measure(mode, replies, references)
    rows = measured.rows
    intervals = {
        metric: bootstrap(rows, partial(measured.value, place=place), seed=seed, resamples=resamples)
        for place, metric in enumerate(measured.metrics if len(rows) > 1 else ())
    }
    items = {
        metric: tuple(measured.value(rows[[item]], place) for item in range(len(rows)))
        for place, metric in enumerate(measured.metrics)
    }
    lengths = _lengths(replies)
    ratio = float(lengths.sum() / _lengths(references).sum())
    empty = int(np.sum(lengths == 0))
    return AnswerScores(mode, measured.signature, len(rows), empty, ratio, measured.values(rows), intervals, items)


def matched(
    mode: Mode,
    first: Sequence[str],
    second: Sequence[str],
    references: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> Matched:
    """Whether the second system answers better than the first, or only longer.

    first, second: the replies of each to the same questions. Raises ValueError as `score` does.
    """
    one, two = _measure(mode, first, references), _measure(mode, second, references)
    width = one.rows.shape[1]
    lengths = np.stack([_lengths(first), _lengths(second)], axis=1)
    strata = _strata(lengths / _lengths(references)[:, None])
    table = np.hstack([one.rows, two.rows, strata])

    def plain(rows: Values, system: int, place: int) -> float:
        return one.value(rows[:, system * width : (system + 1) * width], place)

    def standardised(rows: Values, system: int, place: int) -> float:
        weights = _weights(rows[:, 2 * width :])
        mine = rows[:, 2 * width + system]
        parts = [plain(rows[mine == stratum], system, place) for stratum in weights]
        return float(np.average(parts, weights=list(weights.values()))) if parts else 0.0

    def pairs(rows: Values, value: Callable[[Values, int, int], float]) -> Pairs | None:
        if len(rows) < 2:
            return None

        def gain(drawn: Values, place: int) -> float:
            return value(drawn, 1, place) - value(drawn, 0, place)

        places = {metric: place for place, metric in enumerate(one.metrics)}
        scores = [{metric: value(rows, system, place) for metric, place in places.items()} for system in (0, 1)]
        spread = {
            metric: bootstrap(rows, partial(gain, place=place), seed=seed, resamples=resamples)
            for metric, place in places.items()
        }
        return Pairs(len(rows), scores[0], scores[1], spread)

    near = lengths.min(axis=1) >= (1 - WITHIN) * lengths.max(axis=1)
    overlap = sum(_weights(strata).values()) / strata.size
    return Matched(
        mode,
        one.signature,
        within=pairs(table[near], plain),
        everything=pairs(table, plain),
        standardised=pairs(table, standardised) if overlap else None,
        overlap=overlap,
    )


def _lengths(texts: Sequence[str]) -> Values:
    """Characters of each text, white space left out."""
    return np.array([len("".join(text.split())) for text in texts], dtype=np.float64)


def _strata(ratios: Values) -> Values:
    """The fifth of all ratios that each of them lies in."""
    edges = np.quantile(ratios, np.arange(1, _STRATA) / _STRATA)
    return np.searchsorted(edges, ratios, side="left").astype(np.float64)


def _weights(strata: Values) -> dict[float, int]:
    """How many replies lie in each stratum, of the strata in which both systems have any."""
    common = set(strata[:, 0]) & set(strata[:, 1])
    return {stratum: int(np.sum(strata == stratum)) for stratum in sorted(common)}


def _measure(mode: Mode, replies: Sequence[str], references: Sequence[str]) -> _Measured:
    if len(replies) != len(references) or not replies:
        raise ValueError(
            f"{len(replies)} replies and {len(references)} references: one each, and at least one, is needed"
        )
    if not all(reference.strip() for reference in references):
        raise ValueError("a reference is empty: leave its item out, nothing can be scored against it")
    given = [reply if reply.strip() else "" for reply in replies]
    measures = {"zh": _zh, "paper": _paper, "llamafactory": _llamafactory}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (DeprecationWarning, UserWarning))  # of old imports in jieba and rouge-score
        return measures[mode](given, references)


def _zh(replies: Sequence[str], references: Sequence[str]) -> _Measured:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2"], tokenizer=_Characters())
    rouge = []
    for reply, reference in zip(replies, references, strict=True):
        grams = scorer.score(reference, reply)
        one, two = _Characters.tokenize(reply), _Characters.tokenize(reference)
        # rouge-score's own L fills a table cell by cell: twenty times as long for the same figure.
        long = 2 * _common(one, two) / (len(one) + len(two))
        rouge.append([100 * grams["rouge1"].fmeasure, 100 * grams["rouge2"].fmeasure, 100 * long])
    counts, signature = _counts(replies, references, "zh", "exp")
    signature += f"; ROUGE f1|tok:characters|rouge-score:{version('rouge-score')}"
    return _Measured(signature, (*_BLEU, *_ROUGE), np.hstack([counts, np.array(rouge)]), "exp")


def _paper(replies: Sequence[str], references: Sequence[str]) -> _Measured:
    """evaluate_*_result.py of the CMExam release: `bleu_score` and `rouge_score` come from a file that it lacks, but
    whose names are those of PETER's utils.py: TensorFlow's compute_bleu and seq2seq's rouge. The scripts hand reply
    and reference to ROUGE in each other's place; its three F are the same either way. Only an empty reply differs: the
    scripts credit it for blanks in its reference, here it scores 0.
    """
    rouge = [_set_rouge(*pair) if pair[0] else [0.0] * 3 for pair in zip(replies, references, strict=True)]
    # Words become numbers: sacrebleu splits at white space, which is a word of its own to jieba.
    numbers: dict[str, str] = {}
    texts = [
        [" ".join(numbers.setdefault(word, str(len(numbers))) for word in _words(text)) for text in side]
        for side in (replies, references)
    ]
    counts, signature = _counts(texts[0], texts[1], "none", "none")
    signature = signature.replace("tok:none", f"tok:jieba-{version('jieba')}")
    signature += "; ROUGE f|tok:characters|n-grams:distinct|l:beta=p/r"
    return _Measured(signature, (*_BLEU, *_ROUGE), np.hstack([counts, np.array(rouge)]), "none")


def _llamafactory(replies: Sequence[str], references: Sequence[str]) -> _Measured:
    """src/llamafactory/train/sft/metric.py, without its rounding of each item to four digits."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    from rouge_chinese import Rouge

    smooth, scorer, rows = SmoothingFunction().method3, Rouge(), []
    for reply, reference in zip(replies, references, strict=True):
        if not reply:
            rows.append([0.0] * 4)
            continue
        bleu = float(sentence_bleu([list(reference)], list(reply), smoothing_function=smooth))
        words = [_words(reply), _words(reference)]
        with _recursion(sum(map(len, words))):
            found = scorer.get_scores(" ".join(words[0]), " ".join(words[1]))[0]
        rows.append([100 * bleu, *(100 * found[metric]["f"] for metric in _ROUGE)])
    tools = [f"{name}:{version(name)}" for name in ("nltk", "rouge-chinese", "jieba")]
    signature = f"BLEU sentence|order:4|tok:characters|smooth:method3|{tools[0]}; ROUGE f|tok:{tools[2]}|{tools[1]}"
    return _Measured(signature, ("bleu-4", *_ROUGE), np.array(rows), None)


def _counts(replies: Sequence[str], references: Sequence[str], tokenizer: str, smoothing: str) -> tuple[Values, str]:
    """What corpus BLEU adds up, an item a row: matches and n-grams of orders 1 to 4, both lengths; and a signature."""
    from sacrebleu.metrics.bleu import BLEU

    # The effective order only changes the score of a sentence, which is not used, and spares a warning an item.
    metric = BLEU(tokenize=tokenizer, smooth_method=smoothing, effective_order=True)
    rows = []
    for reply, reference in zip(replies, references, strict=True):
        found = metric.sentence_score(reply, [reference])
        rows.append([*found.counts, *found.totals, found.sys_len, found.ref_len])
    signature = metric.get_signature().format().replace("eff:yes", "eff:no")
    return np.array(rows, dtype=np.float64), f"BLEU corpus|order:1-4|{signature.replace('version', 'sacrebleu')}"


def _set_rouge(reply: str, reference: str) -> list[float]:
    """ROUGE-1, 2 and L as seq2seq's rouge.py has them: n-grams as sets, L with beta = precision / recall."""
    one, two = " ".join(reply).split(" "), " ".join(reference).split(" ")
    found = []
    for order in (1, 2):
        mine, theirs = (set(zip(*(side[skip:] for skip in range(order)), strict=False)) for side in (one, two))
        shared = len(mine & theirs)
        found.append(200 * shared / (len(mine) + len(theirs)) if shared else 0.0)
    n, m = len(one), len(two)
    return [*found, 100 * _common(one, two) * (m**2 + n**2) / (m**3 + n**3)]


def _common(one: Sequence[str], two: Sequence[str]) -> int:
    """The length of the longest common subsequence, bit by bit (Hyyrö 2004).

    >>> _common("医生开药", "开药医生")
    2
    """
    places: dict[str, int] = defaultdict(int)
    for place, token in enumerate(one):
        places[token] |= 1 << place
    every = row = (1 << len(one)) - 1
    for token in two:
        hit = row & places.get(token, 0)
        row = ((row + hit) | (row - hit)) & every
    return len(one) - row.bit_count()


def _words(text: str) -> list[str]:
    import jieba

    jieba.setLogLevel("WARNING")  # it greets on stderr
    return cast(list[str], jieba.lcut(text))


@contextmanager
def _recursion(words: int) -> Iterator[None]:
    """Room for rouge-chinese, which walks a sentence word by word, a call a word."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + 2 * words)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


class _Characters:
    """The tokenizer that rouge-score lacks: every character that is no white space."""

    @staticmethod
    def tokenize(text: str) -> list[str]:
        return [character for character in text if not character.isspace()]
