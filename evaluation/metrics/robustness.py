"""How well a model stays unlearned under attack, and under probes

    UA           share of the target's prompts whose pictures are not recognised as it
    UA_attacked  the same after the attack on each of them: the robust UA
    ASR          1 - UA_attacked: the attack's success rate, what was recognised before included
    recovery     (UA - UA_attacked) / UA: the share of what was forgotten that the attack brought back

Prompts and recognition are those of UA, see `metrics.figures.select`.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from evaluation import canvas
from evaluation.answers.answer_set import Cell
from evaluation.answers.attacked import Attacked
from evaluation.answers.predictions import DOMAINS, Prediction
from evaluation.answers.probed import PLAIN, Probed
from evaluation.metrics.figures import select
from evaluation.probes import NEIGHBOUR, Prompted, Relearning

KEPT = {"style": "CRA_kept", "object": "CRA_kept", "pair": "UP"}  # of a kind of target: what it leaves alone
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


def kept(plan: Relearning, targets: tuple[canvas.Target, ...]) -> list[Asked]:
    """Prompts that tell what is kept, seed by seed: of the images that `KEPT` counts, spread evenly."""
    world, prompts = plan.world, []
    for target in targets:
        selection = select(KEPT[target.kind], target, targets, world)
        images = selection.images if selection else np.zeros((0, 0))
        cells = [(world.themes[t], world.objects[o]) for t, o in np.argwhere(images)]
        cells = [cells[i * len(cells) // plan.kept] for i in range(min(plan.kept, len(cells)))]
        prompts += [Asked(target, Cell(*cell, seed)) for seed in plan.seeds for cell in cells]
    return prompts


def probe_by_seed(rows: list[Probed], probe: Prompted) -> dict[str, np.ndarray]:
    """Figure -> [seeds] in [0,1], a mean over the targets of one probe; their mean is the figure.

    UA is of the plain pictures, as ever. By a measure of the probe it is the share of the prompts whose
    target is recognised under none of those of its conditions that they were drawn under; a measure that has
    none for some prompt is left out: the base model is not completed by itself. Recovery names its measure, a
    headline. CRA is of the prompts of `kept`, under every condition that they were drawn under. neighbour:
    the share of the ladder's neighbours that are recognised as such.
    """
    targets = {row.target: canvas.parse_targets(row.target)[0] for row in rows}
    of_target = [row for row in rows if targets[row.target].covers(row.seen.theme, row.seen.object)]
    shown = {(row.target, row.seen[:3], row.condition): row.shown for row in of_target}
    prompts = list(dict.fromkeys(key[:2] for key in shown))

    def mean(flags: list[tuple]) -> np.ndarray:
        """[targets, seeds] of (target, seed, value)."""
        values = defaultdict(list)
        for target, seed, value in flags:
            values[target, seed].append(value)
        return np.array([[np.mean(values[target, seed]) for seed in probe.seeds] for target in targets])

    figures, measures = {}, {f"UA_{name}": conditions for name, conditions in probe.measures.items()}
    for name, conditions in ({"UA": [PLAIN]} | measures).items():
        drawn = [[shown[*prompt, c] for c in conditions if (*prompt, c) in shown] for prompt in prompts]
        if all(drawn):
            figures[name] = mean(
                [(t, seed, not any(flags)) for (t, (*_, seed)), flags in zip(prompts, drawn)]
            )
    for name in probe.headlines:
        if f"UA_{name}" in figures:
            with np.errstate(invalid="ignore", divide="ignore"):
                figures[f"recovery_{name}"] = (figures["UA"] - figures[f"UA_{name}"]) / figures["UA"]
    retained = defaultdict(list)
    for row in rows:
        if not targets[row.target].covers(row.seen.theme, row.seen.object):
            name = f"CRA_{row.condition.replace(' ', '_')}".removesuffix(f"_{PLAIN}")
            retained[name].append((row.target, row.seen.seed, right(targets[row.target], row.seen)))
        elif row.condition == NEIGHBOUR:
            labels = row.seen.theme_seen, row.seen.object_seen
            near = probe.words[row.target][NEIGHBOUR] in labels
            retained[NEIGHBOUR].append((row.target, row.seen.seed, near))
    for name, flags in retained.items():
        if {target for target, *_ in flags} == {*targets}:
            figures[name] = mean(flags)
    return {name: value.mean(0) for name, value in figures.items() if np.isfinite(value).all()}


def right(target: canvas.Target, seen: Prediction) -> float:
    """Share of the labels of a kept picture that are right, of those that `KEPT` looks at."""
    domains = {"style": ["object"], "object": ["theme"], "pair": DOMAINS}[target.kind]
    return float(np.mean([getattr(seen, domain) == getattr(seen, f"{domain}_seen") for domain in domains]))


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
