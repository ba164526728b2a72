"""BLEU and ROUGE against sacrebleu, rouge-score, nltk and the paper's scripts written out, on 200 pairs."""

import math
import random
import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from qilin.evaluate.answers import score

sacrebleu = pytest.importorskip("sacrebleu", reason="the extra eval is not installed")
pytest.importorskip("rouge_score", reason="the extra eval is not installed")
pytest.importorskip("rouge_chinese", reason="the extra eval is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

CLAUSES = [
    *[
        "患者应当卧床休息",
        "清淡饮食",
        "多饮温水",
        "按时服药",
        "定期复查血常规",
        "建议到医院就诊",
        "体温超过38.5℃可口服退烧药",
    ],
    *[
        "头孢克肟 0.1g，每日2次",
        "急性阑尾炎应尽早手术治疗",
        "高血压患者要低盐饮食",
        "二甲双胍是2型糖尿病的一线用药",
        "注意休息",
    ],
    *[
        "考虑为缺铁性贫血",
        "HBsAg阳性",
        "CT示肺部感染",
        "避免劳累",
        "您好",
        "病情分析",
        "意见建议",
        "这种情况多见于慢性胃炎",
    ],
    *["可以做胃镜检查", "幽门螺杆菌感染需要四联疗法", "不要过度担心", "祝您早日康复", "Helicobacter pylori (HP)"],
]


def pairs() -> tuple[list[str], list[str]]:
    """Replies and references of 1 to 9 clauses; every twentieth reply is empty, some are a single character."""
    rng = random.Random(0)
    replies, references = [], []
    for number in range(200):
        reference = [rng.choice(CLAUSES) for _ in range(rng.randint(1, 9))]
        reply = [clause for clause in reference if rng.random() < 0.6] + rng.sample(CLAUSES, rng.randint(0, 4))
        rng.shuffle(reply)
        marks = rng.choice(["，", "。", "， ", "\n"])
        replies.append("" if number % 20 == 0 else "药" if number % 33 == 0 else marks.join(reply))
        references.append("，".join(reference) + "。")
    return replies, references


REPLIES, REFERENCES = pairs()


def common(one: Sequence[str], two: Sequence[str]) -> int:
    """The longest common subsequence by the textbook's table."""
    row = [0] * (len(two) + 1)
    for left in one:
        before = row[:]
        for place, right in enumerate(two):
            row[place + 1] = before[place] + 1 if left == right else max(row[place], before[place + 1])
    return row[-1]


def test_zh_is_sacrebleu_and_rouge_score() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    class Characters:
        def tokenize(self, text: str) -> list[str]:
            return [character for character in text if character.strip()]

    found = score("zh", REPLIES, REFERENCES, resamples=2)
    assert found.empty == REPLIES.count("") >= 10
    for order in (1, 2, 3, 4):
        metric = sacrebleu.BLEU(tokenize="zh", max_ngram_order=order)
        expected = metric.corpus_score(REPLIES, [REFERENCES])
        assert found.values[f"bleu-{order}"] == pytest.approx(expected.score, abs=1e-9)
    assert metric.get_signature().format().replace("version", "sacrebleu") in found.signature
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Characters())
    for name, metric in (("rouge1", "rouge-1"), ("rouge2", "rouge-2"), ("rougeL", "rouge-l")):
        each = [
            100 * scorer.score(reference, reply)[name].fmeasure
            for reply, reference in zip(REPLIES, REFERENCES, strict=True)
        ]
        assert found.items[metric] == pytest.approx(each, abs=1e-9)
        assert found.values[metric] == pytest.approx(np.mean(each), abs=1e-9)


