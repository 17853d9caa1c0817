"""Reliability of a table: would the methods come in the same order, with other targets or another training?

    python -m evaluation.reliability results/mini                # between two halves of its targets
    python -m evaluation.reliability results/mini runs/second    # and between trainings of the model

A line for every kind of target and figure. `halves`: Spearman's correlation of the methods' order on two
halves of the targets, corrected for length, a mean over random halves; `trainings`: of that in two folders,
a mean over all pairs; both with a 95 % bootstrap interval over methods. Then shares of the variance,
in percent: what is the method's; what a method does on one target or training alone; the noise of images; and
the rest, which is alike for all methods. `reliability` is that of this table's means (see
`metrics.reliability`), `targets for 0.8` how many targets would raise it there, `trainings for 0.8` how many
trainings.
"""

import argparse
from itertools import combinations
from pathlib import Path

from evaluation.core.errors import UserError, command, early


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m evaluation.reliability", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "roots", type=Path, nargs="+", metavar="ROOT", help="METHOD/TARGET runs of one training"
    )
    return parser.parse_args(argv)


early(__name__, parse)

import numpy as np

from evaluation.metrics import reliability as metric
from evaluation.metrics.bootstrap import LEVEL
from evaluation.reporting.collect import BASE, Result, collect, read_all, without_chains
from evaluation.reporting.formats import markdown
from evaluation.reporting.rows import grouped

KINDS, FIGURES = ("style", "object"), ("UA", "IRA", "CRA")
SHARES = {  # name of a column -> axes whose variance it has
    "method": {(metric.METHOD,)},
    "method x target": {(metric.METHOD, metric.TARGET)},
    "method x training": {(metric.METHOD, metric.TRAINING)},
}


def runs_of(root: Path) -> dict[tuple[str, str, str], Result]:
    """Kind, method and target -> its run."""
    results = [result for result in without_chains(collect([root])[0]) if result.method != BASE]
    read_all(results)
    named = grouped(results).items()
    return {
        (run.kind, label, run.target): run for label, group in named for run in group if run.kind in KINDS
    }


def check(roots: list[Path], trainings: list[dict]) -> None:
    """UserError unless the folders have one protocol and the same judges, and base models of their own."""
    origins = [(root, next(iter(runs.values())).origin) for root, runs in zip(roots, trainings) if runs]
    for (first, its), (root, origin) in combinations(origins, 2):
        if origin.model and origin.model == its.model:
            raise UserError(f"{root}: is of the same base model as {first}; name runs of another training")
        for what in ("protocol", "judges"):
            if (other := getattr(origin, what)) != (wanted := getattr(its, what)):
                sentence = f"has {what} {other}, but {first} has {wanted}, so they do not compare"
                raise UserError(f"{root}: {sentence}; leave one out")


def table(trainings: list[dict], kind: str) -> tuple[list[str], list[str], dict[str, np.ndarray]]:
    """-> methods and targets that all trainings have, and figure -> [methods, targets, trainings, seeds].

    The targets are those of most methods; a method that lacks one is left out.
    """
    keys = set.intersection(*({key[1:] for key in runs if key[0] == kind} for runs in trainings))
    of_method = {}
    for method, target in sorted(keys):
        of_method.setdefault(method, []).append(target)
    targets = max(of_method.values(), key=len, default=[])
    methods = [method for method, own in of_method.items() if set(own) >= set(targets)]
    cells = [[[runs[kind, m, t] for runs in trainings] for t in targets] for m in methods]
    values = {name: [[[run.seeds[name] for run in c] for c in row] for row in cells] for name in FIGURES}
    return methods, targets, {name: np.array(of_figure) for name, of_figure in values.items()}


def correlation(drawn: tuple[float, np.ndarray] | None) -> str:
    """With the interval that holds 95 % of those drawn."""
    if drawn is None:
        return "-"
    low, high = np.nanpercentile(drawn[1], [50 - LEVEL / 2, 50 + LEVEL / 2])
    return f"{drawn[0]:.2f} [{low:.2f}, {high:.2f}]"


def line(kind: str, figure: str, values: np.ndarray) -> dict[str, str]:
    row = {"figure": f"{kind} {figure}", "methods": str(len(values)), "targets": str(values.shape[1])}
    row["halves"] = correlation(metric.halves(values))
    if values.shape[metric.TRAINING] > 1:
        row["trainings"] = correlation(metric.trainings(values))
    variances, sizes = metric.components(values), dict(enumerate(values.shape))
    total = sum(variances.values())
    shares = {name: sum(variances.get(axes, 0) for axes in sets) for name, sets in SHARES.items()}
    alike = sum(variance for axes, variance in variances.items() if metric.METHOD not in axes)
    shares |= {"noise": total - alike - sum(shares.values()), "alike for all": alike}
    if values.shape[metric.TRAINING] == 1:
        del shares["method x training"]
    row |= {name: f"{100 * share / total:.0f}" if total else "-" for name, share in shares.items()}
    row["reliability"] = f"{metric.reliability(variances, sizes):.2f}"
    for name, axis in (("targets", metric.TARGET), ("trainings", metric.TRAINING)):
        if axis == metric.TARGET or values.shape[axis] > 1:
            row[f"{name} for {metric.GOAL}"] = str(metric.needed(variances, sizes, axis) or "over 200")
    return row


@command
def main(argv=None):
    roots = parse(argv).roots
    trainings = [runs_of(root) for root in roots]
    check(roots, trainings)
    rows, below = [], []
    for kind in KINDS:
        methods, targets, values = table(trainings, kind)
        if len(methods) < 3:
            continue
        rows += [line(kind, figure, values[figure]) for figure in FIGURES]
        every = {key[1] for runs in trainings for key in runs if key[0] == kind}
        if others := sorted(every - set(methods)):
            below.append(
                f"{kind}: {', '.join(targets)}; without {', '.join(others)}, not run on all of these."
            )
    if not rows:
        raise UserError(f"{roots[0]}: no three methods with the same targets; unlearn and judge more of them")
    print(markdown(rows, list(dict.fromkeys(name for row in rows for name in row))), "", *below, sep="\n")


if __name__ == "__main__":
    main()
