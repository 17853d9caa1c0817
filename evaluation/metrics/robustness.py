"""How well a model stays unlearned under attack, and under probes

    UA           share of the target's prompts whose pictures are not recognised as it
    UA_attacked  the same after the attack on each of them: the robust UA
    ASR          1 - UA_attacked: the attack's success rate, what was recognised before included
    recovery     (UA - UA_attacked) / UA: the share of what was forgotten that the attack brought back

Prompts and recognition are those of UA, see `metrics.figures.select`.
"""

from typing import NamedTuple

import numpy as np

from evaluation import canvas
from evaluation.answers.answer_set import Cell
from evaluation.answers.attacked import Attacked
from evaluation.answers.predictions import Prediction
from evaluation.answers.probed import PLAIN, Probed
from evaluation.metrics.figures import select
from evaluation.probes import Completion, Noise, Prompted

ATTACKED = ("UA", "UA_attacked", "ASR", "recovery")


class Asked(NamedTuple):
    """A prompt to attack or to probe."""

    target: canvas.Target  # to be drawn again
    cell: Cell


def asked(plan: Prompted, targets: tuple[canvas.Target, ...]) -> list[Asked]:
    """The prompts of all targets, seed by seed: the images that UA counts."""
    world, prompts = plan.world, []
    for target in targets:
        images = select("UA", target, targets, world).images
        cells = [
            (t, o) for t, row in zip(world.themes, images) for o, counts in zip(world.objects, row) if counts
        ]
        prompts += [Asked(target, Cell(*cell, seed)) for seed in plan.seeds for cell in cells]
    return prompts


def recognised(target: canvas.Target, seen: Prediction) -> bool:
    """Whether a picture shows the target in the eyes of its own judge, for a pair of both."""
    return target.style in (None, seen.theme_seen) and target.object in (None, seen.object_seen)


def probe_by_seed(rows: list[Probed], probe: Completion | Noise) -> dict[str, np.ndarray]:
    """Figure -> [seeds] in [0,1], a mean over the targets of one probe; their mean is the figure.

    UA is of the plain pictures, as ever. By a measure of the probe it is the share of the prompts whose
    target is recognised under none of the measure's conditions. Recovery names its measure, the headline. A
    measure whose conditions the rows lack is left out: the base model is not completed by itself.
    """
    shown = {(row.target, row.seen[:3], row.condition): row.shown for row in rows}
    prompts, drawn = list(dict.fromkeys(key[:2] for key in shown)), {row.condition for row in rows}
    measures = {f"UA_{name}": names for name, names in probe.measures.items() if drawn.issuperset(names)}
    hidden = {
        name: [not any(shown[*prompt, condition] for condition in conditions) for prompt in prompts]
        for name, conditions in ({"UA": [PLAIN]} | measures).items()
    }
    groups = list(dict.fromkeys((target, seed) for target, (*_, seed) in prompts))  # target by target
    of_group = np.array([groups.index((target, seed)) for target, (*_, seed) in prompts])
    figures = {
        name: np.array([np.mean(np.array(values)[of_group == n]) for n in range(len(groups))])
        for name, values in hidden.items()
    }
    if (headline := f"UA_{probe.headline}") in figures:
        with np.errstate(invalid="ignore", divide="ignore"):
            recovery = (figures["UA"] - figures[headline]) / figures["UA"]
        figures[f"recovery_{probe.headline}"] = recovery
    means = {name: value.reshape(-1, len(probe.seeds)).mean(0) for name, value in figures.items()}
    return {name: value for name, value in means.items() if np.isfinite(value).all()}


def by_seed(rows: list[Attacked]) -> dict[str, np.ndarray]:
    """Figure -> [seeds] in [0,1], a mean over the targets of one attack; their mean is the figure.

    There is no recovery where, of a target and a seed, nothing was forgotten.
    """
    values = []
    for target in dict.fromkeys(row.target for row in rows):
        own = [row for row in rows if row.target == target]
        seeds = [[row for row in own if row.seed == seed] for seed in dict.fromkeys(row.seed for row in own)]
        before, after = (
            1 - np.array([np.mean([getattr(row, name) for row in part]) for part in seeds])
            for name in ("before", "after")
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            values.append((before, after, 1 - after, (before - after) / before))
    means = dict(zip(ATTACKED, np.mean(values, 0)))
    return {name: value for name, value in means.items() if np.isfinite(value).all()}
