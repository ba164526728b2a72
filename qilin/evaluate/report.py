"""The scores of an evaluation as tables, beside the published ones; and as one Markdown page."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qilin.evaluate.answers import MODES

Row = tuple[str, ...]

PUBLISHED = "published, not measured"
# Percent of answer sets matched exactly: Qilin-Med (arXiv 2310.09089) and, from random on, CMExam (arXiv 2306.03030).
EXAM = (
    ("Baichuan-7B", 33.5),
    ("Qilin-Med after CPT", 38.4),
    ("Qilin-Med after SFT", 40.0),
    ("Qilin-Med with RAG", 42.8),
    ("random", 3.1),
    ("BERT", 31.8),
    ("RoBERTa", 37.1),
    ("ChatGLM-6B", 26.3),
    ("ChatGLM-6B, tuned", 45.3),
    ("GPT-3.5", 46.4),
    ("GPT-4", 61.6),
    ("human", 71.6),
)
EXAM_N = 6811
# Qilin-Med on Huatuo-26M: BLEU-1 and ROUGE-1, by a scorer that was not published.
OPEN = (("Qilin-Med after SFT", 12.69, 24.21), ("Qilin-Med after DPO", 16.66, 27.44))
GROUPS = ("department", "answers", "discipline", "competency", "disease_group", "difficulty")
WARNING = "Not for clinical use: exam scores say nothing about whether advice to a patient is right or safe."


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts. note: how to read it. plot: the name of its picture. minor: whether a page may fold it."""

    title: str
    head: Row
    rows: Sequence[Row]
    note: str = ""
    plot: str = ""
    minor: bool = False


def markdown(result: Mapping[str, Any], plots: Collection[str] = ()) -> str:
    """The report as Markdown; `plots` are the pictures that lie beside it."""
    shown = page(name(result), tables(result), plots)
    return "\n\n".join([shown, "## Where these figures come from", *map(_cell, notes(result))]) + "\n"


def page(title: str, tables: Iterable[Table], plots: Collection[str] = ()) -> str:
    """Tables under a title and the warning, as Markdown."""
    parts = [f"# {_cell(title)}", f"**{WARNING}**"]
    for table in tables:
        parts += [f"## {_cell(table.title)}", *([table.note] if table.note else [])]
        if table.plot in plots:
            parts.append(f"![{_cell(table.title)}]({table.plot})")
        parts.append("\n".join(map(_line, [table.head, ("---",) * len(table.head), *table.rows])))
    return "\n\n".join(parts)


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    """The tables of a report, set by set: accuracy, arms, what passages were worth, groups, orders; open answers."""
    who = name(result)
    grounded = result.get("passages", {})
    for set_, arms in result.get("exam", {}).items():
        yield _exam(who, set_, arms)
        if own := result.get("arms", {}).get(set_):
            yield _arms(set_, own)
        if own := grounded.get("exam", {}).get(set_):
            yield _hits(set_, own)
            yield _citations(set_, own)
        yield from _groups(set_, arms)
        if own := result.get("permutations", {}).get(set_):
            yield _permutations(set_, own)
        if own := {arm: methods["generation"] for arm, methods in arms.items() if "generation" in methods}:
            yield _official(set_, own)
    for set_, arms in result.get("open", {}).items():
        yield _open(who, set_, arms)
        if own := grounded.get("open", {}).get(set_):
            yield _citations(set_, own)
    if own := result.get("texts"):
        yield _texts(own)


def name(result: Mapping[str, Any]) -> str:
    """Who answered."""
    answerer = result["answerer"]
    return str(answerer.get("path") or answerer.get("name") or f"baseline {answerer['baseline']}")


def slug(set_: str) -> str:
    """A set's name as part of a file's.

    >>> slug("cmexam/test")
    'cmexam-test'
    """
    return re.sub(r"[^\w.-]", "-", set_)


