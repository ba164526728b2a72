"""Plots as inline SVG, without a plotting library: bars, histograms and a matrix, coloured by classes of the page.

Lengths along the page are percentages and heights are pixels, so that a plot fills its place on a phone and on paper
with text that keeps its size. Every plot says in words what it shows.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import numpy.typing as npt

CELL = 34  # pixels of a matrix
MOST = 20  # bars of one plot
SIDE = 40  # names on a side of a matrix
# What would act on the text around it instead of being seen: controls, marks of direction, characters without a width.
_SIGNS = {
    **{code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)},
    0x7F: "␡",
    **{code: f"⟨U+{code:04X}⟩" for code in (*range(0x80, 0xA0), 0xAD, 0x61C, 0x180E, *range(0x200B, 0x2010))},
    **{
        code: f"⟨U+{code:04X}⟩"
        for code in (*range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFC))
    },
    **{code: f"⟨U+{code:04X}⟩" for code in (*range(0xD800, 0xE000), *range(0xE0000, 0xE0080))},
}


def visible(text: str, limit: int) -> str:
    """Data cut to `limit` characters, with controls and marks of direction made visible.

    >>> visible("\\x1b[1m高血压病\\u202e", 6)
    '␛[1m高血 … (9 characters)'
    """
    cut = text if len(text) <= limit else f"{text[:limit]} … ({len(text):,} characters)"
    return cut.translate(_SIGNS)


def shown(text: str, limit: int) -> str:
    """Data as text of a page: as `visible` gives it, HTML escaped.

    >>> shown("<b>高血压\\u202e", 100)
    '&lt;b&gt;高血压⟨U+202E⟩'
    """
    return escape(visible(text, limit))


def short(count: float) -> str:
    """A count in at most four characters.

    >>> short(987), short(1000), short(1234), short(56789), short(1_500_000)
    ('987', '1k', '1.2k', '57k', '1.5M')
    """
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            whole = count >= 9.95 * size or count % size == 0
            return f"{count / size:.{0 if whole else 1}f}{unit}"
    return f"{count:.0f}"


def percent(part: float, whole: float) -> str:
    """A share with one decimal, and no 0.0% of something.

    >>> percent(1, 3), percent(0, 3), percent(1, 10_000)
    ('33.3%', '0.0%', '&lt;0.1%')
    """
    share = 100 * part / max(whole, 1e-9)
    return escape("<0.1%" if 0 < share < 0.05 else f"{share:.1f}%")


def bar(parts: Sequence[tuple[str, float]], whole: float, label: str) -> str:
    """A bar of parts side by side, each (class, amount), as a share of `whole`.

    >>> bar([("kept", 30)], 40, "30 of 40").count("<rect")
    2
    """
    drawn, left = ['<rect class="ground" width="100%" height="100%" rx="2"/>'], 0.0
    for name, amount in parts:
        width = 100 * amount / max(whole, 1e-9)
        if width > 0:
            drawn.append(f'<rect class="{name}" x="{left:.3f}%" width="{max(width, 0.3):.3f}%" height="100%"/>')
            left += width
    return f'<svg class="bar" role="img" aria-label="{escape(label)}">{"".join(drawn)}</svg>'


def bars(counts: Mapping[str, int], head: tuple[str, str], notes: Mapping[str, str] | None = None) -> str:
    """A table of names, bars and counts: the `MOST` highest, then the sum of all others; notes stand below names."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    total, others = sum(counts.values()), ordered[MOST:]
    most = ordered[0][1] if ordered else 0
    lines = []
    for name, count in ordered[:MOST]:
        note = f"<small>{escape(notes[name])}</small>" if notes and name in notes else ""
        lines.append(_line(f"{shown(name, 80)}{note}", bar([("mark", count)], most, f"{count:,}"), count, total))
    if others:
        count = sum(count for _, count in others)
        lines.append(_line(f"{len(others)} others", "", count, total))
    columns = f"<th scope=col>{head[0]}</th><td></td><th scope=col>{head[1]}</th><th scope=col>share</th>"
    return f'<table class="bars"><thead><tr>{columns}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _line(name: str, drawn: str, count: int, total: int) -> str:
    cells = f'<td class="plot">{drawn}</td><td>{count:,}</td><td>{percent(count, total)}</td>'
    return f"<tr><th scope=row>{name}</th>{cells}</tr>"


