"""Does a metric rank methods as the ground truth does? Rank correlations, leaderboards and paired differences

Values are arrays [methods, styles, objects, pairs]; a pair is a photo with its reference, the same for all
methods, and the truth one of the distances from what the data set's authors painted. All are lower for
better outputs.

    over methods   Spearman's rank correlation of the methods' means of metric and truth
    over outputs   of one pair's outputs, of all methods; the mean over all pairs

Intervals are the project's bootstrap (evaluation.metrics.bootstrap) over styles and, independently, objects;
the outputs of one style and object stay together. Over methods, these are drawn anew as well: it asks what
other methods might say. A p-value is the share of replicates in which a difference has the other sign, twice;
q is the smallest false discovery rate at which it counts (Benjamini and Hochberg).
"""

from itertools import combinations

import numpy as np
from scipy.stats import false_discovery_control

from evaluation.metrics import reliability
from evaluation.metrics.bootstrap import LEVEL, REPLICATES, draws, interval

FEWEST = 3  # methods that can be ranked


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of what lies along the last axis; 0 where all are equal, which says nothing."""
    return np.nan_to_num(reliability.spearman(x, y))


def replicates(cells: np.ndarray) -> np.ndarray:
    """Means of [..., styles, objects] over styles and objects drawn anew -> [..., REPLICATES]."""
    shape = cells.shape[-2:]
    styles, objects = draws(*shape)
    return np.einsum("rs,...so,ro->...r", styles, cells, objects, optimize=True) / np.prod(shape)


def over_methods(metric: np.ndarray, truth: np.ndarray) -> dict:
    """`metric`: [methods, styles, objects, pairs], or [methods] of what has no value of an output."""
    theirs = replicates(truth.mean(3))
    if metric.ndim == 1:
        means, ours = metric, np.broadcast_to(metric[:, None], theirs.shape)
    else:
        means, ours = metric.mean((1, 2, 3)), replicates(metric.mean(3))
    count = len(means)
    drawn = np.random.default_rng(1).integers(count, size=(REPLICATES, count))
    rows = np.arange(REPLICATES)[:, None]
    found = spearman(ours.T[rows, drawn], theirs.T[rows, drawn])
    low, high = np.percentile(found, [50 - LEVEL / 2, 50 + LEVEL / 2])
    value = spearman(means, truth.mean((1, 2, 3)))
    return {"value": float(value), "low": float(low), "high": float(high)}


def over_outputs(metric: np.ndarray, truth: np.ndarray) -> dict:
    """[methods, styles, objects, pairs] each."""
    cells = spearman(*(np.moveaxis(values, 0, -1) for values in (metric, truth))).mean(2)
    return {"value": float(cells.mean()), **bounds(cells)}


def bounds(cells: np.ndarray) -> dict:
    """The interval of the mean of [styles, objects]; None twice for a single cell, which has no spread."""
    low, high = interval(cells) or (None, None)
    return {"low": low, "high": high}


def leaderboard(values: np.ndarray, names: list[str]) -> list[dict]:
    """Methods by their mean; `tied`: the difference from the best is not told from 0."""
    cells = values.mean(3)
    order = np.argsort(cells.mean((1, 2)), kind="stable")
    best, rows = cells[order[0]], []
    for place in order:
        low, high = interval(cells[place] - best) or (0.0, 0.0)
        tied = place != order[0] and low <= 0 <= high
        mean = float(cells[place].mean())
        rows.append({"method": names[place], "mean": mean, **bounds(cells[place]), "tied": bool(tied)})
    return rows


def differences(values: np.ndarray, names: list[str]) -> list[dict]:
    """Of every two methods, on the same photos and references: the first minus the second, below 0 if the
    first is better; `wins`: the share of pairs in which it is."""
    cells, rows = values.mean(3), []
    for i, j in combinations(range(len(names)), 2):
        difference = cells[i] - cells[j]
        drawn = replicates(difference[None])[0]
        p = 2 * (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / (1 + REPLICATES)
        row = {"first": names[i], "second": names[j], "difference": float(difference.mean())}
        wins = float((values[i] < values[j]).mean())
        rows.append(row | bounds(difference) | {"wins": wins, "p": float(min(1, p))})
    adjusted = false_discovery_control([row["p"] for row in rows]) if rows else []
    return [row | {"q": float(q)} for row, q in zip(rows, adjusted)]
