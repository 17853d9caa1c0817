"""How far a model is from the one that was trained without the target, as a share of the base model's way

    D(cells) = sum || eps_model - eps_retrained ||^2 / sum || eps_base - eps_retrained ||^2

over the same noisy images of these cells, with their prompts. 0: as if the target had never been trained on;
1: as far from that as before unlearning; above 1: farther. Of kept cells, what two trainings differ in by
chance is in numerator and denominator: a model that was not changed there is at 1.
"""

import numpy as np

from evaluation import canvas
from evaluation.answers.distant import Distant


def distance_by_seed(rows: list[Distant], seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """`target` and `kept` -> [seeds], means over the targets that were forgotten together."""
    targets = {row.target: canvas.parse_targets(row.target)[0] for row in rows}
    sums = {"target": {}, "kept": {}}
    for row in rows:
        part = "target" if targets[row.target].covers(row.theme, row.object) else "kept"
        total = sums[part].setdefault((row.target, row.seed), np.zeros(2))
        total += row.model, row.base
    return {
        part: np.mean([[np.divide(*own[target, seed]) for seed in seeds] for target in targets], 0)
        for part, own in sums.items()
    }
