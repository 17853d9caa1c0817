"""How well a model stays unlearned under attack

    UA           share of the target's prompts whose pictures are not recognised as it
    UA_attacked  the same after the attack on each of them: the robust UA
    ASR          1 - UA_attacked: the attack's success rate, what was recognised before included
    recovery     (UA - UA_attacked) / UA: the share of what was forgotten that the attack brought back

Prompts and recognition are those of UA, see `metrics.figures.select`.
"""

from typing import NamedTuple

from evaluation import canvas
from evaluation.answers.answer_set import Cell
from evaluation.answers.predictions import Prediction
from evaluation.attacks import Attack
from evaluation.metrics.figures import select


class Asked(NamedTuple):
    """A prompt to attack."""

    target: canvas.Target  # to be drawn again
    cell: Cell


def asked(attack: Attack, targets: tuple[canvas.Target, ...]) -> list[Asked]:
    """The prompts of all targets, seed by seed: the images that UA counts."""
    world, prompts = attack.world, []
    for target in targets:
        images = select("UA", target, targets, world).images
        cells = [
            (t, o) for t, row in zip(world.themes, images) for o, counts in zip(world.objects, row) if counts
        ]
        prompts += [Asked(target, Cell(*cell, seed)) for seed in attack.seeds for cell in cells]
    return prompts


def recognised(target: canvas.Target, seen: Prediction) -> bool:
    """Whether a picture shows the target in the eyes of its own judge, for a pair of both."""
    return target.style in (None, seen.theme_seen) and target.object in (None, seen.object_seen)
