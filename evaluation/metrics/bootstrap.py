"""How sure a mean over targets is: 95 % bootstrap intervals over targets and seeds

A figure is the mean of a table [targets, seeds]: every class has equally many images of each seed, so the
figure of a target is the mean of those of its seeds. A replicate draws targets and, independently, seeds with
replacement and takes the mean again; the interval runs from the 2.5 % to the 97.5 % point of the replicates.

All targets share the noise of a seed, hence one draw of seeds for all (the pigeonhole bootstrap, Owen,
Annals of Applied Statistics 2007), which errs on the wide side. An interval of no width says that all targets
and seeds agree, not that others would. The draws depend on the shape of the table alone: they are the same
for every method and on every machine.
"""

from statistics import fmean

import numpy as np

from evaluation import canvas
from evaluation.answers.predictions import read_predictions
from evaluation.metrics.figures import target_figures
from evaluation.reporting.collect import Judged

REPLICATES = 2000
LEVEL = 95  # percent


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """Of the mean of [targets, seeds]; None for a single value, which has no spread."""
    if values.size < 2:
        return None
    generator, (targets, seeds) = np.random.default_rng(0), values.shape
    rows = generator.integers(targets, size=(REPLICATES, targets, 1))
    columns = generator.integers(seeds, size=(REPLICATES, 1, seeds))
    low, high = np.percentile(values[rows, columns].mean((1, 2)), [50 - LEVEL / 2, 50 + LEVEL / 2])
    return float(low), float(high)


def by_seed(one: Judged) -> dict[str, np.ndarray]:
    """Figure -> [seeds], percent, in the protocol's order of seeds; read from the predictions."""
    rows, _ = read_predictions(one.path / "answers")
    targets = canvas.parse_targets(one.target)
    values = {figure: [] for figure in one.figures}
    for seed in one.protocol.seeds:
        chosen = [row for row in rows if row.seed == seed and row.theme in one.protocol.counted]
        figures = [target_figures(chosen, target, targets) for target in targets]
        for name, each in values.items():
            each.append(100 * fmean(figure[name]["value"] for figure in figures if figure.get(name)))
    return {name: np.array(each) for name, each in values.items()}
