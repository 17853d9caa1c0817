"""How far a table's order of methods would come out again: with other targets, with another training

`values` are a figure's, [methods, targets, trainings, seeds]. Spearman's correlation is of methods' means.
Variance components are those of the random-effects model in which all four axes are crossed, by the expected
mean squares of a balanced table (Searle, Casella & McCulloch, Variance Components, 1992); estimates below
zero are zero. From them comes the reliability of a mean over T targets, R trainings and S seeds
(generalisability theory; Brennan 2001):

    E = v_m / (v_m + sum v_U / n_U)       U: every set of axes with the methods and others, n_U their sizes

It is of differences between methods: what raises all of them alike, as a hard target, does not count.
"""

from itertools import combinations

import numpy as np
from scipy.stats import rankdata

METHOD, TARGET, TRAINING, SEED = range(4)
SPLITS = 1000
GOAL = 0.8


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of [..., methods] and [..., methods], over the last axis; NaN where one of them is constant."""
    a, b = (ranks - ranks.mean(-1, keepdims=True) for ranks in (rankdata(a, axis=-1), rankdata(b, axis=-1)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))


def halves(values: np.ndarray) -> tuple[float, np.ndarray] | None:
    """Correlation of the methods' order between two halves of the targets, corrected to the full number of
    targets (Spearman-Brown: 2 r / (1 + r)): mean over random halves, and [SPLITS] in which each draws the
    methods with replacement, too. None for a single target, or methods that are all equal."""
    table = values.mean((TRAINING, SEED))  # [methods, targets]
    count, half = len(table), table.shape[1] // 2
    if half == 0:
        return None
    generator = np.random.default_rng(0)
    order = np.array([generator.permutation(table.shape[1]) for _ in range(SPLITS)])
    first, second = (table[:, part].mean(2).T for part in (order[:, :half], order[:, half : 2 * half]))
    drawn = generator.integers(count, size=(SPLITS, count))
    r, of_drawn = (
        spearman(np.take_along_axis(first, chosen, 1), np.take_along_axis(second, chosen, 1))
        for chosen in (np.arange(count)[None], drawn)
    )
    r, of_drawn = (2 * r / (1 + np.maximum(r, 0)) for r in (r, of_drawn))  # below zero, nothing is corrected
    return (float(np.nanmean(r)), of_drawn) if np.isfinite(r).any() else None


def trainings(values: np.ndarray) -> tuple[float, np.ndarray] | None:
    """Correlation of the methods' order between two trainings, a mean over all pairs of them, and of tables
    [SPLITS] of as many methods drawn with replacement. None for methods that are all equal."""
    tables = values.mean((TARGET, SEED)).T  # [trainings, methods]
    drawn = np.random.default_rng(0).integers(len(values), size=(SPLITS, len(values)))
    pairs = list(combinations(tables, 2))
    r = float(np.mean([spearman(first, second) for first, second in pairs]))
    of_drawn = np.mean([spearman(first[drawn], second[drawn]) for first, second in pairs], 0)
    return (r, of_drawn) if np.isfinite(r) else None


def components(values: np.ndarray) -> dict[tuple[int, ...], float]:
    """Set of axes -> variance; of axes of size 1 nothing is known, and they are in none."""
    axes = [axis for axis, size in enumerate(values.shape) if size > 1]
    sets = [chosen for count in range(1, len(axes) + 1) for chosen in combinations(axes, count)]
    variances = {}
    for chosen in reversed(sets):  # the largest first: what they add is taken off their parts
        others = tuple(axis for axis in range(values.ndim) if axis not in chosen)
        effect = values.mean(others, keepdims=True)
        for axis in chosen:
            effect = effect - effect.mean(axis, keepdims=True)
        freedom = np.prod([values.shape[axis] - 1 for axis in chosen])
        repeats = np.prod([values.shape[axis] for axis in others])  # images or cells behind every entry
        square = repeats * (effect**2).sum() / freedom
        for larger, variance in variances.items():
            if set(chosen) < set(larger):
                square -= variance * np.prod([n for axis, n in enumerate(values.shape) if axis not in larger])
        variances[chosen] = max(0.0, square / repeats)
    return {chosen: variances[chosen] for chosen in sets}


def reliability(variances: dict, sizes: dict[int, int]) -> float:
    """E of a table with so many targets, trainings and seeds; NaN if all methods are equal."""
    error = sum(
        variance / np.prod([sizes[axis] for axis in chosen if axis != METHOD])
        for chosen, variance in variances.items()
        if METHOD in chosen and len(chosen) > 1
    )
    own = variances.get((METHOD,), 0.0)
    return float(own / (own + error)) if own + error else float("nan")


def needed(variances: dict, sizes: dict[int, int], axis: int, most: int = 200) -> int | None:
    """The least number of targets, or of trainings, with which the reliability reaches GOAL, if all else is
    as it is; None if `most` do not."""
    enough = (n for n in range(1, most + 1) if reliability(variances, sizes | {axis: n}) >= GOAL)
    return next(enough, None)
