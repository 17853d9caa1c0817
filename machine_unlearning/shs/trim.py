"""SHS's first stage: find the weights most connected to the images to forget, and draw them anew.

    s = | theta * sum over batches of |grad L_den| |        tau: the int(keep N)-th smallest of all N entries

Weights with s > tau are drawn anew where the layer is one of the chosen; elsewhere they stay.
"""

import math

import torch
from torch import nn

from machine_unlearning.core import params
from machine_unlearning.core.forget import denoising_loss


def sensitivity(unet, batches) -> dict[str, torch.Tensor]:
    """Name -> scores s of every weight. The sum is of absolute values: batches cannot cancel."""
    weights = params.trainable(unet, "full")
    scores = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for batch in batches:
        denoising_loss(unet, batch).backward()
        for name, weight in weights.items():
            scores[name] += weight.grad.abs_()
        unet.zero_grad(set_to_none=True)
    return {name: score.mul_(weights[name].detach().abs()) for name, score in scores.items()}


def threshold(scores: dict[str, torch.Tensor], keep: float) -> float:
    """tau: a share `keep` of all entries, rounded down, lies at or below it."""
    count = int(keep * sum(score.numel() for score in scores.values()))
    return params.kth_smallest(scores.values(), count) if count else -math.inf


def fresh(name: str, weight: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """New values: a bias is 0, all else normal with deviation 0.02 (cut at 2, a hundred deviations)."""
    new = torch.zeros(weight.shape)
    if not name.endswith(".bias"):
        nn.init.trunc_normal_(new, std=0.02, generator=generator)
    return new.to(weight)


@torch.no_grad()
def trim(weights: dict[str, nn.Parameter], scores, tau: float, draw) -> int:
    """Replaces the entries with a score above tau by those of `draw(name, weight)`; returns how many."""
    count = 0
    for name, weight in weights.items():
        reset = scores[name] > tau
        weight.copy_(torch.where(reset, draw(name, weight), weight))
        count += int(reset.sum())
    return count
