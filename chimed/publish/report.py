"""The report of a build: one HTML page that opens anywhere, with plots and a searchable sample of rows.

The page loads nothing: style, script and plots stand in it, and its content policy names the two by their sha256, so
that no markup inside a row could run even if it were taken for markup. Rows are escaped, cut and made visible first.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import pyarrow.compute as pc

from chimed.ledger import VERDICTS
from chimed.publish import statistics
from chimed.publish.examples import Example, examples
from chimed.publish.figures import bar, bars, histogram, matrix, percent, shown
from chimed.publish.finished import Finished
from chimed.publish.statistics import Tally
from chimed.reasons import meaning

TEXT = 700  # characters of a text that are shown
_HERE = Path(__file__).parent
_GRAPH = r"(?s)^[^/]*/graph#[^#]*#(?P<relation>[^#]+)"


def report(out: Path) -> Path:
    """Write OUT/report.html from the ledger and the stages of a build; the path of the page.

    The page is the same for the same build, below 5 MB whatever the size of the build. Raises BuildError when `out`
    holds no finished build.
    """
    found = statistics.stages(out)
    tally = statistics.tally(out / "ledger.parquet")
    rows = examples(out, found)
    sections = [
        ("sources", "From raw rows to the corpus", _funnel(tally)),
        ("reasons", "Why rows were rejected", _reasons(tally)),
        ("repeats", "Duplicates across sources", _repeats(tally)),
        ("leakage", "Leakage by evaluation set", _leakage(tally)),
        ("lengths", "Lengths of rows", _histograms(found)),
        ("pairs", "Preference pairs", _pairs(found["dpo"].manifest.get("pairs", {}) if "dpo" in found else {})),
        ("relations", "Relations of facts", _distribution(_relations(found), "relation", "questions")),
        ("departments", "Departments", _departments(found)),
    ]
    told = [(name, title, body) for name, title, body in sections if body]
    style, script = ((_HERE / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    page = Template((_HERE / "report.html").read_text(encoding="utf-8")).substitute(
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        summary=_summary(tally, found),
        links="".join(f'<a href="#{name}">{title}</a>' for name, title, _ in [*told, ("rows", "Rows", "")]),
        sections="\n".join(f'<section id="{name}"><h2>{title}</h2>{body}</section>' for name, title, body in told),
        verdicts=_options(verdict for verdict in VERDICTS if any(row.verdict == verdict for row in rows)),
        sources=_options(sorted({row.source for row in rows})),
        cards="\n".join(map(_card, rows)),
    )
    path = out / "report.html"
    partial = path.with_name("report.html.partial")
    partial.write_text(page, encoding="utf-8")
    partial.rename(path)
    return path


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _options(values: Iterable[str]) -> str:
    return "".join(f'<option value="{escape(value)}">{shown(value, 80)}</option>' for value in values)


def _by_source(tally: Tally) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for (source, verdict, _), count in tally.verdicts.items():
        counts.setdefault(source, Counter())[verdict] += count
    return counts


def _summary(tally: Tally, found: Mapping[str, Finished]) -> str:
    total = sum(_by_source(tally).values(), Counter())
    read = total.total()
    tiles = [("rows read", read, "")]
    tiles += [(verdict, total[verdict], f" ({percent(total[verdict], read)})") for verdict in VERDICTS]
    stages = [
        (f"{stage}: {', '.join(own.manifest['rows'])}", sum(own.manifest["rows"].values()), "")
        for stage, own in found.items()
    ]
    listed = "".join(f"<li><b>{count:,}</b>{escape(name)}{share}</li>" for name, count, share in tiles)
    built = "".join(f"<li><b>{count:,}</b>{escape(name)}{share}</li>" for name, count, share in stages)
    first = next(iter(found.values())).manifest
    recipe = f"recipe {first['recipe_digest'][:12]}, seed {first['recipe']['seed']}, near-copies from Jaccard "
    made = (
        f"<p><small>{escape(recipe)}{first['recipe']['near']}; chimed {escape(first['versions']['chimed'])}</small></p>"
    )
    return f'<ul class="tiles">{listed}</ul><ul class="tiles">{built}</ul>{made}'


def _funnel(tally: Tally) -> str:
    counts = _by_source(tally)
    legend = "".join(
        f'<li><svg aria-hidden="true"><rect class="{verdict}" width="12" height="12" rx="2"/></svg>{verdict}</li>'
        for verdict in VERDICTS
    )
    head = "".join(
        f"<th scope=col{more}>{name}</th>"
        for name, more in [
            ("read", ""),
            ("", ""),
            ("kept", ""),
            *((v, ' class="more"') for v in VERDICTS[1:]),
            ("share kept", ""),
        ]
    )
    total = sum(counts.values(), Counter())
    lines = [_funnel_row(source, own, "") for source, own in counts.items()] + [_funnel_row("all", total, "all")]
    told = "Every unit of the raw files, by what became of it: each bar is one source, as a whole."
    body = f"<thead><tr><th scope=col>source</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<p>{told}</p><ul class="legend">{legend}</ul><table class="funnel">{body}</table>'


def _funnel_row(source: str, own: Counter[str], kind: str) -> str:
    read = own.total()
    label = ", ".join(f"{verdict} {own[verdict]:,}" for verdict in VERDICTS)
    drawn = bar([(verdict, own[verdict]) for verdict in VERDICTS], read, label)
    others = "".join(f'<td class="more">{own[verdict]:,}</td>' for verdict in VERDICTS[1:])
    cells = f'<td>{read:,}</td><td class="plot">{drawn}</td><td>{own["kept"]:,}</td>{others}'
    return f'<tr class="{kind}"><th scope=row>{shown(source, 60)}</th>{cells}<td>{percent(own["kept"], read)}</td></tr>'


def _reasons(tally: Tally) -> str:
    counts: Counter[str] = Counter()
    for (_, verdict, reason), count in tally.verdicts.items():
        if verdict == "rejected":
            counts[reason] += count
    return bars(counts, ("reason", "rows"), {reason: meaning(reason) for reason in counts}) if counts else ""


def _repeats(tally: Tally) -> str:
    if not tally.repeats:
        return ""
    told = "Rows that were left out, by the source they came from (down) and the source of the row that stays (across)."
    return f"<p>{told}</p>{matrix(tally.repeats, 'Repeated rows by source and source of the kept row')}"


def _leakage(tally: Tally) -> str:
    if not tally.leaks:
        return ""
    sources: Counter[tuple[str, str]] = Counter()
    files: Counter[str] = Counter()
    for (name, source), count in tally.leaks.items():
        sources[name.partition("/")[0], source] += count
        files[name] += count
    told = "Rows that overlap an evaluation item, so that they must not train: by set (down) and source (across)."
    heat = matrix(sources, "Leaked rows by evaluation set and source")
    return f"<p>{told}</p>{heat}{bars(files, ('evaluation file', 'rows'))}"


def _histograms(found: Mapping[str, Finished]) -> str:
    figures = []
    for stage, own_stage in found.items():
        own = statistics.lengths(own_stage).characters
        tokens = own_stage.manifest.get("size", {}).get("tokens")
        counted = f", {tokens:,} tokens" if tokens is not None else ""
        told = f"{stage} <small>{len(own):,} rows, {own.sum(dtype='int64'):,} characters{counted}</small>"
        figures.append(f"<figure><h3>{told}</h3>{histogram(own, stage)}</figure>")
    told = (
        "Characters of a row with all its turns and options, on a logarithmic axis; the height is the number of rows."
    )
    return f'<p>{told}</p><div class="grid">{"".join(figures)}</div>'


def _pairs(pairs: Mapping[str, dict[str, Any]]) -> str:
    if not pairs:
        return ""
    lines = []
    for kind, own in pairs.items():
        ratios = [f"{value:.2f}" if value is not None else "" for value in (own["ratio"], own["ratio_kept"])]
        drawn = bar([("kept", own["kept"])], own["made"], f"kept {own['kept']:,} of {own['made']:,}")
        cells = f'<td>{own["made"]:,}</td><td class="plot">{drawn}</td><td>{own["kept"]:,}</td>'
        lines.append(
            f"<tr><th scope=row>{shown(kind, 60)}</th>{cells}{''.join(f'<td>{ratio}</td>' for ratio in ratios)}</tr>"
        )
    names = ("kind", "made", "", "kept", "ratio made", "ratio kept")
    head = "".join(f"<th scope=col>{name}</th>" for name in names)
    told = (
        "Ratio: median length of the chosen over that of the rejected reply. At 1, length says nothing about quality."
    )
    return f'<p>{told}</p><table class="ratios"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _distribution(counts: Mapping[str, int], name: str, unit: str) -> str:
    return bars(counts, (name, unit)) if counts else ""


def _relations(found: Mapping[str, Finished]) -> Counter[str]:
    """Questions made from facts by relation, of the stage sft."""
    counts: Counter[str] = Counter()
    for _, batch in statistics.batches(found["sft"]) if "sft" in found else ():
        matched = pc.struct_field(pc.extract_regex(batch["id"], _GRAPH), "relation")
        for value in pc.value_counts(matched.drop_null()).to_pylist():
            counts[value["values"]] += value["counts"]
    return counts


def _departments(found: Mapping[str, Finished]) -> str:
    """Conversations to train on and evaluation items by department, where their source names one."""
    figures = []
    for stage in ("sft", "eval"):
        counts = found[stage].manifest.get("departments", {}) if stage in found else {}
        if counts:
            told = f"{stage} <small>{sum(counts.values()):,} rows whose source names a department</small>"
            figures.append(f"<figure><h3>{told}</h3>{bars(counts, ('department', 'rows'))}</figure>")
    return f'<div class="grid">{"".join(figures)}</div>' if figures else ""


def _card(row: Example) -> str:
    """A row of the sample, with its other row beside it."""
    reason = " ".join(value for value in (row.stage, row.reason, row.detail) if value)
    told = meaning(row.reason) if row.verdict == "rejected" and row.reason else ""
    head = f"<h3>{row.verdict}<small>{shown(reason, 200)}</small></h3>" + (
        f"<small>{escape(told)}</small>" if told else ""
    )
    none = "no row could be read here" if row.verdict == "rejected" else "text not kept"
    first, second = (shown(text, TEXT) if text is not None else None for text in (row.text, row.other))
    if row.verdict == "repeated" and row.text and row.other:
        first, second = _marked(row.text, row.other), _marked(row.other, row.text)
    body = _side("row", row.id, first, none)
    if row.by:
        body += _side(
            "the row that stays" if row.verdict == "repeated" else "the evaluation item", row.by, second, none
        )
    data = f'class="is-{row.verdict}" data-verdict="{row.verdict}" data-source="{escape(row.source)}"'
    return f'<article {data}>{head}<div class="pair">{body}</div></article>'


def _side(what: str, name: str, told: str | None, none: str) -> str:
    """One of the rows of a card; `told` is HTML, or None where there is no text: then `none` says why."""
    text = f'<div class="text" dir="auto">{told}</div>' if told is not None else f'<div class="none">{none}</div>'
    return f'<div><div class="name">{what}: <bdi>{shown(name, 200)}</bdi></div>{text}</div>'


def _marked(text: str, other: str) -> str:
    """A text as HTML, with a mark around what the other has not.

    >>> _marked("一天两次<", "一天三次<")
    '一天<mark>两</mark>次&lt;'
    """
    parts = SequenceMatcher(None, text[:TEXT], other[:TEXT], autojunk=False).get_opcodes()
    told = [
        shown(text[start:stop], TEXT) if tag == "equal" else f"<mark>{shown(text[start:stop], TEXT)}</mark>"
        for tag, start, stop, _, _ in parts
        if start < stop
    ]
    return "".join(told) + (f" … ({len(text):,} characters)" if len(text) > TEXT else "")
