"""Smaller grids: how sure a figure is with fewer themes, objects, seeds or targets

A bootstrap on the grid of finished runs: themes, objects and seeds (and targets, where a row gives their
number) are drawn from it with replacement, as many as the row says, 2000 times. Printed is half the width of
the interval that holds 95 % of the figures, those of `evaluation.accuracy` on the images drawn; it is a mean
over methods:

    w = (q(97.5 %) - q(2.5 %)) / 2      in points; the first row is the whole grid's own

A draw is the same for all methods and targets, but that a target is always once in its own. Sizes beyond the
grid's own are drawn too: they tell what its spread would be worth with so many, not what another model does.

    python -m evaluation.reduced results/mini
"""

import argparse
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from evaluation.core.errors import UserError, command, early


def parse(argv=None) -> argparse.Namespace:
    about = "How sure figures are on smaller grids."
    parser = argparse.ArgumentParser(prog="python -m evaluation.reduced", description=about)
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder with METHOD/TARGET runs")
    return parser.parse_args(argv)


early(__name__, parse)

import numpy as np

from evaluation import protocol
from evaluation.answers.predictions import DOMAINS
from evaluation.metrics.bootstrap import LEVEL, REPLICATES
from evaluation.metrics.figures import counted
from evaluation.protocol import Protocol
from evaluation.reporting.collect import BASE, Result, collect, read_all
from evaluation.reporting.formats import markdown
from evaluation.reporting.rows import grouped

KINDS, FIGURES = ("style", "object"), ("UA", "IRA", "CRA")
COLUMNS = ("grid", "size", "targets", *(f"{kind}_{figure}" for kind in KINDS for figure in FIGURES))
THEMES, OBJECTS, SEEDS, TARGETS = range(4)  # what is drawn


class Grid(NamedTuple):
    name: str
    themes: int  # those that count
    objects: int
    seeds: int
    targets: int | None = None  # of each kind, drawn anew; None: those there are


class Hits(NamedTuple):
    """Whether images show what was asked for, in the target's own domain and in the other one.

    Both [n, m, seeds]: classes of the own domain, the target being number `at`, and of the other one.
    """

    own: np.ndarray
    other: np.ndarray
    at: int


def grids(whole: Protocol) -> list[Grid]:
    """The whole grid, parts of it, the shipped protocols' sizes, and numbers of targets."""

    def size(of: Protocol):
        return len(of.counted), len(of.objects), len(of.seeds)

    (t, o, s), canvas, lite = size(whole), *(size(protocol.load(name)) for name in ("canvas", "canvas-lite"))
    part = [max(1, round(n * few / many)) for n, few, many in zip((t, o, s), lite, canvas)]
    return [
        Grid(whole.name, t, o, s),
        Grid("half of the seeds", t, o, s // 2 or 1),
        Grid("half of the objects", t, o // 2, s),
        Grid("half of the themes", t // 2, o, s),
        Grid("half of each", t // 2, o // 2, s // 2 or 1),
        Grid("canvas-lite in proportion", *part),
        Grid("canvas-lite", *lite),
        Grid("canvas", *canvas),
        *(Grid(whole.name, t, o, s, targets) for targets in (1, 2, 4, 8)),
        Grid("canvas-lite", *lite, 4),
        Grid("canvas", *canvas, 20),
    ]


@cache
def drawn(axis: int, count: int, keep: int, always: int | None = None) -> np.ndarray:
    """Weights of sum 1 [draws, count] of `keep` out of `count`; `always` is once among them.

    Every number is the first of one endless draw, in which `always` is passed over: so draws are shared.
    """
    length = 2 * keep + 10
    order = np.eye(count)[np.random.default_rng(axis).integers(count, size=(REPLICATES, length))]
    good = np.ones((REPLICATES, length)) if always is None else 1 - order[:, :, always]
    good *= good.cumsum(1) <= (keep if always is None else keep - 1)
    counts = np.einsum("rl,rln->rn", good, order)
    if always is not None:
        counts[:, always] = 1
    return counts / counts.sum(1, keepdims=True)


def hits_of(result: Result) -> Hits:
    seen = [result.predictions.labels(domain).right.transpose(1, 2, 0) for domain in DOMAINS]
    seen = [right[counted(result.protocol)[:, 0]].astype(float) for right in seen]
    if result.kind == "style":
        return Hits(*seen, at=result.protocol.counted.index(result.target))
    themes, objects = (right.swapaxes(0, 1) for right in seen)
    return Hits(objects, themes, at=result.protocol.objects.index(result.target))


def figures(hits: Hits, classes: np.ndarray, others: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """UA, IRA and CRA [3, draws] from weights [draws, .] of own domain's classes, the other's, and seeds."""
    target = np.eye(classes.shape[1])[hits.at]
    rest = classes * (1 - target)
    rest /= rest.sum(1, keepdims=True)
    own, other = (
        np.einsum("nms,rs,rm->rn", seen, seeds, others, optimize=True) for seen in (hits.own, hits.other)
    )
    return np.stack([1 - own[:, hits.at], (rest * own).sum(1), (classes * other).sum(1)])


def grid_figures(result: Result, hits: Hits, grid: Grid) -> np.ndarray:
    """[3, draws]"""
    own, other = (THEMES, OBJECTS) if result.kind == "style" else (OBJECTS, THEMES)
    keep, (n, m, s) = grid[1:4], hits.own.shape
    return figures(
        hits,
        drawn(own, n, max(2, keep[own]), hits.at),  # IRA needs another one
        drawn(other, m, keep[other]),
        drawn(SEEDS, s, keep[SEEDS]),
    )


def widths(group: list[tuple[Result, Hits]], grid: Grid) -> list[float]:
    """Of UA, IRA and CRA, in points, of one method's targets of one kind."""
    values = np.stack([grid_figures(result, hits, grid) for result, hits in group], 2)  # [3, draws, targets]
    if grid.targets:
        values = values * drawn(TARGETS, len(group), grid.targets) * len(group)
    low, high = np.percentile(100 * values.mean(2), [50 - LEVEL / 2, 50 + LEVEL / 2], axis=1)
    return ((high - low) / 2).tolist()


def table(results: list[Result]) -> list[dict[str, str]]:
    """One row for each grid, means over methods; `results` are runs of single styles and objects."""
    groups = {kind: [] for kind in KINDS}
    for group in grouped(results).values():
        for kind in KINDS:
            if chosen := [(result, hits_of(result)) for result in group if result.kind == kind]:
                groups[kind].append(chosen)
    rows = []
    for grid in grids(results[0].protocol):
        size = " x ".join(map(str, grid[1:4]))
        rows.append({"grid": grid.name, "size": size, "targets": str(grid.targets or "as they are")})
        for kind, methods in groups.items():
            columns = zip(*(widths(group, grid) for group in methods))
            rows[-1] |= {f"{kind}_{name}": f"{fmean(column):.1f}" for name, column in zip(FIGURES, columns)}
    return rows


@command
def main(argv=None):
    root = parse(argv).root
    results = [r for r in collect([root])[0] if r.method != BASE and r.kind in KINDS]
    if not results:
        raise UserError(f"{root}: no run has a style or an object as its target; unlearn one first")
    read_all(results)
    rows = table(results)
    print(markdown(rows, [name for name in COLUMNS if name in rows[0]]))


if __name__ == "__main__":
    main()
