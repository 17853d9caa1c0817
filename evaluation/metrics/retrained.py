"""How far a model is from the one that was trained without the target, as a share of the base model's way

    D(cells) = sum || eps_model - eps_retrained ||^2 / sum || eps_base - eps_retrained ||^2

over the same noisy images of these cells, with their prompts. 0: as if the target had never been trained on;
1: as far from that as before unlearning; above 1: farther. Of kept cells, what two trainings differ in by
chance is in numerator and denominator: a model that was not changed there is at 1.
"""

import numpy as np

from evaluation import canvas
from evaluation.answers.distant import Distant
from evaluation.canvas import Target
from evaluation.probes import Distance


def images_of(plan: Distance, targets: tuple[Target, ...]) -> list[tuple[Target, tuple[str, str, int]]]:
    """Of every target, rows (theme, object, number) of the data set: so many that show it, and as many that
    show none, spread over their cells."""
    world, chosen = plan.world, []
    cells = [(theme, obj) for theme in world.themes for obj in world.objects]
    for target in targets:
        parts = [target], targets
        for part, shows in zip(parts, (True, False)):
            own = [cell for cell in cells if any(gone.covers(*cell) for gone in part) == shows]
            rows = [(*cell, number) for cell in own for number in canvas.TEST]
            count = min(plan.images, len(rows))
            chosen += [(target, rows[i * len(rows) // count]) for i in range(count)]
    return chosen


def distance_by_seed(rows: list[Distant], plan: Distance) -> dict[str, np.ndarray]:
    """`target` and `kept` -> [seeds], means over the targets that were forgotten together."""
    targets = {row.target: canvas.parse_targets(row.target)[0] for row in rows}
    sums = {"target": {}, "kept": {}}
    for row in rows:
        part = "target" if targets[row.target].covers(row.theme, row.object) else "kept"
        total = sums[part].setdefault((row.target, row.seed), np.zeros(2))
        total += row.model, row.base
    return {
        part: np.mean([[np.divide(*own[target, seed]) for seed in plan.seeds] for target in targets], 0)
        for part, own in sums.items()
    }
