"""Radar and trade-off: seven metrics of every method, and forgetting against keeping"""

from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.drawing.look import COLOURS, MARKERS, page
from evaluation.metrics.bootstrap import LEVEL, interval
from evaluation.metrics.published import spelled
from evaluation.reporting.collect import Result
from evaluation.reporting.formats import EDGE, GREY

KINDS = ("style", "object")  # of targets that have all three qualities
QUALITIES = ("UA", "IRA", "CRA")  # percent, high is good
COSTS = {  # low is good: name, unit and decimals
    "FID": "FID\n{:.1f}",
    "seconds": "time\n{:.1f} s",
    "memory_GB": "memory\n{:.2f} GB",
    "storage_MB": "storage\n{:.1f} MB",
}
ACROSS = 5  # radars side by side
RADAR_NOTE = (
    "Outer edge: best. UA, IRA, CRA from 0 to 100 %, the mean of styles and objects; "
    "the others from the dearest to the cheapest of these methods."
)
TRADEOFF_NOTE = (
    f"Means and {LEVEL} % bootstrap intervals over targets and seeds. Axes are stretched towards 100 %."
)
TICKS = (0, 50, 75, 90, 95, 98, 100)


def metrics(group: list[Result]) -> dict[str, float]:
    """UA, IRA and CRA in percent, the mean of what styles and objects have, and the costs."""
    values = {}
    for name in QUALITIES:
        kinds = [[r.figures.get(name) for r in group if r.kind == kind] for kind in KINDS]
        if kinds := [figures for figures in kinds if figures and None not in figures]:
            values[name] = 100 * fmean(map(fmean, kinds))
    for name in COSTS:
        if costs := [r.costs[name] for r in group if r.kind in KINDS and name in r.costs]:
            values[name] = fmean(costs)
    return values


def radar(groups: dict[str, list[Result]]) -> Figure | None:
    """A panel for every method; None if all methods share less than three metrics."""
    values = {label: metrics(group) for label, group in groups.items()}
    names = [name for name in (*QUALITIES, *COSTS) if all(name in metric for metric in values.values())]
    if len(names) < 3:
        return None
    across = min(ACROSS, len(values))
    down = -(-len(values) // across)
    figure, panels = page(3.4 * across, 2.9 * down + 0.3, down, across, subplot_kw={"projection": "polar"})
    for axes, (label, figures), colour in zip(panels, values.items(), COLOURS * down):
        radii = [figures[n] if n in QUALITIES else cheapness(n, figures, values.values()) for n in names]
        labels = [COSTS.get(name, name + "\n{:.0f} %").format(figures[name]) for name in names]
        axes.set_title(spelled(label), loc="center", pad=12)
        draw_radar(axes, radii, labels, colour)
    for axes in panels[len(values) :]:
        axes.set_visible(False)
    figure.supxlabel(RADAR_NOTE, fontsize=9, color=GREY)
    return figure


def cheapness(name: str, values: dict[str, float], all_values) -> float:
    """100 for the cheapest method, 0 for the dearest."""
    costs = [metric[name] for metric in all_values]
    low, high = min(costs), max(costs)
    return 100 * (high - values[name]) / (high - low) if high > low else 100


def draw_radar(axes: Axes, radii: list[float], labels: list[str], colour: str) -> None:
    """`radii` in [0,100], clockwise from the top."""
    angles = 2 * np.pi * np.arange(len(radii)) / len(radii)
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    axes.fill(angles, radii, facecolor=colour, alpha=0.25)
    axes.plot(
        [*angles, 0], [*radii, radii[0]], "-o", color=colour, linewidth=1.8, markersize=3.5, clip_on=False
    )
    axes.set_ylim(0, 100)
    axes.set_yticks([25, 50, 75, 100], [])
    axes.set_xticks(angles, labels, fontsize=8)
    axes.tick_params(pad=3)
    for text, side in zip(axes.get_xticklabels(), np.sin(angles)):
        text.set_ha("center" if abs(side) < 0.3 else "left" if side > 0 else "right")
    axes.spines["polar"].set_color(EDGE)


def tradeoff(groups: dict[str, list[Result]], bases: list[Result]) -> Figure | None:
    """A panel for styles and one for objects, as far as there are runs."""
    kinds = [kind for kind in KINDS if any(plane(group, kind) for group in groups.values())]
    if not kinds:
        return None
    figure, panels = page(4.7 * len(kinds) + 1, 4.6, 1, len(kinds))
    figure.get_layout_engine().set(wspace=0.06)
    legend = {}
    for axes, kind in zip(panels, kinds):
        for i, (label, group) in enumerate(groups.items()):
            if values := plane(group, kind):
                look = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
                legend[spelled(label)] = draw_point(axes, *values, **look)
        if base := plane(bases, kind):
            line = axes.axhline(base[1].mean(), color=GREY, linewidth=1, linestyle="--", zorder=0)
            legend["base model"] = line
        axes.set(xlim=(0, 100), ylim=(0, 100))  # before the scale, which ends at 104
        for scale, ticks in ((axes.set_xscale, axes.set_xticks), (axes.set_yscale, axes.set_yticks)):
            scale("function", functions=(stretched, unstretched))
            ticks(TICKS, TICKS)
            ticks([], minor=True)
        axes.set(
            title=f"{kind.capitalize()}s", xlabel="forgotten: UA, %", ylabel="kept: mean of IRA and CRA, %"
        )
        axes.grid()
    figure.legend(legend.values(), legend, loc="outside right upper", frameon=False)
    figure.supxlabel(TRADEOFF_NOTE, fontsize=8.5, color=GREY)
    return figure


def stretched(value: np.ndarray) -> np.ndarray:
    """Percent -> place on an axis that tells 98 from 99 and still has room for 20."""
    return -np.log10(104 - value)


def unstretched(place: np.ndarray) -> np.ndarray:
    return 104 - 10**-place


def plane(group: list[Result], kind: str) -> tuple[np.ndarray, np.ndarray] | None:
    """UA, and the mean of IRA and CRA: each [targets, seeds], in percent."""
    seeds = [r.seeds for r in group if r.kind == kind and {*QUALITIES} <= r.figures.keys()]
    if not seeds:
        return None
    ua, ira, cra = (np.array([100 * figures[name] for figures in seeds]) for name in QUALITIES)
    return ua, (ira + cra) / 2


def draw_point(axes: Axes, x: np.ndarray, y: np.ndarray, color: str, marker: str):
    """The mean of [targets, seeds] and its intervals; -> the mark, for a legend."""
    middle = (x.mean(), y.mean())
    spans = [interval(values) or (mean, mean) for values, mean in zip((x, y), middle)]
    axes.hlines(middle[1], *spans[0], color=color, linewidth=1.2, alpha=0.6, clip_on=False)
    axes.vlines(middle[0], *spans[1], color=color, linewidth=1.2, alpha=0.6, clip_on=False)
    look = {"markersize": 8, "markeredgecolor": "white", "linestyle": "none", "clip_on": False, "zorder": 3}
    return axes.plot(*middle, color=color, marker=marker, **look)[0]