def share(interval: Mapping[str, float] | None) -> str:
    """A fraction and its interval in percent; a dash where there was nothing to count."""
    if interval is None:
        return "–"
    value, low, high = (100 * interval[key] for key in ("value", "low", "high"))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def between(interval: Mapping[str, float], form: str = ".3f") -> str:
    """A figure and its interval."""
    value, low, high = (format(interval[key], form) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def notes(result: Mapping[str, Any]) -> Sequence[str]:
    """What the figures come from: shots, signatures, versions and hashes."""
    signatures = sorted(
        {
            f"{mode}: {scores['signature']}"
            for arms in result.get("open", {}).values()
            for modes in arms.values()
            for mode, scores in modes.items()
            if mode in MODES
        }
    )
    shots = [f"Shots: {', '.join(result['shots'])}."] if result["shots"] else []
    hashes = {
        "answerer": result["answerer"]["sha256"],
        "frame": result["frame_sha256"],
        "data": result["data"]["sha256"],
        "items": result["items_sha256"],
        "recipe": result["recipe_sha256"],
    }
    if result.get("index"):
        hashes["index"] = result["index"]["sha256"]
    versions = ", ".join(f"{tool} {number}" for tool, number in result["versions"].items())
    digests = ", ".join(f"{what} {value[:16]}" for what, value in hashes.items())
    return [*shots, *signatures, f"Versions: {versions}.", f"sha256: {digests}."]


def _texts(sets: Mapping[str, Any]) -> Table:
    rows = [
        (name, f"{one['n']:,}", f"{one['tokens']:,}", between(one["bits_per_byte"]), f"{one['perplexity']:.2f}")
        for name, one in sets.items()
    ]
    note = (
        "How well the model predicts passages that no stage trained on; less is better. Bits a byte compare between "
        "tokenizers, perplexity a token does not. Intervals: bootstrap over passages."
    )
    return Table("Held-out text", ("text", "passages", "tokens", "bits a byte (95 %)", "perplexity"), rows, note)


def _exam(who: str, set_: str, arms: Mapping[str, Any]) -> Table:
    head = (
        "answerer",
        "arm",
        "method",
        "accuracy % (95 %)",
        "n",
        "weighted F1 %",
        "chance %",
        "failures",
        "cut off",
        "source",
    )
    rows: list[Row] = []
    every = [scores for methods in arms.values() for scores in methods.values()]
    for arm, methods in arms.items():
        for method, scores in methods.items():
            figures = f"{100 * scores['f1']:.1f}", f"{100 * scores['chance']:.1f}", _failures(scores), _cut(scores)
            rows.append((who, arm, method, share(scores["accuracy"]), str(scores["n"]), *figures, "measured"))
    if set_.startswith("cmexam/"):
        rows += [(who, "", "", f"{value}", str(EXAM_N), "", "", "", "", PUBLISHED) for who, value in EXAM]
    note = (
        "An answer counts as right when the whole set of letters is. Failures stay in the denominator; replies that "
        f"are cut off had no room to end. Two answerers on these {every[0]['n']:,} items must differ by "
        f"{100 * max(one['detectable'] for one in every):.1f} points for a test at the 5 % level to see it four times "
        "in five; by less where they agree more than by chance."
    )
    return Table(f"Exam: {set_}", head, rows, note)


def _groups(set_: str, arms: Mapping[str, Any]) -> Iterator[Table]:
    for group in GROUPS:
        columns = [
            (f"{arm}, {method}", scores["groups"][group])
            for arm, methods in arms.items()
            for method, scores in methods.items()
            if group in scores["groups"]
        ]
        if columns:
            first = columns[0][1]
            values = sorted(first, key=lambda value: (-first[value]["n"], value)) if group != "answers" else first
            rows = [
                (value, str(first[value]["n"]), *(share(shares[value]) for _, shares in columns)) for value in values
            ]
            label = {"answers": "number of right answers", "disease_group": "disease group"}.get(group, group)
            plot = f"departments-{slug(set_)}.png" if group == "department" else ""
            head = (label, "n", *(title for title, _ in columns))
            yield Table(f"{set_}: accuracy by {label}", head, rows, "Percent, with 95 % intervals.", plot, not plot)


def _arms(set_: str, pairs: Mapping[str, Any]) -> Table:
    head = ("arms", "method", "n", "difference in points (95 %)", "gained", "lost", "McNemar p")
    rows: list[Row] = []
    for pair, methods in pairs.items():
        for method, found in methods.items():
            counts = str(found["only_second"]), str(found["only_first"])
            rows.append((pair, method, str(found["n"]), share(found["difference"]), *counts, p_value(found["p"])))
    note = (
        "The same items in both arms; gained: right in the first of the two alone; lost: in the second alone. Exact "
        "McNemar test, two-sided, not corrected for the number of pairs."
    )
    return Table(f"{set_}: arms compared", head, rows, note, f"arms-{slug(set_)}.png")


def p_value(p: float) -> str:
    """A p value as it is read.

    >>> p_value(0.04321), p_value(1e-9)
    ('0.043', '< 0.0001')
    """
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def _hits(set_: str, arms: Mapping[str, Any]) -> Table:
    head = (
        "arm",
        "method",
        "items with passages",
        "part",
        "n",
        "share of items %",
        "accuracy % (95 %)",
        "closed book there %",
    )
    rows: list[Row] = []
    for arm, found in arms.items():
        for method, parts in found["accuracy"].items():
            for part, own in parts.items():
                n = own["accuracy"]["n"] if own else 0
                accuracy = share(own["accuracy"]) if own else "–"
                closed = share(own["closed"]) if own else "–"
                part_share = f"{100 * n / found['n']:.1f}"
                rows.append((arm, method, str(found["shown"]), part, str(n), part_share, accuracy, closed))
    note = (
        "A hit is an item where one passage that was shown holds the text of every right option (folded: case, width, "
        "script and punctuation do not count; options under two characters never count). It need not answer the "
        "question, and items that are hits may be easier: the closed book on the same items shows by how much."
    )
    return Table(f"{set_}: accuracy given hit and given miss", head, rows, note)


def _citations(set_: str, arms: Mapping[str, Any]) -> Table:
    head = ("arm", "replies with passages", "cite a passage % (95 %)", "cite an unknown number % (95 %)")
    rows = [(arm, str(own["replies"]), share(own["cited"]), share(own["unknown"])) for arm, own in arms.items()]
    note = (
        "Citations in generated replies, checked against the passages that were shown. An exam asks for letters alone: "
        "few replies to it cite."
    )
    return Table(f"{set_}: citations", head, rows, note)


def _permutations(set_: str, methods: Mapping[str, Any]) -> Table:
    head = ("method", "n", "same answer in every order % (95 %)", "accuracy % by order")
    rows: list[Row] = []
    for method, found in methods.items():
        agreement = found["agreement"]
        orders = ", ".join(f"{100 * one['value']:.1f}" for one in found["accuracy"])
        rows.append((method, str(agreement["n"]) if agreement else "0", share(agreement), orders))
    return Table(f"{set_}: order of the options", head, rows, minor=True)


def _official(set_: str, arms: Mapping[str, Any]) -> Table:
    head = ("arm", "script", "n it counts", "failures", "accuracy %", "precision %", "recall %", "F1 %")
    rows: list[Row] = []
    for arm, scores in arms.items():
        for own in scores["official"]:
            figures = (own[key] for key in ("accuracy", "precision", "recall", "f1"))
            shown = ("–" if figure is None else f"{100 * figure:.1f}" for figure in figures)
            rows.append((arm, own["script"], str(own["n"]), str(own["failures"]), *shown))
    note = (
        "What two scripts of the CMExam release print for the same replies, their faults included: for comparison with "
        "figures made by them, not to be believed."
    )
    return Table(f"{set_}: the official scripts", head, rows, note, minor=True)


def _open(who: str, set_: str, arms: Mapping[str, Any]) -> Table:
    metrics = ("bleu-1", "bleu-4", "rouge-1", "rouge-2", "rouge-l")
    head = ("answerer", "arm", "mode", "n", *metrics, "length ratio", "empty", "failures", "cut off", "source")
    rows: list[Row] = []
    for arm, modes in arms.items():
        for mode, scores in modes.items():
            if mode in MODES:
                figures = (figure(scores, metric) for metric in metrics)
                counts = f"{scores['length_ratio']:.2f}", str(scores["empty"]), _failures(modes), _cut(modes)
                rows.append((who, arm, mode, str(scores["n"]), *figures, *counts, "measured"))
    if set_.startswith("huatuo26m/"):
        rows += [
            (who, "", "not published", "", f"{bleu}", "", f"{rouge}", "", "", "", "", "", "", PUBLISHED)
            for who, bleu, rouge in OPEN
        ]
    note = "Figures of different modes cannot be compared, and longer replies score higher: look at the length ratio."
    return Table(f"Open answers: {set_}", head, rows, note)


def figure(scores: Mapping[str, Any], metric: str) -> str:
    """A score of replies with its interval; empty where the mode does not know the metric."""
    if metric not in scores["values"]:
        return ""
    value, interval = scores["values"][metric], scores["intervals"].get(metric)
    return f"{value:.2f}" + (f" ({interval['low']:.2f} to {interval['high']:.2f})" if interval else "")


def _failures(scores: Mapping[str, Any]) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in scores["reasons"].items())
    return f"{scores['failures']} ({reasons})" if reasons else str(scores["failures"])


def _cut(scores: Mapping[str, Any]) -> str:
    """How many replies had no room to come to their end."""
    return str(scores.get("cut", ""))


def _line(cells: Row) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    """A text on one line of Markdown in which nothing is a mark of a table or of HTML."""
    return " ".join(text.split()).replace("|", "/").replace("<", "&lt;")
