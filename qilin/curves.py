"""The curves of a run as one picture: what fell, what rose, on training rows and on held-out ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# A panel is a title and lines; a line is a label, a key of the log and a colour. Blue is training, red held out.
Line = tuple[str, str, str]
BLUE, RED, GREEN, GREY = "#2b6cb0", "#c53030", "#2f855a", "#718096"
LANGUAGE: tuple[tuple[str, tuple[Line, ...]], ...] = (
    (
        "loss (nats a token)",
        (
            ("training", "loss", BLUE),
            ("held out", "eval_validation_loss", RED),
            ("general text", "eval_general_loss", GREEN),
        ),
    ),
    (
        "perplexity",
        (("held out", "eval_validation_perplexity", RED), ("general text", "eval_general_perplexity", GREEN)),
    ),
    ("learning rate", (("learning rate", "learning_rate", GREY),)),
    ("gradient norm", (("gradient norm", "grad_norm", GREY),)),
)
PREFERENCE: tuple[tuple[str, tuple[Line, ...]], ...] = (
    ("loss", (("training", "loss", BLUE), ("held out", "eval_validation_loss", RED))),
    (
        "share of pairs",
        (
            ("reward of chosen higher, training", "rewards/accuracies", BLUE),
            ("the same, held out", "eval_validation_rewards/accuracies", RED),
            ("chosen likelier, held out", "eval_validation_preferred", GREEN),
        ),
    ),
    (
        "reward margin",
        (("training", "rewards/margins", BLUE), ("held out", "eval_validation_rewards/margins", RED)),
    ),
    (
        "log-probability of the reply",
        (("chosen", "logps/chosen", BLUE), ("rejected", "logps/rejected", RED)),
    ),
    (
        "length of the reply (tokens)",
        (("chosen", "length/chosen", BLUE), ("rejected", "length/rejected", RED)),
    ),
    ("gradient norm", (("gradient norm", "grad_norm", GREY),)),
)


def points(history: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one key of a trainer's log.

    >>> points([{"step": 1, "loss": 2.5}, {"step": 2, "eval_loss": 3.0}, {"step": 2, "loss": 2.0}], "loss")
    ([1, 2], [2.5, 2.0])
    """
    found = [(int(row["step"]), float(row[key])) for row in history if row.get(key) is not None]
    return [step for step, _ in found], [value for _, value in found]


def curves(history: Sequence[Mapping[str, Any]], stage: str, path: Path, title: str = "") -> None:
    """Draw a run's curves as a PNG: one panel for each kind of number that the log holds.

    history: `trainer.state.log_history`. A panel without a single point is left out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, and no state that pyplot would keep
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    panels = [
        (name, drawn)
        for name, lines in (PREFERENCE if stage == "dpo" else LANGUAGE)
        if (
            drawn := [(label, *points(history, key), colour) for label, key, colour in lines if points(history, key)[0]]
        )
    ]
    if not panels:
        return
    columns = min(len(panels), 3 if len(panels) > 4 else 2)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for index, (name, drawn) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        for label, steps, values, colour in drawn:
            few = len(steps) <= 20
            axes.plot(
                steps, values, label=label, color=colour, linewidth=1.6, marker="o" if few else "", markersize=3.5
            )
        axes.set_title(name, fontsize=10, loc="left")
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        if name == "perplexity":
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.4g}"))
            axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:,.4g}"))
            axes.tick_params(which="minor", labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        if len(drawn) > 1 or drawn[0][0] not in name:
            axes.legend(fontsize=8, frameon=False)
    if title:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    figure.savefig(path, dpi=120)
