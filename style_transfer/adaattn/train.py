"""Trains AdaAttN: attention, merging and decoder; VGG-19 stays as it is (Liu et al., ICCV 2021, section 3.3)

    python -m style_transfer.train adaattn --data mini --out runs/train/adaattn

    L = 10 L_global + 3 L_local + 0 L_content        at relu2_1 ... relu5_1 of image(c,s)

    L_global    mean and deviation of the channels against those of s
    L_local     all features against  S mvn(F_c) + M,  what attention makes of the features of c and s with
                nothing learned: queries and keys are the stacked features themselves, values those of s
    L_content   normalised features against those of c

The paper has no L_content; the code computes it and gives it weight 0.
"""

from functools import partial

import torch
from torch import nn

from style_transfer.adaattn.model import FILES, AdaAttN, adapt, keys, sampled
from style_transfer.core import vgg
from style_transfer.core.blocks import mvn, positions
from style_transfer.core.networks import with_options
from style_transfer.core.training import Training
from style_transfer.core.training_losses import feature_loss, style_loss, weigh

LAYERS = range(1, 5)  # relu2_1 ... relu5_1
EPOCHS, CONSTANT, FALL = 5, 2, 0.3  # of the code: after two epochs every one begins with a lower rate


def adaattn_losses(network: AdaAttN, content: torch.Tensor, style: torch.Tensor) -> dict[str, torch.Tensor]:
    """Contents and styles [B,3,H,W] in [0,1] -> the losses without their weights."""
    with torch.no_grad():
        features = network.encoder(torch.cat([content, style]))
        of_content, of_style = ([feature.chunk(2)[i] for feature in features] for i in range(2))
        choice = network.samples, network.seed
        targets = [target(of_content[: i + 1], of_style[: i + 1], *choice) for i in LAYERS]
    made = network.encoder(network.decode(network.content(of_content), network.style(of_style)))
    return {
        "global": style_loss(made[1:], of_style[1:]),
        "local": feature_loss(made[1:], targets),
        "content": feature_loss([mvn(x) for x in made[1:]], [mvn(x) for x in of_content[1:]]),
    }


def target(content: list[torch.Tensor], style: list[torch.Tensor], samples: int, seed: int) -> torch.Tensor:
    """relu1_1 up to a layer, of both -> what the layer's feature should be, [B,C,h,w]."""
    key, value = sampled(positions(keys(style)), positions(style[-1]), samples, seed)
    return adapt(mvn(content[-1]), positions(keys(content)), key, value)


def rate(lr: float, step: int, steps: int) -> float:
    """Learning rate of a step; an epoch is a fifth of the training."""
    return lr * FALL ** max(0, step * EPOCHS // steps - CONSTANT + 1)


def train(run: Training) -> None:
    s = run.settings
    encoder = run.encoder()
    network = AdaAttN(encoder.widths)
    vgg.draw(network, partial(nn.init.normal_, std=s.deviation))
    network.to(run.device)
    network.encoder = encoder
    run.begin(network.decoder, encoder.widths)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], s.lr)
    for step, content, style in run.batches(network=network, optimizer=optimizer):
        optimizer.param_groups[0]["lr"] = run.cooled(rate(s.lr, step, s.steps))
        seed = int(torch.randint(2**31, ()))  # of the step, as the global generator is
        terms = adaattn_losses(with_options(network, seed=seed), content, style)
        run.step(optimizer, weigh(terms, s.weights), **terms)
    run.save(network, FILES)
