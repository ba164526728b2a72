"""The plots of a card as PNG: the same bytes from the same build, whatever settings of matplotlib a user has."""

import io
import math
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from chimed.publish import statistics
from chimed.publish.figures import short
from chimed.publish.finished import Finished

_COLOURS = {"kept": "#2b6cb0", "repeated": "#e0a526", "leaked": "#a83279", "rejected": "#c2541a"}
_INK, _QUIET, _GROUND = "#1c1f23", "#5b636d", "#d9dde2"
_WIDTH = 8.0  # inches; at 150 dots an inch as wide as the Hub shows a card, twice as fine
_STYLE: dict[Any, Any] = {
    "figure.dpi": 150,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "text.color": _INK,
    "text.parse_math": False,  # a $ in a name is a $
    "axes.edgecolor": _QUIET,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "ytick.labelcolor": _INK,
}


def draw(found: Finished) -> dict[str, bytes]:
    """The plots of a stage by name: what became of its sources' units, and how long its rows are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        return {"plot-lengths.png": _lengths(found), "plot-sources.png": _sources(found.manifest)}


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=150, metadata={"Software": None})
    return data.getvalue()


def _name(source: str) -> str:
    """A source's name in letters that the font has."""
    plain = ascii(source)[1:-1]
    return plain if len(plain) <= 24 else f"{plain[:23]}…"


def _sources(manifest: dict[str, Any]) -> bytes:
    """A bar a source, as a whole, by what became of its units; beside it read, kept and rows of the stage."""
    counts = {
        name: {key: sum(own[key] for own in manifest["counts"][name].values()) for key in ("read", *_COLOURS)}
        for name in manifest["sources"]
    }
    names = sorted(counts, key=lambda name: (counts[name]["read"], name))
    figure = Figure(figsize=(_WIDTH, 1.15 + 0.27 * len(names)), layout="constrained")
    axes, beside = figure.subplots(1, 2, sharey=True, width_ratios=[2.1, 1])
    left = np.zeros(len(names))
    for verdict, colour in _COLOURS.items():
        share = np.array([counts[name][verdict] / max(counts[name]["read"], 1) for name in names])
        axes.barh(range(len(names)), share, left=left, height=0.68, color=colour, label=verdict)
        left += share
    axes.set_yticks(range(len(names)), [_name(name) for name in names])
    axes.set_ylim(-0.6, len(names) + 0.1)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("share of the units read")
    columns = [(0.3, "read"), (0.62, "kept"), (1.0, "rows here")]
    beside.set_axis_off()
    for x, title in columns:
        beside.text(x, len(names) - 0.35, title, ha="right", va="center", color=_QUIET)
    for y, name in enumerate(names):
        told = (counts[name]["read"], counts[name]["kept"], sum(manifest["sources"][name].values()))
        for (x, _), count in zip(columns, told, strict=True):
            beside.text(x, y, f"{count:,}", ha="right", va="center")
    axes.spines["left"].set_visible(False)
    figure.legend(loc="outside upper left", ncols=4, frameon=False, handlelength=1, handleheight=1)
    return _png(figure)


def _lengths(found: Finished) -> bytes:
    """A histogram of all rows over one line a source: its 10th to 90th percentile, and its median."""
    lengths = statistics.lengths(found)
    shown = np.clip(lengths.characters, 1, None)
    parts = np.split(shown[np.argsort(lengths.source, kind="stable")], np.cumsum(np.bincount(lengths.source))[:-1])
    spans = {name: np.percentile(own, (10, 50, 90)) for name, own in zip(lengths.sources, parts, strict=True)}
    heights = [1.9, 0.35 + 0.24 * len(spans)]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.75), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=heights)
    _histogram(above, shown)
    _spans(below, spans)
    below.set_xscale("log")
    if shown.max() < 300 * shown.min():
        below.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    below.xaxis.set_minor_locator(NullLocator())
    below.xaxis.set_major_formatter(FuncFormatter(lambda count, _: short(count)))
    below.set_xlabel("characters of a row; of each source the median, and the 10th to 90th percentile")
    return _png(figure)


def _histogram(axes: Axes, lengths: npt.NDArray[np.int32]) -> None:
    """Rows by length in 40 steps of equal ratio, with the median and the 90th percentile."""
    low, high = math.log10(lengths.min()), math.log10(lengths.max() + 1)
    axes.hist(lengths, bins=np.logspace(low, max(high, low + 0.3), 41).tolist(), color=_COLOURS["kept"])
    half, ninth = np.percentile(lengths, (50, 90)).tolist()
    above = axes.get_xaxis_transform()
    for value, text, side in (
        (half, f"median {half:,.0f} ", "right"),
        (ninth, f" 90th percentile {ninth:,.0f}", "left"),
    ):
        axes.axvline(value, color=_INK, linewidth=1, linestyle=(0, (3, 2)))
        axes.text(value, 1.0, text, ha=side, va="bottom", transform=above)
    axes.set_ylabel("rows")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: short(count)))


def _spans(axes: Axes, spans: dict[str, npt.NDArray[np.float64]]) -> None:
    """A line a source from its first number to its last, with a dot at the one between, ordered by that."""
    names = sorted(spans, key=lambda name: (spans[name][1], name))
    low, half, high = np.array([spans[name] for name in names]).T
    axes.barh(range(len(names)), high - low, left=low, height=0.3, color=_GROUND)
    axes.plot(half, range(len(names)), "o", color=_COLOURS["kept"], markersize=4.5)
    axes.set_yticks(range(len(names)), [_name(name) for name in names])
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
