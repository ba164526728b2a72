"""Raw folders of the size and mix of ChiMed, made from the real texts of smaller ones.

    python benchmarks/raw_corpus.py RAW OUT --gigabytes 3.2 [--seed 0]

writes below OUT, in the formats that upstream publishes, the ten sources of the CPT part of the Qilin-Med paper with
its numbers of rows at 3.2 GB (ten million), fewer or more in proportion. The texts of RAW are cut at the ends of
sentences and clauses; the pieces are drawn anew, by kind, and names of diseases, drugs, symptoms and food in them are
exchanged. Lengths follow those of the real texts, stretched to the paper's mean. RAW needs the folders explaincpe,
xywy-kg, disease-kg, bentsao, meddialog, toyhom, guidelines, and cmexam and huatuo26m for the evaluation sets, which
are copied as they are. One seed and one RAW give the same bytes; memory depends on RAW, not on the size that is made.

Where upstream's own files are in few hands, texts of the same kind stand in: prose of xywy-kg and the guidelines for
the encyclopedia and the textbooks, facts of all graphs for CPubMed-KG, 39Health-KG and the knowledge part of Huatuo,
questions and replies of bentsao, meddialog and toyhom for CMD, items of explaincpe for the training part of CMExam.

Planted: 5 % of the triples, exam items and question-answer pairs equal an earlier one, and 5 % of the pairs are
near-copies: one clause of the answer is left out or said twice. The encyclopedia copies from itself, the knowledge part
and CMD from each other too, so do Chinese-medical-dialogue and Medical-Dialogue-System, which write a title or disease
before the question. One pair or exam item in a thousand is an evaluation item. Graphs share the real names of diseases.

In what it is unlike a real corpus: sentences that follow each other have no bearing on each other, so nothing should
be trained on it, and compression finds more to save; at 3.2 GB a piece of a sentence stands in some hundred rows, so
that its vocabulary (characters, 5-grams) is that of RAW and grows no further, and 5-grams repeat more; names of
diseases beyond the real ones are real ones with a word before or behind; faults of upstream (broken lines, addresses,
personal data) are as rare as in RAW or rarer; lengths and departments are drawn without regard to the text.
"""

import argparse
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from raw_material import (
    CLAUSE,
    EVALUATION,
    LEAKED,
    SENTENCE,
    SLOTS,
    Earlier,
    Ints,
    Material,
    Names,
    Pieces,
    exam_lines,
    harvest,
    joined,
    line,
)

from chimed.signs import reworded

BATCH = 1 << 20  # bytes made at a time
PAPER_GB, PAPER_MB = 3.2, 3433  # the size the paper gives the corpus, and what its sizes of the sources sum to

_BEFORE = (
    "",
    "急性",
    "慢性",
    "老年",
    "小儿",
    "妊娠期",
    "复发性",
    "原发性",
    "继发性",
    "特发性",
    "轻度",
    "重度",
    "难治性",
)
_ASKS = {
    "症状": ("有哪些症状？", "会有什么表现？"),
    "并发症": ("会引起哪些并发症？", "可能并发什么病？"),
    "检查": ("需要做哪些检查？", "查什么能确诊？"),
    "推荐药物": ("可以用哪些药？", "吃什么药好？"),
    "宜吃": ("适合吃什么？", "饮食上吃什么好？"),
    "忌吃": ("不能吃什么？", "要忌口哪些食物？"),
    "致病因素": ("是什么引起的？", "的病因有哪些？"),
    "预防措施": ("怎么预防？", "平时如何预防？"),
}
_ABOUT = (
    "是什么",
    "的病因是什么",
    "怎么治疗",
    "的临床表现有哪些",
    "如何诊断与鉴别",
    "怎样预防",
    "如何护理",
    "的发病机制",
)
# Relation as CPubMed-KG calls it, the type of its tails there -> the relation here that tails are taken from.
_CPUBMED = (
    *(("临床表现", "症状", "症状"), ("药物治疗", "药物", "推荐药物"), ("辅助检查", "检查", "检查")),
    *(("并发症", "疾病", "并发症"), ("病因", "社会学", "致病因素"), ("预防", "其他治疗", "预防措施")),
    *(("手术治疗", "手术治疗", "治疗方法"), ("发病部位", "部位", "发病部位"), ("相关（症状）", "症状", "症状")),
)
_Fields = tuple[tuple[str, str, int], ...]
_XYWY: _Fields = (("acompany", "并发症", 3), ("symptom", "症状", 6), ("check", "检查", 5), ("cure_way", "治疗方法", 2))
_XYWY += (
    ("cure_department", "科室", 1),
    ("recommand_drug", "推荐药物", 6),
    ("do_eat", "宜吃", 4),
    ("not_eat", "忌吃", 4),
)
_39: _Fields = (("part", "发病部位", 1), ("department", "科室", 1), ("checklist", "检查", 4), ("symptom", "症状", 6))
_39 += (("complication", "并发症", 3), ("treatment", "治疗方法", 2), ("drug", "推荐药物", 4))
_WAYS = (("age", "易感人群"), ("infection", "传染方式"), ("period", "治疗周期"), ("rate", "治愈率"))


