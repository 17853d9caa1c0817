"""Relearning: the unlearned model is fine-tuned a little, as its users might, and asked again

    L = || eps_theta(x_t, t, c) - eps ||^2

on kept images alone (benign; SPQR), or on a few images of what was forgotten. All weights of the UNet are
tuned, or low-rank updates W + U D of its attention projections (Hu et al., ICLR 2022). The model is tuned as
it samples: what its method does then goes on.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize
from tqdm import tqdm

from diffusion_model_finetuning.core.data import cached_moments, forever
from diffusion_model_finetuning.core.intervention import Intervention
from diffusion_model_finetuning.core.sd import StableDiffusion, draw_noise
from evaluation import canvas
from evaluation.canvas import Target
from evaluation.core.environment import to_device
from evaluation.data.images import CanvasImages
from evaluation.probes import Relearning
from machine_unlearning.core import concepts, embeddings
from machine_unlearning.core.acting import acted_eps

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")  # of an attention layer


class LowRank(nn.Module):
    """W -> W + U D, with U [out,r] zero at first and D [r,in] random."""

    def __init__(self, weight: torch.Tensor, rank: int, generator: torch.Generator):
        super().__init__()
        outputs, inputs = weight.shape
        drawn = torch.randn(rank, inputs, generator=generator) / math.sqrt(inputs)
        self.down = nn.Parameter(to_device(drawn, weight.device))
        self.up = nn.Parameter(torch.zeros(outputs, rank, device=weight.device))

    def forward(self, weight):
        return weight + self.up @ self.down


@contextmanager
def tunable(unet: nn.Module, weights: str, rank: int, generator: torch.Generator) -> Iterator[list]:
    """Within, the parameters that it yields can be trained: `full` or `lora`. Then the UNet is as before."""
    if weights == "full":
        before = {name: weight.detach().clone().cpu() for name, weight in unet.named_parameters()}
        try:
            yield list(unet.requires_grad_(True).parameters())
        finally:
            for name, weight in unet.requires_grad_(False).named_parameters():
                weight.copy_(before[name])
        return
    layers = [layer for name, layer in unet.named_modules() if ".attn" in name and name.endswith(PROJECTIONS)]
    added = [LowRank(layer.weight, rank, generator) for layer in layers]
    for layer, update in zip(layers, added):
        parametrize.register_parametrization(layer, "weight", update)
    try:
        yield [weight for update in added for weight in update.parameters()]
    finally:
        for layer in layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


def images_of(probe: Relearning, targets: list[Target], data: str, count: int) -> CanvasImages:
    """`count` images of the targets, spread over their cells; for 0 kept ones, as many as all steps take."""
    world = probe.world
    cells = concepts.forget_cells(world, targets) if count else concepts.kept_cells(world, targets)
    wanted = count or probe.budgets[-1] * probe.batch
    numbers = canvas.TRAIN[: math.ceil(wanted / len(cells))]
    images = CanvasImages(data, cells, numbers, world.size, "bicubic")
    images.rows = concepts.spread(images.rows, min(wanted, len(images.rows)))
    return images


def relearned(
    sd: StableDiffusion,
    act: Intervention,
    probe: Relearning,
    targets: list[Target],
    data: str,
    count: int,
    weights: str,
) -> Iterator[str]:
    """Tunes the model on `count` images, see `images_of`; yields the condition's name after each budget, when
    the model is to be asked. At the end it is what it was. The same seed for every model."""
    size, world = probe.world.size, probe.world
    images = images_of(probe, targets, data, count)
    moments = cached_moments(sd, images, embeddings.CACHE, batch=max(1, 2048 // size)).to(sd.device)
    ids = sd.tokens([world.prompt(*row[:2]) for row in images.rows])
    generator, batches = torch.Generator().manual_seed(0), forever(len(moments), probe.batch, 0)
    at_once = max(
        1, 512**2 // size**2
    )  # whose activations fit beside the weights, their gradients and averages
    with tunable(sd.unet, weights, probe.rank, generator) as parameters:
        optimizer = torch.optim.AdamW(parameters, probe.lr[weights], weight_decay=0.01)
        for step in tqdm(range(1, probe.budgets[-1] + 1), f"relearn {count} {weights}", disable=None):
            for numbers in next(batches).split(at_once):
                rows = to_device(numbers, sd.device)
                x0 = sd.sample_moments(moments[rows], generator)
                t, noise = (to_device(drawn, sd.device) for drawn in draw_noise(sd, x0, generator))
                predicted = acted_eps(sd, act, ids[rows], sd.embed(ids[rows]), sd.add_noise(x0, noise, t), t)
                (F.mse_loss(predicted, noise) * len(rows) / probe.batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            if step in probe.budgets:
                yield probe.name_of(count, weights, step)