def histogram(lengths: npt.NDArray[np.int32], label: str) -> str:
    """A histogram of lengths on a logarithmic axis, with the median and the 90th percentile.

    >>> histogram(np.array([10, 20, 400], np.int32), "sft").count("<rect")
    30
    """
    low, high = max(int(lengths.min()), 1), max(int(lengths.max()), 2)
    first, last = math.floor(2 * math.log10(low)) / 2, math.ceil(2 * math.log10(high + 1)) / 2
    edges = np.logspace(first, last, 31)
    counts = np.histogram(np.clip(lengths, 1, None), edges)[0].tolist()
    top, drawn = max(*counts, 1), []
    for place, count in enumerate(counts):
        height = 116 * count / top
        told = f"{edges[place]:,.0f} to {edges[place + 1]:,.0f} characters: {count:,} rows"
        box = f'x="{place / 0.3:.2f}%" y="{140 - height:.1f}" width="3.1%" height="{height:.1f}"'
        drawn.append(f'<rect class="mark" {box}><title>{told}</title></rect>')
    for power in range(math.ceil(first), math.floor(last) + 1):
        drawn.append(_tick(100 * (power - first) / (last - first), short(10.0**power)))
    half, ninth = np.percentile(lengths, (50, 90)).tolist()
    for value, name, y in ((half, "p50", 11), (ninth, "p90", 23)):
        x = 100 * (math.log10(max(value, 1)) - first) / (last - first)
        drawn.append(_rule(x, f"{name} {value:,.0f}", y, before=x > 80 or (name == "p50" and x > 20)))
    drawn.append('<line class="axis" x1="0" x2="100%" y1="140" y2="140"/>')
    told = f"{label}: {len(lengths):,} rows, median {half:,.0f} characters, 90th percentile {ninth:,.0f}"
    return f'<svg class="histogram" role="img" aria-label="{escape(told)}">{"".join(drawn)}</svg>'


def _rule(x: float, label: str, y: int, *, before: bool) -> str:
    """A dashed line with a label before or behind it."""
    line = f'<line class="rule" x1="{x:.2f}%" x2="{x:.2f}%" y1="2" y2="140"/>'
    at = 'dx="-4" text-anchor="end"' if before else 'dx="4"'
    return f'{line}<text x="{x:.2f}%" y="{y}" {at}>{label}</text>'


def _tick(x: float, label: str) -> str:
    anchor = "start" if x < 3 else "end" if x > 97 else "middle"
    line = f'<line class="axis" x1="{x:.2f}%" x2="{x:.2f}%" y1="140" y2="144"/>'
    return f'{line}<text x="{x:.2f}%" y="156" text-anchor="{anchor}">{label}</text>'


def matrix(counts: Mapping[tuple[str, str], int], label: str) -> str:
    """A heat map of counts by (row, column), darker for more on a logarithmic scale.

    >>> matrix({("toyhom", "cmexam"): 7}, "repeats").count("<rect")
    1
    """
    rows, columns = _most(counts, 0)[:SIDE], _most(counts, 1)[:SIDE]
    left, top = 12 + max(map(_width, rows)), 20 + round(0.75 * max(map(_width, columns)))
    most, drawn = math.log1p(max(counts.values())), []
    for y, row in enumerate(rows):
        drawn.append(f'<text x="{left - 6}" y="{top + y * CELL + 21}" text-anchor="end">{shown(row, 60)}</text>')
        for x, column in enumerate(columns):
            count = counts.get((row, column), 0)
            told = f"{shown(row, 60)} × {shown(column, 60)}: {count:,}"
            drawn.append(_cell(left + x * CELL, top + y * CELL, count, math.log1p(count) / most, told))
    for x, column in enumerate(columns):
        at = f"{left + x * CELL + 18},{top - 6}"
        drawn.append(f'<text transform="translate({at}) rotate(-48)">{shown(column, 60)}</text>')
    overhang = max(x * CELL + 30 + round(0.67 * _width(column)) for x, column in enumerate(columns))
    width, height = left + max(overhang, len(columns) * CELL) + 4, top + len(rows) * CELL
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    plot = f'<svg class="matrix" role="img" aria-label="{escape(label)}" {size}>{"".join(drawn)}</svg>'
    left_out = len({name for name, _ in counts}) > SIDE or len({name for _, name in counts}) > SIDE
    note = f"<small>The {SIDE} with the most rows are shown.</small>" if left_out else ""
    return f'<div class="wide" tabindex="0">{plot}</div>{note}'


def _cell(x: int, y: int, count: int, heat: float, told: str) -> str:
    """A square with its count; `heat` from 0 to 1, `told` as HTML."""
    shade = 0.12 + 0.88 * heat
    fill = f'class="mark" fill-opacity="{shade:.2f}"' if count else 'class="ground"'
    size = f'width="{CELL - 2}" height="{CELL - 2}" rx="2"'
    square = f'<rect {fill} x="{x}" y="{y}" {size}><title>{told}</title></rect>'
    if not count:
        return square
    tone = "on" if shade > 0.7 else "off"
    return (
        f'{square}<text class="{tone}" x="{x + CELL // 2 - 1}" y="{y + 20}" text-anchor="middle">{short(count)}</text>'
    )


def _most(counts: Mapping[tuple[str, str], int], side: int) -> list[str]:
    """The names on one side, those with the most first."""
    totals: dict[str, int] = {}
    for names, count in counts.items():
        totals[names[side]] = totals.get(names[side], 0) + count
    return sorted(totals, key=lambda name: (-totals[name], name))


def _width(text: str) -> int:
    """Pixels that a label takes, roughly: Chinese characters are twice as wide."""
    return sum(26 if ord(c) > 0x2E7F else 15 for c in text[:60]) // 2
