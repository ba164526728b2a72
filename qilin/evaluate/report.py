"""The scores of an evaluation as tables in Markdown and HTML, beside the published ones."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

Row = tuple[str, ...]
Table = tuple[str, Row, list[Row]]

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
_GROUPS = ("answers", "department", "discipline", "competency", "difficulty")
_STYLE = "body{font:16px/1.5 sans-serif;margin:2em auto;max-width:70em}table{border-collapse:collapse;margin:1em 0}"
_STYLE += "th,td{border:1px solid #bbb;padding:.2em .6em;text-align:left}"


def markdown(result: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    parts = [f"# {_name(result)}"]
    for title, head, rows in _tables(result):
        parts += [f"## {title}", "\n".join(map(_line, [head, ("---",) * len(head), *rows]))]
    return "\n\n".join([*parts, *_notes(result)]) + "\n"


def html(result: Mapping[str, Any]) -> str:
    """The report as one HTML page without scripts or outside files."""
    parts = [f"<h1>{escape(_name(result))}</h1>"]
    for title, head, rows in _tables(result):
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
        names = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        parts.append(f"<h2>{escape(title)}</h2>\n<table>\n<tr>{names}</tr>\n{body}</table>")
    parts += [f"<p>{escape(note)}</p>" for note in _notes(result)]
    top = f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(_name(result))}</title>'
    return f"{top}<style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</html>\n"


def _tables(result: Mapping[str, Any]) -> Iterator[Table]:
    for name, arms in result.get("exam", {}).items():
        yield _exam(_name(result), name, arms)
        yield from _groups(name, arms)
    for name, own in result.get("arms", {}).items():
        if own:
            yield _arms(name, own)
    for name, own in result.get("permutations", {}).items():
        if own:
            yield _permutations(name, own)
    for name, arms in result.get("open", {}).items():
        yield _open(_name(result), name, arms)


def _exam(who: str, name: str, arms: Mapping[str, Any]) -> Table:
    head = ("answerer", "arm", "method", "n", "accuracy % (95 %)", "weighted F1 %", "chance %", "failures", "source")
    rows: list[Row] = []
    for arm, methods in arms.items():
        for method, scores in methods.items():
            figures = _share(scores["accuracy"]), f"{100 * scores['f1']:.1f}", f"{100 * scores['chance']:.1f}"
            rows.append((who, arm, method, str(scores["n"]), *figures, _failures(scores), "measured"))
    if name.startswith("cmexam/"):
        rows += [(who, "", "", str(EXAM_N), f"{value}", "", "", "", PUBLISHED) for who, value in EXAM]
    return f"Exam: {name}", head, rows


def _groups(name: str, arms: Mapping[str, Any]) -> Iterator[Table]:
    for group in _GROUPS:
        columns = [
            (f"{arm}, {method}", scores["groups"][group])
            for arm, methods in arms.items()
            for method, scores in methods.items()
            if group in scores["groups"]
        ]
        if columns:
            values = columns[0][1]
            rows = [
                (value, str(values[value]["n"]), *(_share(shares[value]) for _, shares in columns)) for value in values
            ]
            yield f"{name} by {group}", (group, "n", *(title for title, _ in columns)), rows


def _arms(name: str, pairs: Mapping[str, Any]) -> Table:
    head = ("arms", "method", "n", "difference in points (95 %)", "only first right", "only second right", "McNemar p")
    rows: list[Row] = []
    for pair, methods in pairs.items():
        for method, found in methods.items():
            counts = str(found["only_second"]), str(found["only_first"])
            rows.append((pair, method, str(found["n"]), _share(found["difference"]), *counts, f"{found['p']:.2g}"))
    return f"Arms compared: {name}", head, rows


def _permutations(name: str, methods: Mapping[str, Any]) -> Table:
    head = ("method", "n", "same answer in every order % (95 %)", "accuracy % by order")
    rows: list[Row] = []
    for method, found in methods.items():
        agreement = found["agreement"]
        orders = ", ".join(f"{100 * own['value']:.1f}" for own in found["accuracy"])
        rows.append((method, *((str(agreement["n"]), _share(agreement)) if agreement else ("0", "")), orders))
    return f"Order of the options: {name}", head, rows


def _open(who: str, name: str, arms: Mapping[str, Any]) -> Table:
    metrics = ("bleu-1", "bleu-4", "rouge-1", "rouge-2", "rouge-l")
    head = ("answerer", "arm", "mode", "n", *metrics, "length ratio", "empty", "failures", "source")
    rows: list[Row] = []
    for arm, modes in arms.items():
        for mode, scores in modes.items():
            if mode not in ("failures", "reasons"):
                figures = (_figure(scores, metric) for metric in metrics)
                counts = f"{scores['length_ratio']:.2f}", str(scores["empty"]), _failures(modes)
                rows.append((who, arm, mode, str(scores["n"]), *figures, *counts, "measured"))
    if name.startswith("huatuo26m/"):
        rows += [
            (who, "", "not published", "", f"{bleu}", "", f"{rouge}", "", "", "", "", "", PUBLISHED)
            for who, bleu, rouge in OPEN
        ]
    return f"Open answers: {name}", head, rows


def _name(result: Mapping[str, Any]) -> str:
    answerer = result["answerer"]
    return str(answerer.get("path") or answerer.get("name") or f"baseline {answerer['baseline']}")


def _share(interval: Mapping[str, float]) -> str:
    value, low, high = (100 * interval[key] for key in ("value", "low", "high"))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def _figure(scores: Mapping[str, Any], metric: str) -> str:
    if metric not in scores["values"]:
        return ""
    value, interval = scores["values"][metric], scores["intervals"].get(metric)
    return f"{value:.2f}" + (f" ({interval['low']:.2f} to {interval['high']:.2f})" if interval else "")


def _failures(scores: Mapping[str, Any]) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in scores["reasons"].items())
    return f"{scores['failures']} ({reasons})" if reasons else str(scores["failures"])


def _notes(result: Mapping[str, Any]) -> Sequence[str]:
    notes = ["An answer counts as right when the whole set of letters is; failures stay in the denominator."]
    signatures = sorted(
        {
            f"{mode}: {scores['signature']}"
            for arms in result.get("open", {}).values()
            for modes in arms.values()
            for mode, scores in modes.items()
            if mode not in ("failures", "reasons")
        }
    )
    if result["shots"]:
        notes.append(f"Shots: {', '.join(result['shots'])}.")
    hashes = {
        "answerer": result["answerer"]["sha256"],
        "frame": result["frame_sha256"],
        "data": result["data"]["sha256"],
        "items": result["items_sha256"],
        "recipe": result["recipe_sha256"],
    }
    return [*notes, *signatures, "sha256: " + ", ".join(f"{name} {value[:16]}" for name, value in hashes.items()) + "."]


def _line(cells: Row) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
