"""The rows of tables: means over targets with their statistics, for a method, a target or a figure"""

from statistics import fmean, median, stdev

import numpy as np

from evaluation.core.errors import UserError, closest
from evaluation.metrics.bootstrap import by_seed, interval
from evaluation.metrics.explain import explain
from evaluation.metrics.figures import FIGURES
from evaluation.metrics.published import agreement, differences, published_rows
from evaluation.reporting.collect import Judged
from evaluation.reporting.formats import COSTS, KINDS, STATISTICS, columns

WORST = 5  # targets named by `method_rows`


def means(judged: list[Judged], split: bool = True) -> dict[str, float]:
    """Means over targets, figures in percent; statistics of each follow it, as `_sd` and `_low`, `_high`.

    With `split`, the names of figures begin with the kind of target, and each kind has its number of targets.
    """
    row, seeds = {}, [by_seed(one) for one in judged]
    for kind in KINDS:
        chosen, prefix = [one.kind == kind for one in judged], f"{kind}_" if split else ""
        for figure in FIGURES:
            values = [each[figure] for each, good in zip(seeds, chosen) if good and figure in each]
            add_mean(row, prefix + figure, values)
        if any(chosen) and split:
            row[f"{kind}_targets"] = sum(chosen)
    for cost in COSTS:
        add_mean(row, cost, [[one.costs[cost]] for one in judged if cost in one.costs])
    return row


def add_mean(row: dict, name: str, values: list) -> None:
    """`values` [targets, seeds]: a target's own value is the mean over its seeds."""
    if not values:
        return
    targets = [fmean(each) for each in values]
    row[name] = round(fmean(targets), 6)
    if len(targets) > 1:
        row |= {name + "_sd": round(stdev(targets), 6), name + "_median": round(median(targets), 6)}
    if span := interval(np.array(values)):
        row[name + "_low"], row[name + "_high"] = (round(bound, 6) for bound in span)


def grouped(judged: list[Judged]) -> dict[str, list[Judged]]:
    """Row of the main table -> its targets: one row for each method, variant, protocol and base model."""
    groups = {}
    for one in judged:
        groups.setdefault(label(one, judged), []).append(one)
    return groups


def main_rows(judged: list[Judged]) -> list[dict]:
    """A row for each group, its published row below.

    If three methods or more have both, a last row holds Spearman's rank correlation between the two.
    """
    published, rows, pairs = published_rows(), [], []
    for name, group in grouped(judged).items():
        rows.append({"method": name} | means(group))
        if paper := published.pop(group[0].method.lower(), None):
            rows[-1] |= differences(rows[-1], paper)
            rows.append(paper)
            pairs.append(rows[-2:])
    if len(pairs) > 2:
        rows.append({"method": f"rank correlation ({len(pairs)})"} | agreement(pairs))
    return rows


def target_rows(judged: list[Judged]) -> list[dict]:
    return [
        {"method": label(one, judged), "target": one.target} | means([one], split=False) for one in judged
    ]


def with_differences(rows: list[dict]) -> list[dict]:
    """The rows, and below every published one a row of ours minus it."""
    result = []
    for before, row in zip([{}, *rows], rows):
        result.append(row)
        if row["method"].endswith("(published)"):
            gaps = {key[:-5]: f"{value:+.2f}" for key, value in before.items() if key.endswith("_diff")}
            result.append({"method": "  difference"} | gaps)
    return result


def method_rows(name: str, judged: list[Judged]) -> list[dict]:
    """One row for every figure and cost of a method: its statistics, counts and worst targets."""
    group, result = find(name, judged, "--method"), []
    values = {
        one.target: one.costs | {f"{one.kind}_{k}": 100 * v for k, v in one.figures.items()} for one in group
    }
    row = main_rows(group)[0]
    for key in columns([row]):
        chosen = [one for one in group if key in values[one.target]]
        chosen.sort(key=lambda one: values[one.target][key], reverse=key in COSTS)
        if not chosen:
            continue
        result.append({"figure": key, "mean": row[key], "targets": len(chosen)})
        if key not in COSTS:
            figure = key.partition("_")[2]
            result[-1]["images"] = sum(len(explain(one, figure)[0]) for one in chosen)
        result[-1] |= {what: row[f"{key}_{what}"] for what in STATISTICS if f"{key}_{what}" in row}
        result[-1]["worst"] = [f"{one.target} {values[one.target][key]:.1f}" for one in chosen[:WORST]]
    return result


def find(name: str, judged: list[Judged], flag: str) -> list[Judged]:
    """The group of that label, or of that method if it is the only one."""
    groups = grouped(judged)
    fitting = [each for each, group in groups.items() if name in (each, group[0].method)]
    if len(fitting) != 1:
        raise UserError(f"{flag} {name}: no single row of that name; {closest(name, fitting or groups)}")
    return groups[fitting[0]]


def label(one: Judged, judged: list[Judged]) -> str:
    """The method's name and whatever else sets its row apart from the others."""
    marks = []
    if len({other.variant for other in judged if other.method == one.method}) > 1:
        marks.append(one.variant)
    for i, (what, value) in enumerate(one.origin._asdict().items()):
        if len({other.origin[i] for other in judged}) > 1:
            marks.append(f"{what} {value[:6]}")
    return f"{one.method} ({', '.join(marks)})" if marks else one.method
