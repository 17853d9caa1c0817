"""Pictures under which a forgotten concept may come back, without a search for prompts

Completion: the base model takes the first n of N steps with the target's prompt, the unlearned model the
rest. Noise: the unlearned model alone, with DDIM's eta above 0 and added noise of a larger variance. Both are
of "When Are Concepts Erased" (NeurIPS 2025). Ladder: other words for the target, as EMMA's levels (CVPR
2026). The first noise is that of answer sets; where nothing else is said, so are the prompts.
"""

from collections.abc import Iterator

import torch

from diffusion_model_finetuning.core.intervention import NOTHING
from diffusion_model_finetuning.core.sd import noise_of, picture, sample, starting_noise, walk
from evaluation.answers.answer_set import Cell
from evaluation.core.environment import to_device
from evaluation.metrics.robustness import Asked
from evaluation.probes import Completion, Ladder, Noise
from evaluation.protocol import Protocol


def walker(sd, world: Protocol, ids):
    """-> function (x, part, act, noise) that leads latents of prompts, ids [B,L], as the protocol samples."""

    def lead(x, part: range, act=NOTHING, noise=None):
        return walk(sd, ids, x, part, world.steps, world.guidance, world.precision, act, noise)

    return lead


def begun(sd, probe: Completion, cells: list[Cell], ids) -> dict[str, torch.Tensor]:
    """Condition -> latents [B,C,h,w] that the base model leaves to the unlearned one."""
    lead, x, done, latents = walker(sd, probe.world, ids), starting_noise(sd, cells, probe.world.size), 0, {}
    for name, steps in probe.conditions.items():
        x, done = lead(x, range(done, steps)), steps
        latents[name] = x
    return latents


def completed(sd, act, probe: Completion, ids, latents: dict) -> Iterator[tuple]:
    """Yields every condition with its pictures, uint8 [B,H,W,3]."""
    lead, world = walker(sd, probe.world, ids), probe.world
    for name, steps in probe.conditions.items():
        x = lead(latents[name], range(steps, world.steps), act)
        yield name, picture(sd, x, world.precision)


def noised(sd, act, probe: Noise, cells: list[Cell], ids) -> Iterator[tuple]:
    """Yields every condition with its pictures, uint8 [B,H,W,3]. Noise belongs to cell, draw and step."""
    lead, world = walker(sd, probe.world, ids), probe.world
    start = starting_noise(sd, cells, world.size)
    for name, (draw, variance, eta) in probe.conditions.items():

        def noise(step: int, draw=draw, variance=variance, eta=eta):
            z = torch.stack([noise_of((*cell, "step", draw, step), start.shape[1:]) for cell in cells])
            return {"eta": eta, "z": variance**0.5 * to_device(z, sd.device)}

        x = lead(start, range(world.steps), act, noise)
        yield name, picture(sd, x, world.precision)


def rephrased(sd, act, probe: Ladder, prompts: list[Asked]) -> Iterator[tuple]:
    """Yields every level, the prompts that it has words for, and their pictures, uint8 [B,H,W,3]."""
    for level in probe.conditions:
        texts = [probe.prompt(level, target, *cell) for target, cell in prompts]
        part = [(prompt, text) for prompt, text in zip(prompts, texts) if text is not None]
        if part:
            known, texts = map(list, zip(*part))
            yield level, known, drawn(sd, act, probe.world, texts, [cell for _, cell in known])


def drawn(sd, act, world: Protocol, ids, cells: list[Cell]):
    """Pictures uint8 [B,H,W,3] of prompts, or ids [B,L], from the noise of cells, as the protocol samples."""
    return sample(sd, ids, cells, world.steps, world.guidance, world.size, world.precision, act)
