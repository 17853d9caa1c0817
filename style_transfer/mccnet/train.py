"""Trains MCCNet: correlation module and decoder; VGG-19 stays as it is (Deng et al., AAAI 2021, section 3.3)

    python -m style_transfer.train mccnet --data mini --out runs/train/mccnet

    L = w_c L_content + w_s L_style + w_1 L_identity1 + w_2 L_identity2 + w_n L_noise + w_tv L_tv

    L_content     normalised relu4_1 and relu5_1 of image(c,s) against those of c
    L_style       mean and deviation of the channels of relu1_1 ... relu5_1 against those of s
    L_identity1   |image(c,c) - c|^2 + |image(s,s) - s|^2
    L_identity2   the same of relu1_1 ... relu5_1
    L_noise       |image(c + noise, s) - image(c,s)|^2, which stands for a change of light in a video
    L_tv          sum |image(c,s) - its neighbour to the right| + |... - its neighbour below|

The noise is Gaussian; its deviation is drawn for every step. The weights are the code's.
"""

import torch
import torch.nn.functional as F
from torch import nn

from evaluation.core.errors import UserError
from style_transfer.core.blocks import mvn
from style_transfer.core.training import Training, decayed
from style_transfer.core.training_losses import four_losses, weigh
from style_transfer.mccnet.model import FILES, MCCNet


def mccnet_losses(network: MCCNet, content: torch.Tensor, style: torch.Tensor, noise: torch.Tensor) -> dict:
    """Contents and styles [B,3,H,W] in [0,1], noise of that shape -> the losses without their weights."""
    both, n, mcc = torch.cat([content, style]), len(content), network.module["MCCN"]
    with torch.no_grad():
        features = network.encoder(both)
    factors = mcc.weigh(features[3])
    contents, styles = (features[3], mcc.f(mvn(features[3])), factors), (factors,)
    c, s = slice(n), slice(n, None)  # the places of contents and of styles
    image = network.decode(tuple(x[c] for x in contents), (factors[s],))
    same = network.decode(contents, styles)
    noisy = network.decode(network.encode_content(content + noise), (factors[s],))
    return four_losses(network.encoder, both, features, c, s, network.encoder(image), same) | {
        "noise": F.mse_loss(noisy, image),
        "tv": image.diff(dim=2).abs().sum() + image.diff(dim=3).abs().sum(),
    }


def train(run: Training) -> None:
    s = run.settings
    if len(s.noise) != 2 or s.noise[0] > s.noise[1]:
        raise UserError(f"noise={list(s.noise)}: expected two numbers, the smaller one first")
    encoder = run.encoder()
    network = MCCNet(encoder.widths).to(run.device)
    network.encoder = encoder
    run.begin(network.decoder, encoder.widths)
    nn.init.ones_(network.module["MCCN"].g.bias)  # which is divided by
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], s.lr)
    for step, content, style in run.batches(network=network, optimizer=optimizer):
        optimizer.param_groups[0]["lr"] = run.cooled(decayed(s.lr, s.decay, step))
        deviation = torch.empty(()).uniform_(*s.noise).item()
        noise = deviation * torch.randn(content.shape).to(content)
        terms = mccnet_losses(network, content, style, noise)
        run.step(optimizer, weigh(terms, s.weights), **terms)
    run.save(network, FILES)
