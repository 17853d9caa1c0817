"""Trains MAST's decoders to give images back; nothing else is learned (Huo et al., ICCV 2021)

    python -m style_transfer.train mast --data mini --out runs/train/mast

    L = sum_l L_pixel + w_f L_feature + w_tv L_tv        l = relu4_1, relu3_1, relu2_1;  r = decoder_l(F_l(x))

    L_pixel     |r - x|^2
    L_feature   |F_l(r) - F_l(x)|^2
    L_tv        squared differences of neighbours in r, summed; its weight falls as 1 / (1 + decay step)

The authors published no training. These losses and their weights are ours; of the original's code stem the
form of the decay and the weight of L_tv. Images x are photos and paintings, half and half, as the decoders
meet features of both. They share no weights, so one optimizer trains all.
"""

import torch
import torch.nn.functional as F

from style_transfer.core import vgg
from style_transfer.core.training import Training, decayed
from style_transfer.core.training_losses import weigh
from style_transfer.mast.model import FILES, LEVELS, MAST


def mast_losses(network: MAST, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """[B,3,H,W] in [0,1], sides multiples of 8 -> the losses of all decoders without their weights."""
    with torch.no_grad():
        features = network.features(images, LEVELS)
    made = {level: decoder(features[level]) for level, decoder in network.decoders.items()}
    again = {level: network.features(image, [level])[level] for level, image in made.items()}
    return {
        "pixel": sum(F.mse_loss(image, images) for image in made.values()),
        "feature": sum(F.mse_loss(again[level], features[level]) for level in made),
        "tv": sum(variation(image) for image in made.values()).mean(),
    }


def variation(images: torch.Tensor) -> torch.Tensor:
    """Sum of the squared differences of pixels next to each other: [B,C,H,W] -> [B]."""
    return sum(images.diff(dim=axis).square().flatten(1).sum(1) for axis in (2, 3))


def train(run: Training) -> None:
    s = run.settings
    encoder = run.encoder()
    network = MAST(encoder.widths).to(run.device)
    vgg.copy(encoder, network.encoder)
    network.encoder.requires_grad_(False)
    run.begin(network.decoders["r41"], encoder.widths)
    optimizer = torch.optim.Adam(network.decoders.parameters(), s.lr)
    for step, content, style in run.batches(network=network, optimizer=optimizer):
        optimizer.param_groups[0]["lr"] = run.cooled(decayed(s.lr, s.decay, step))
        terms = mast_losses(network, torch.cat([content, style]))
        weights = {**s.weights, "tv": decayed(s.weights.tv, s.tv_decay, step)}
        run.step(optimizer, weigh(terms, weights), **terms)
    run.save(network, FILES)