def corpus_bleu(references: list[list[str]], replies: list[list[str]], most: int) -> float:
    """TensorFlow's compute_bleu without smoothing, which the scripts call, written from its description."""
    matches, possible = [0] * most, [0] * most
    for reference, reply in zip(references, replies, strict=True):
        for order in range(1, most + 1):
            grams = [
                Counter(tuple(side[at : at + order]) for at in range(len(side) - order + 1))
                for side in (reply, reference)
            ]
            matches[order - 1] += sum((grams[0] & grams[1]).values())
            possible[order - 1] += max(0, len(reply) - order + 1)
    if not all(matches):
        return 0.0
    ratio = sum(map(len, replies)) / sum(map(len, references))
    brevity = 1.0 if ratio > 1.0 else math.exp(1 - 1 / ratio)
    return 100 * brevity * math.exp(sum(math.log(hit / of) for hit, of in zip(matches, possible, strict=True)) / most)


def set_rouge(reply: str, reference: str) -> list[float]:
    """seq2seq's rouge.py, its small constants included; the scripts call it with reply and reference exchanged."""
    hypothesis, target = " ".join(reference).split(" "), " ".join(reply).split(" ")
    found = []
    for order in (1, 2):
        mine, theirs = (
            {tuple(side[at : at + order]) for at in range(len(side) - order + 1)} for side in (hypothesis, target)
        )
        precision = len(mine & theirs) / len(mine) if mine else 0.0
        recall = len(mine & theirs) / len(theirs) if theirs else 0.0
        found.append(2 * precision * recall / (precision + recall + 1e-8))
    recall, precision = common(hypothesis, target) / len(target), common(hypothesis, target) / len(hypothesis)
    beta = precision / (recall + 1e-12)
    found.append((1 + beta**2) * recall * precision / (recall + beta**2 * precision + 1e-12))
    return [100 * figure for figure in found]


def test_paper_is_what_the_scripts_compute() -> None:
    import jieba

    found = score("paper", REPLIES, REFERENCES, resamples=2)
    words = [[list(jieba.cut(text, cut_all=False)) for text in side] for side in (REFERENCES, REPLIES)]
    for order in (1, 2, 3, 4):
        assert found.values[f"bleu-{order}"] == pytest.approx(corpus_bleu(*words, order), abs=1e-9)
    # To the scripts an empty reply is one empty word, and so is half a blank of the reference: here it scores 0.
    each = [set_rouge(*pair) if pair[0] else [0.0] * 3 for pair in zip(REPLIES, REFERENCES, strict=True)]
    for place, metric in enumerate(("rouge-1", "rouge-2", "rouge-l")):
        assert found.values[metric] == pytest.approx(np.mean([figures[place] for figures in each]), abs=1e-5)


def test_paper_bleu_is_unsmoothed() -> None:
    found = score("paper", ["高血压患者", "糖尿病"], ["高血压病人要注意饮食", "胃炎"], resamples=2)
    assert found.values["bleu-1"] > 0
    assert found.values["bleu-4"] == 0


def test_llamafactory_is_its_metric() -> None:
    import jieba
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    from rouge_chinese import Rouge

    expected: dict[str, list[float]] = {"bleu-4": [], "rouge-1": [], "rouge-2": [], "rouge-l": []}
    for reply, reference in zip(REPLIES, REFERENCES, strict=True):
        words = [" ".join(jieba.cut(text)) for text in (reply, reference)]
        nothing = {name: {"f": 0.0} for name in ("rouge-1", "rouge-2", "rouge-l")}
        result = Rouge().get_scores(*words)[0] if all(text.split() for text in words) else nothing
        for name, figures in result.items():
            expected[name].append(round(figures["f"] * 100, 4))
        bleu = sentence_bleu([list(reference)], list(reply), smoothing_function=SmoothingFunction().method3)
        expected["bleu-4"].append(round(bleu * 100, 4))
    found = score("llamafactory", REPLIES, REFERENCES, resamples=2)
    for metric, figures in expected.items():
        assert found.items[metric] == pytest.approx(figures, abs=1e-4)
        assert found.values[metric] == pytest.approx(np.mean(figures), abs=1e-4)


def test_modes_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mode in ("zh", "paper", "llamafactory"):
            score(mode, REPLIES[:3], REFERENCES[:3], resamples=2)
