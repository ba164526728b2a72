"""How well a classifier that sees only the answers tells chosen from rejected: 50 % means that nothing gives it away.

    python benchmarks/preference_giveaway.py RAW

RAW holds raw files as RAW/cmexam/val.xlsx, RAW/explaincpe/train.json, RAW/medicalgpt/…; they go through the project's
own readers, parsers, cleaning and verdicts. The classifier is a logistic regression over character 1- to 4-grams
(tf-idf), trained on four fifths of the pairs and scored on the rest, five times over; pairs on the same options or the
same question are never on both sides. `pair` is the share of pairs whose chosen text scores higher, `text` the share of
single texts on the right side of 0, `longer` what the rule "the longer one was chosen" gets, `ratio` the median of the
lengths, chosen by rejected. `balanced` pairs are those that `chimed.preferences.balanced` keeps.
"""

import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from chimed import text
from chimed.dedup import exact_keys
from chimed.errors import RowError
from chimed.preferences import balanced, exam_pairs, ratio
from chimed.quality import verdicts
from chimed.records import Record, map_texts, shape_of, to_table
from chimed.sources import cmexam, explaincpe, medicalgpt
from chimed.sources.readers import find, rows, slices
from chimed.sources.spec import Source
from chimed.stages import render

FILES = (
    (cmexam.SOURCE, "val.xlsx"),
    (explaincpe.SOURCE, "train.json"),
    (medicalgpt.SOURCE, "test.json"),
    (medicalgpt.SOURCE, "dpo_zh_500.jsonl"),
)
FOLDS = 5
_OPTION = re.compile(r"^[A-J]\. (.*)$", re.MULTILINE)


class Giveaway(NamedTuple):
    """What gives the chosen answer away, as shares of pairs or texts that are told right."""

    pairs: int
    pair: float
    text: float
    longer: float
    ratio: float


def kept(raw: Path, source: Source, file: str) -> tuple[str, pa.Table]:
    """The shape and the kept rows of one raw file."""
    records = []
    for found in find(source, raw)[0]:
        parts = slices(source, found) if found.name.endswith(file) else []
        for number, row in (numbered for part in parts for numbered in rows(source, part)):
            try:
                if isinstance(row, RowError):
                    raise row
                bodies = source.parse(row)
            except RowError:
                continue
            records += [Record(source.name, f"{found.name}#{number}", "train", body) for body in bodies]
    shape = shape_of(records[0].body)
    table = map_texts(shape, to_table(shape, records), text.clean)
    return shape, table.filter(pc.is_null(verdicts(shape, table)))


def pairs_of(raw: Path, source: Source, file: str) -> pa.Table:
    """The preference pairs of one raw file: made from its exam items, or those it gives."""
    shape, table = kept(raw, source, file)
    return exam_pairs(table) if shape == "exam" else render("dpo", shape, table)


def contents(column: pa.ChunkedArray) -> list[str]:
    return ["\n".join(turn["content"] for turn in turns) for turns in column.to_pylist()]


def lengths(pairs: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    chosen, rejected = (np.array([len(t) for t in contents(pairs[name])]) for name in ("chosen", "rejected"))
    return chosen, rejected


def selected(pairs: pa.Table) -> pa.Table:
    """The pairs that balancing by length keeps."""
    return pairs.filter(pa.array(balanced(*lengths(pairs), exact_keys(pairs["id"].combine_chunks())[:, 0])))


def giveaway(pairs: pa.Table) -> Giveaway:
    """How well the answers alone tell chosen from rejected, on pairs that the classifier has not seen."""
    chosen, rejected = (np.array(contents(pairs[name]), object) for name in ("chosen", "rejected"))
    asked = contents(pairs["prompt"])
    groups = np.unique(["\n".join(sorted(_OPTION.findall(prompt))) or prompt for prompt in asked], return_inverse=True)
    right: list[Any] = []
    single: list[Any] = []
    for train, test in GroupKFold(FOLDS).split(chosen, groups=groups[1]):
        grams = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), min_df=2, sublinear_tf=True)
        seen = grams.fit_transform([*chosen[train], *rejected[train]])
        model = LogisticRegression(solver="liblinear").fit(seen, np.repeat([1, 0], len(train)))
        good, bad = (model.decision_function(grams.transform(texts[test])) for texts in (chosen, rejected))
        right += [*((good > bad) + 0.5 * (good == bad))]
        single += [*(good > 0), *(bad <= 0)]
    longer, shorter = lengths(pairs)
    told = np.mean((longer > shorter) + 0.5 * (longer == shorter))
    return Giveaway(len(pairs), float(np.mean(right)), float(np.mean(single)), float(told), ratio(longer, shorter))


def main() -> None:
    raw = Path(sys.argv[1])
    print(f"{'':38} {'pairs':>6} {'pair':>6} {'text':>6} {'longer':>6} {'ratio':>6}")
    for source, file in FILES:
        pairs = pairs_of(raw, source, file)
        for label, these in (("", pairs), (", balanced", selected(pairs))):
            found = giveaway(these)
            shares = " ".join(f"{share:6.1%}" for share in found[1:4])
            print(f"{f'{source.name}/{file}{label}':38} {found.pairs:6,} {shares} {found.ratio:6.2f}")


if __name__ == "__main__":
    main()