class Maker:
    """Makes rows of each source; `first` is the number of the first row, `size` the bytes of text a row aims at."""

    def __init__(self, material: Material, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        known, relations = material.known, {*_ASKS, "option", *(entry[-1] for entry in _WAYS)}
        relations |= {name for _, name, _ in (*_XYWY, *_39)} | {name for _, _, name in _CPUBMED}
        if missing := [name for name in sorted(relations) if not material.tails[name]]:
            sys.exit(f"RAW has no facts of {', '.join(missing)}; see --help for the folders that it needs")
        self.relations = {name: place for place, name in enumerate(sorted(relations))}
        self.tails = Names(material.tails[name] for name in self.relations)
        self.heads = pa.array(sorted(material.heads), pa.string()).take(
            pa.array(self.rng.permutation(len(material.heads)))
        )
        names = Names([[""], *([n for n, own in known.items() if own == g] for g in SLOTS.values())])
        texts = material.texts
        advice = [*texts["预防"], *texts["护理"]]
        bentsao, clinic, toyhom = (texts[f"{n} assistant"] for n in ("bentsao", "meddialog", "toyhom"))
        asked = [*texts["bentsao user"], *texts["meddialog user"], *texts["toyhom user"]]
        pools = {
            **{kind: (texts[kind], SENTENCE) for kind in ("prose", "概述", "病因", "预防")},
            "explanation": ([*texts["explanation"], *texts["概述"]], SENTENCE),
            "stem": (texts["stem"], SENTENCE),
            "patient": (texts["meddialog user"], CLAUSE),
            "doctor": ([*clinic, *bentsao, *advice], CLAUSE),
            "toyhom ask": (texts["toyhom user"], CLAUSE),
            "toyhom answer": (toyhom, CLAUSE),
            "cmd ask": (asked, CLAUSE),
            "cmd answer": ([*bentsao, *toyhom, *advice], CLAUSE),
        }
        self.pools = {kind: Pieces(own, cut, known, names) for kind, (own, cut) in pools.items()}
        self.pools["reworded"] = Pieces(toyhom, CLAUSE, known, names, sound=False)
        self.reworded = float(reworded(pa.array([[whole] for whole in texts["toyhom whole"]])).mean())
        self.items = exam_lines(material.items)
        self.earlier = Earlier(self.rng, random.Random(seed), material.asked)

    def text(self, kind: str, size: float, count: int) -> pa.Array:
        """Texts of a kind with a mean of `size` bytes."""
        return self.pools[kind].texts(size, count, self.rng)

    def named(self, relation: str | Ints, most: float, count: int, between: str) -> pa.Array:
        """Lists of tails of a relation, about `most` of them."""
        group = np.full(count, self.relations[relation]) if isinstance(relation, str) else relation
        counts = 1 + self.rng.poisson(max(most - 1, 0), count)
        return joined(self.tails.draw(np.repeat(group, counts), self.rng), counts, between)

    def head(self, numbers: Ints) -> pa.Array:
        """Names of diseases: the real ones in a random order, then those with a word before, then with a symptom."""
        again, place = np.divmod(numbers, len(self.heads))
        more, before = np.divmod(again, len(_BEFORE))
        start, size = (int(own[self.relations["症状"]]) for own in (self.tails.starts, self.tails.sizes))
        behind = pa.array(start + (numbers * 2_654_435_761 + more) % size)
        symptom = line("伴", self.tails.values.take(behind))
        return line(
            pa.array(_BEFORE).take(pa.array(before)),
            self.heads.take(pa.array(place)),
            pc.if_else(pa.array(more > 0), symptom, ""),
        )

    def question(self, count: int) -> tuple[Ints, pa.Array, pa.Array]:
        """Relations, heads, and what is asked of them."""
        names = list(_ASKS)
        kind = self.rng.integers(len(names), size=count)
        form = 2 * kind + self.rng.integers(2, size=count)
        asks = pa.array([text for both in _ASKS.values() for text in both]).take(pa.array(form))
        head = self.head(self.rng.integers(4 * len(self.heads), size=count))
        return np.array([self.relations[name] for name in names])[kind], head, asks


def encyclopedia(make: Maker, first: int, count: int, size: float) -> pa.Array:
    """Huatuo-26M, encyclopedia part: a question in two phrasings and a long answer."""
    about = make.rng.integers(len(_ABOUT), size=count)
    head = make.head(make.rng.integers(2 * len(make.heads), size=count))
    asked, reply = make.earlier.shared(
        "long", line(head, pa.array(_ABOUT).take(pa.array(about))), make.text("prose", size, count)
    )
    return line('{"questions": [["', asked, '", "请问', asked, '"]], "answers": ["', reply, '"]}\n')


def knowledge(make: Maker, first: int, count: int, size: float) -> pa.Array:
    """Huatuo-26M, knowledge graph part: a question from a template and a list of names."""
    relation, head, asks = make.question(count)
    asked, reply = make.earlier.shared("short", line(head, asks), make.named(relation, size / 17, count, "，"))
    return line('{"questions": ["', asked, '"], "answers": ["', reply, '"]}\n')


def cmexam(make: Maker, first: int, count: int, size: float) -> pa.Array:
    """Training items: half with real stems, half asked of a graph; of the options all are drawn."""
    relation, head, asks = make.question(count)
    real = make.rng.random(count) < 0.5
    stems = make.pools["stem"].put_together(np.ones(count, np.int64), make.rng)
    question = pc.if_else(pa.array(real), stems, line(head, asks))
    groups = np.repeat(np.where(real, make.relations["option"], relation), 5)
    lettered = line(pa.array([f"{letter} " for letter in "ABCDE"] * count), make.tails.draw(groups, make.rng))
    options = joined(lettered, np.full(count, 5), "\n")
    answer = pa.array(list("ABCDE")).take(pa.array(make.rng.integers(5, size=count)))
    explanation = make.text("explanation", size, count)
    made = make.earlier.repeated("cmexam", line(question, ',"', options, '",', answer, ",", explanation, "\n"))
    leak = make.rng.random(count) < LEAKED
    items = make.items.take(pa.array(make.rng.integers(len(make.items), size=int(leak.sum()))))
    return pc.replace_with_mask(made, pa.array(leak), items)


def textbook(make: Maker, first: int, count: int, size: float) -> pa.Array:
    """Sections of textbooks: a heading and six paragraphs, one a line."""
    parts = make.text("prose", size / 6, 6 * count)
    number = pa.array(np.arange(first, first + count) % 90 + 1).cast(pa.string())
    title = make.head(make.rng.integers(len(make.heads), size=count))
    return line("第", number, "章 ", title, "\n", joined(parts, np.full(count, 6), "\n"), "\n")


def cpubmed(make: Maker, first: int, count: int, size: float) -> pa.Array:
    """CPubMed-KG: triples, ten in a row about one head."""
    head = make.head(np.arange(first, first + count) // 10)
    kind = make.rng.integers(len(_CPUBMED), size=count)
    upstream, types = (pa.array([row[place] for row in _CPUBMED]).take(pa.array(kind)) for place in (0, 1))
    tail = make.tails.draw(np.array([make.relations[name] for _, _, name in _CPUBMED])[kind], make.rng)
    return make.earlier.repeated("cpubmed-kg", line(head, "@@疾病\t", upstream, "\t", tail, "@@", types, "\n"))


def _lists(make: Maker, fields: _Fields, count: int, factor: float) -> list[pa.Array | str]:
    """The parts of JSON fields that hold lists of names."""
    parts: list[pa.Array | str] = []
    for name, relation, most in fields:
        parts += [f', "{name}": ["', make.named(relation, most * factor, count, '", "'), '"]']
    return parts


def xywy(make: Maker, first: int, count: int, size: float) -> pa.Array:
    """Xywy-KG: a disease a line, prose for most of its bytes."""
    parts: list[pa.Array | str] = ['{"name": "', make.head(np.arange(first, first + count)), '"']
    for name, kind, part in (("desc", "概述", 0.15), ("prevent", "预防", 0.35), ("cause", "病因", 0.5)):
        parts += [f', "{name}": "', make.text(kind, size * part, count), '"']
    return line(*parts, *_lists(make, _XYWY, count, 1), "}\n")


def health39(make: Maker, first: int, count: int, size: float) -> pa.Array:
    """39Health-KG: a disease a line, its values as lists."""
    parts: list[pa.Array | str] = ['{"name": "', make.head(np.arange(first, first + count)), '"']
    for name, relation in _WAYS:
        parts += [f', "{name}": "', make.named(relation, 1, count, ""), '"']
    return line(*parts, *_lists(make, _39, count, size / 330), "}\n")


def toyhom(make: Maker, first: int, count: int, size: float) -> pa.Array:
    """Chinese-medical-dialogue-data: department, title, ask, answer; as much of it reworded as in RAW."""
    kind = pa.array(make.rng.random(count) < make.reworded)
    replies = (make.text(pool, size / 1.5, count) for pool in ("reworded", "toyhom answer"))
    asked, reply = make.earlier.shared("medium", make.text("toyhom ask", size / 4, count), pc.if_else(kind, *replies))
    title = make.pools["toyhom ask"].put_together(np.ones(count, np.int64), make.rng)
    return line("内科,", title, ",", asked, ",", reply, "\n")


def cmd(make: Maker, first: int, count: int, size: float) -> pa.Array:
    """CMD: a short question and a short answer, in the columns of the source before."""
    asked, reply = make.earlier.shared(
        "short", make.text("cmd ask", size / 3, count), make.text("cmd answer", size / 1.5, count)
    )
    return line('{"question": "', asked, '", "answer": "', reply, '"}\n')


def meddialog(make: Maker, first: int, count: int, size: float) -> pa.Array:
    """Medical-Dialogue-System: text blocks with one round, of three in two rows; the others have more."""
    asked, reply = make.earlier.shared(
        "medium", make.text("patient", size / 3, count), make.text("doctor", size / 3, count)
    )
    more = make.rng.geometric(2 / 3, count) - 1
    total = int(more.sum())
    said = line(
        "病人：\n", make.text("patient", size / 3, total), "\n医生：\n", make.text("doctor", size / 3, total), "\n"
    )
    disease = make.heads.take(pa.array(make.rng.integers(len(make.heads), size=count)))
    form = line("Description\n疾病：", disease, "\n病情描述：", asked, "\n\nDialogue\n医生：\n", reply, "\n")
    made = make.earlier.repeated("meddialog", line(form, joined(said, more, ""), "\n"))
    number = pa.array(np.arange(first + 1, first + count + 1)).cast(pa.string())
    page = "\nhttps://www.haodf.com/wenda/"
    return line("id=", number, page, number, ".htm\nDoctor faculty\n第一人民医院  内科\n\n", made)


@dataclass(frozen=True, slots=True)
class Spec:
    """A source: where its files lie ("{}" is the number of the file), and the paper's rows and megabytes of it."""

    name: str
    path: str
    files: int
    rows: int
    megabytes: float
    make: Callable[[Maker, int, int, float], pa.Array]
    head: str = ""
    encoding: str = "utf-8"


SPECS = (
    Spec("huatuo26m", "encyclopedia/train_datasets.jsonl", 1, 362_000, 621, encyclopedia),
    Spec("huatuo26m", "knowledge_graph/train_datasets.jsonl", 1, 796_000, 151, knowledge),
    Spec("cmexam", "train.csv", 1, 61_000, 49, cmexam, "Question,Options,Answer,Explanation\n"),
    Spec("medqa", "textbooks/zh_paragraph/book{}.txt", 33, 8_000, 40, textbook),
    Spec("cpubmed-kg", "CPubMed-KGv2_0.txt", 1, 4_384_000, 268, cpubmed),
    Spec("xywy-kg", "medical.json", 1, 8_000, 42, xywy),
    Spec("39health-kg", "diseases.json", 1, 14_000, 8, health39),
    Spec("toyhom", "IM_{}.csv", 6, 800_000, 554, toyhom, "department,title,ask,answer\n", "gb18030"),
    Spec("meddialog", "20{}.txt", 11, 2_726_000, 1_500, meddialog),
    Spec("cmd", "train.jsonl", 1, 882_000, 200, cmd),
)


def batches(spec: Spec, make: Maker, gigabytes: float) -> Iterator[tuple[int, bytes, int]]:
    """(number of the file, the bytes of some rows for it, how many); the text grows or shrinks until sizes fit."""
    total = max(1, round(spec.rows * gigabytes / PAPER_GB))
    wanted = spec.megabytes * 1e6 / spec.rows * PAPER_GB * 1000 / PAPER_MB
    size = 0.7 * wanted
    most = max(64, int(BATCH / wanted))
    cuts = [total * place // spec.files for place in range(spec.files + 1)]
    for number in range(spec.files):
        for first in range(cuts[number], cuts[number + 1], most):
            count = min(most, cuts[number + 1] - first)
            data: bytes = joined(spec.make(make, first, count, size), np.array([count]), "")[0].as_buffer().to_pybytes()
            data = data if spec.encoding == "utf-8" else data.decode().encode(spec.encoding)
            size = max(12.0, size * wanted * count / len(data))
            yield number, data, count


def write(raw: Path, out: Path, gigabytes: float, seed: int = 0) -> Iterator[tuple[Spec, int, int]]:
    """Write all sources; (source, its rows, its bytes) as each is done."""
    for name in EVALUATION:
        shutil.copytree(raw / name, out / name, dirs_exist_ok=True)
    make = Maker(harvest(raw), seed)
    for spec in SPECS:
        made = written = 0
        for number in range(spec.files):
            path = out / spec.name / spec.path.format(number + 10)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(spec.head, spec.encoding)
        for number, data, count in batches(spec, make, gigabytes):
            with (out / spec.name / spec.path.format(number + 10)).open("ab") as file:
                file.write(data)
            made, written = made + count, written + len(data)
        yield spec, made, written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--gigabytes", type=float, default=PAPER_GB)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began, rows, size = time.perf_counter(), 0, 0
    for spec, made, written in write(args.raw, args.out, args.gigabytes, args.seed):
        print(f"{spec.name:12} {made:10,} rows {written / 1e6:9.1f} MB  {spec.path}", flush=True)
        rows, size = rows + made, size + written
    seconds = time.perf_counter() - began
    print(f"{'all':12} {rows:10,} rows {size / 1e6:9.1f} MB  in {seconds:.1f} s, {size / 1e6 / seconds:.0f} MB/s")


if __name__ == "__main__":
    main()
