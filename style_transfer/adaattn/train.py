"""Trains AdaAttN: attention, merging and decoder; VGG-19 stays as it is (Liu et al., ICCV 2021, section 3.3)

    python -m style_transfer.adaattn.train --data mini --out runs/train/adaattn

    L = 10 L_global + 3 L_local + 0 L_content        at relu2_1 ... relu5_1 of image(c,s)

    L_global    mean and deviation of the channels against those of s
    L_local     all features against  S mvn(F_c) + M,  what attention makes of the features of c and s with
                nothing learned: queries and keys are the stacked features themselves, values those of s
    L_content   normalised features against those of c

The paper has no L_content; the code computes it and gives it weight 0.
"""

from evaluation.core.errors import command, early
from style_transfer.core import cli

early(__name__, cli.parse_train_with_encoder, __doc__, __file__)

import torch
from torch import nn

from style_transfer.adaattn.model import FILES, SAMPLES, AdaAttN, adapt, keys, sampled
from style_transfer.core import losses, vgg
from style_transfer.core.blocks import mvn, positions
from style_transfer.core.training import Training, weigh

LAYERS = range(1, 5)  # relu2_1 ... relu5_1
EPOCHS, CONSTANT, FALL = 5, 2, 0.3  # of the code: after two epochs every one begins with a lower rate


def adaattn_losses(
    network: AdaAttN, content: torch.Tensor, style: torch.Tensor, seed: int, samples: int = SAMPLES
) -> dict[str, torch.Tensor]:
    """Contents and styles [B,3,H,W] in [0,1] -> the losses without their weights. `seed`: of positions."""
    with torch.no_grad():
        features = network.encoder(torch.cat([content, style]))
        of_content, of_style = ([feature.chunk(2)[i] for feature in features] for i in range(2))
        targets = [target(of_content[: i + 1], of_style[: i + 1], samples, seed) for i in LAYERS]
    image = network.decode(network.content(of_content), network.style(of_style, samples, seed))
    made = network.encoder(image)
    asked, given = losses.seen(of_style).statistics, losses.seen(made).statistics
    return {
        "global": sum(losses.feature_loss(given[i], asked[i]) for i in LAYERS).mean(),
        "local": losses.feature_loss(made[1:], targets).mean(),
        "content": sum(losses.square(mvn(made[i]), mvn(of_content[i])) for i in LAYERS).mean(),
    }


def target(content: list[torch.Tensor], style: list[torch.Tensor], samples: int, seed: int) -> torch.Tensor:
    """relu1_1 up to a layer, of both -> what the layer's feature should be, [B,C,h,w]."""
    key, value = sampled(positions(keys(style)), positions(style[-1]), samples, seed)
    return adapt(mvn(content[-1]), positions(keys(content)), key, value)


def rate(lr: float, step: int, steps: int) -> float:
    """Learning rate of a step; an epoch is a fifth of the training."""
    return lr * FALL ** max(0, step * EPOCHS // steps - CONSTANT + 1)


def initialise(part: nn.Module, deviation: float) -> None:
    """Normal weights, no bias."""
    for layer in part.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, 0, deviation)
            nn.init.zeros_(layer.bias)


@command
def main(argv=None):
    args = cli.parse_train_with_encoder(__doc__, __file__, argv)
    s = args.settings
    with Training(args) as run:
        encoder = run.encoder()
        widths = vgg.widths_of(encoder)
        network = AdaAttN(widths)
        initialise(network, s.deviation)
        network.to(run.device)
        network.encoder = encoder
        run.mirror(network.decoder, widths)
        optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], s.lr)
        for step, content, style in run.batches(network=network, optimizer=optimizer):
            optimizer.param_groups[0]["lr"] = rate(s.lr, step, s.steps)
            seed = int(torch.randint(2**31, ()))  # of the step, as the global generator is
            terms = adaattn_losses(network, content, style, seed)
            run.step(optimizer, weigh(terms, s.weights), **terms)
        run.save(network, FILES)


if __name__ == "__main__":
    main()
