"""How sure a mean over targets is: 95 % bootstrap intervals over targets and seeds

A figure is the mean of a table [targets, seeds]: every class has equally many images of each seed, so the
figure of a target is the mean of those of its seeds. A replicate draws targets and, independently, seeds with
replacement and takes the mean again; the interval runs from the 2.5 % to the 97.5 % point of the replicates.

All targets share the noise of a seed, hence one draw of seeds for all (the pigeonhole bootstrap, Owen,
Annals of Applied Statistics 2007), which errs on the wide side. An interval of no width says that all targets
and seeds agree, not that others would. The draws depend on the shape of the table alone: they are the same
for every method and on every machine.
"""

from functools import cache

import numpy as np

REPLICATES = 2000
LEVEL = 95  # percent


@cache
def draws(targets: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each replicate drew every target [REPLICATES, targets] and every seed [REPLICATES, seeds]."""
    generator, times = np.random.default_rng(0), []
    for count in (targets, seeds):
        drawn = generator.integers(count, size=(REPLICATES, count))
        times.append((drawn[:, :, None] == np.arange(count)).sum(1))
    return tuple(times)


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """Of the mean of [targets, seeds]; None for a single value, which has no spread."""
    if values.size < 2:
        return None
    rows, columns = draws(*values.shape)
    means = np.einsum("rt,ts,rs->r", rows, values, columns, optimize=True) / values.size
    low, high = np.percentile(means, [50 - LEVEL / 2, 50 + LEVEL / 2])
    return float(low), float(high)
