"""The plots of an evaluation as PNG: accuracy by department, and the arms side by side, each with its interval."""

import io
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from qilin.evaluate.report import p_value, slug

COLOURS = {"closed": "#718096", "rag": "#2b6cb0", "oracle": "#2f855a", "random": "#c53030"}
_INK, _QUIET = "#1c1f23", "#5b636d"
_MOST = 40  # departments in a plot; the table has all
# Fonts with Chinese characters, as Linux, macOS and Windows have them.
_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "PingFang SC", "Heiti SC"),
    *("Hiragino Sans GB", "Microsoft YaHei", "SimHei", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei"),
    *("Noto Sans CJK JP", "Noto Serif CJK SC", "Noto Serif CJK JP", "Arial Unicode MS", "STHeiti", "SimSun"),
)


def draw(result: Mapping[str, Any]) -> dict[str, bytes]:
    """The plots of a result by file name: equal results and fonts give equal bytes.

    Where no font with Chinese characters is installed, a department is named by its row in the table of the report.
    """
    import matplotlib as mpl

    found = {}
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_style())
        for name, arms in result.get("exam", {}).items():
            if any("department" in scores["groups"] for scores in next(iter(arms.values())).values()):
                found[f"departments-{slug(name)}.png"] = _departments(name, arms)
            if len(arms) > 1:
                found[f"arms-{slug(name)}.png"] = _arms(name, arms, result["arms"][name])
    return found


def _style() -> dict[Any, Any]:
    return {
        "font.family": ["DejaVu Sans", *([font] if (font := _chinese()) else [])],  # the first comes with matplotlib
        "font.size": 9,
        "text.color": _INK,
        "text.parse_math": False,  # a $ in a name is a $
        "axes.edgecolor": _QUIET,
        "axes.labelcolor": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "xtick.color": _QUIET,
        "ytick.labelcolor": _INK,
    }


@cache
def _chinese() -> str:
    """The first installed font with Chinese characters; none is ""."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return next((name for name in _FONTS if name in installed), "")


def labels(values: Sequence[str]) -> list[str]:
    """Names as a plot can show them."""
    return [
        f"row {number}" if not (value.isascii() or _chinese()) else value if len(value) <= 16 else f"{value[:15]}…"
        for number, value in enumerate(values, 1)
    ]


def _departments(name: str, arms: Mapping[str, Any]) -> bytes:
    """A row a department, the largest first; a panel a method, a dot an arm."""
    methods = list(next(iter(arms.values())))
    groups = {arm: {method: own[method]["groups"]["department"] for method in methods} for arm, own in arms.items()}
    first = groups[next(iter(arms))][methods[0]]
    values = sorted(first, key=lambda value: (-first[value]["n"], value))
    shown = [f"{label} ({first[value]['n']:,})" for label, value in zip(labels(values), values, strict=True)][:_MOST]
    of = f", the {_MOST} largest of {len(values)}" if len(values) > _MOST else ""
    rows = {
        method: {arm: [own[method][value] for value in values[:_MOST]] for arm, own in groups.items()}
        for method in methods
    }
    return _panels(f"{name}: accuracy by department{of} (items), 95 % intervals", shown, rows)


def _arms(name: str, arms: Mapping[str, Any], pairs: Mapping[str, Any]) -> bytes:
    """A row an arm; a panel a method. Behind each arm but the first stands McNemar's p against the first."""
    base, *others = arms
    methods = list(arms[base])
    rows = {
        method: {
            arm: [scores[method]["accuracy"] if own == arm else None for own in arms] for arm, scores in arms.items()
        }
        for method in methods
    }
    tests = {
        method: ["", *(f"p {_equals(pairs[f'{arm} against {base}'][method]['p'])}" for arm in others)]
        for method in methods
    }
    chance = {method: arms[base][method]["chance"] for method in methods}
    title = f"{name}: arms compared, 95 % intervals; McNemar's p against {base}; the dashed line is chance"
    return _panels(title, list(arms), rows, tests, chance)


def _equals(p: float) -> str:
    return p_value(p) if p < 0.0001 else f"= {p_value(p)}"


def _panels(
    title: str,
    names: Sequence[str],
    rows: Mapping[str, Mapping[str, Sequence[Any]]],
    beside: Mapping[str, Sequence[str]] | None = None,
    lines: Mapping[str, float] | None = None,
) -> bytes:
    """A panel a method over the same rows; the arms of a row stand closely under each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, and no state that pyplot would keep
    from matplotlib.figure import Figure

    arms = list(next(iter(rows.values())))
    height = 0.3 if beside else 0.18 + 0.09 * len(arms)
    figure = Figure(figsize=(8.0, 1.35 + max(height, 0.24) * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(rows), sharey=True, squeeze=False)[0]
    for axes, (method, own) in zip(panels, rows.items(), strict=True):
        for number, (arm, intervals) in enumerate(own.items()):
            shift = 0.0 if beside else 0.22 * (number - (len(arms) - 1) / 2)
            _dots(axes, shift, intervals, arm)
        for y, text in enumerate(beside[method] if beside else ()):
            axes.annotate(text, (1.0, y), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=_QUIET)
        if lines:
            axes.axvline(100 * lines[method], color=_QUIET, linewidth=1, linestyle=(0, (3, 2)))
        axes.set_title(method)
        axes.set_xlabel("accuracy, %")
        axes.set_xlim(left=0)
        axes.margins(x=0.08)
        axes.grid(axis="x", alpha=0.25)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.4, -0.6)  # the first row on top
    if len(arms) > 1 and not beside:
        handles, texts = panels[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower left", ncols=len(arms), frameon=False)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=150, metadata={"Software": None})
    return data.getvalue()


def _dots(axes: Any, shift: float, intervals: Sequence[Any], arm: str) -> None:
    places = [(y + shift, interval) for y, interval in enumerate(intervals) if interval]
    ys = [y for y, _ in places]
    values, lows, highs = ([100 * interval[key] for _, interval in places] for key in ("value", "low", "high"))
    colour = COLOURS[arm]
    axes.hlines(ys, lows, highs, color=colour, linewidth=1.4, alpha=0.6)
    axes.plot(values, ys, "o", color=colour, markersize=4, label=arm)
