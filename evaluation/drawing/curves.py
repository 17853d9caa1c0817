"""Requests in turn: what is still forgotten, and what is still kept, the more a model was asked for"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.drawing.look import COLOURS, page
from evaluation.metrics.published import sequences, spelled
from evaluation.reporting.collect import Result
from evaluation.reporting.formats import GREY, INK
from evaluation.reporting.rows import above_paper
from evaluation.reporting.sequences import Chain, chains, labels_of, triangle

ACROSS = 5  # panels side by side
NOTE = (
    "Means over orders. A line for every request: UA of the first, the second, ... once it was asked for. "
    "SR: mean of IRA and CRA (of pairs of SC, OC and UP). Grey: the paper's, of six styles."
)


def sequential(results: list[Result]) -> Figure | None:
    """A panel for every method, of its longest chains; None if no run went on from another."""
    found, paper = chains(results), sequences()
    if not found:
        return None
    names, theirs = labels_of(found), above_paper(labels_of(found))
    across = min(ACROSS, len(names))
    down = -(-len(names) // across)
    figure, panels = page(2.9 * across + 1.2, 2.6 * down + 0.5, down, across, sharey=True)
    legend = {}
    for axes, label in zip(panels, names):
        if label in theirs and theirs[label] in paper:
            legend |= draw_paper(axes, *paper[theirs[label]][1:])
        legend |= draw_chains(axes, [chain for chain in found if chain.label == label])
        ticks = range(1, 1 + max(len(line.get_xdata()) for line in axes.lines))
        axes.set(title=spelled(label), xlabel="requests", ylim=(-3, 103), xticks=ticks)
        axes.grid()
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for axes in panels[: len(names) : across]:
        axes.set_ylabel("%")
    legend = dict(sorted(legend.items(), key=lambda item: item[0].startswith("paper")))
    figure.legend(legend.values(), legend, loc="outside right upper", frameon=False)
    figure.supxlabel(NOTE, fontsize=8.5, color=GREY, wrap=True)
    return figure


def draw_chains(axes: Axes, own: list[Chain]) -> dict:
    """Of those with most requests, the means over orders; -> name -> line."""
    count = max(len(chain.runs) for chain in own)
    triangles = [triangle(chain) for chain in own if len(chain.runs) == count]
    forgotten, kept = (np.array([t[part].mean(-1) for t in triangles]) for part in (0, 1))
    steps, lines = np.arange(1, count + 1), {}
    for request in range(count):
        look = {"color": COLOURS[request % len(COLOURS)], "marker": "o", "markersize": 4, "linewidth": 1.3}
        values = mean(forgotten[:, request])
        (lines[f"UA of T{request + 1}"],) = axes.plot(steps, values, **look)
    (lines["SR"],) = axes.plot(steps, mean(kept), color=INK, marker="s", markersize=4, linewidth=2.4)
    return lines


def mean(values: np.ndarray) -> np.ndarray:
    """Over the first axis, NaNs aside; NaN where there is nothing else."""
    count = (~np.isnan(values)).sum(0)
    return np.where(count, np.nansum(values, 0) / np.maximum(count, 1), np.nan)


def draw_paper(axes: Axes, forgotten: np.ndarray, kept: np.ndarray) -> dict:
    """SR and the mean UA of what was asked for until then; -> name -> line."""
    steps, lines = np.arange(1, len(kept) + 1), {}
    (lines["paper: SR"],) = axes.plot(steps, kept, color=GREY, linewidth=2.4, alpha=0.6)
    (lines["paper: mean UA"],) = axes.plot(steps, mean(forgotten), color=GREY, linestyle="--", alpha=0.8)
    return lines
