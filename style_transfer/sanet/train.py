"""Trains SANet: attention, merging and decoder; VGG-19 stays as it is (Park & Lee, CVPR 2019, section 3.3)

    python -m style_transfer.train sanet --data mini --out runs/train/sanet

    L = w_c L_content + w_s L_style + w_1 L_identity1 + w_2 L_identity2

    L_content     normalised relu4_1 and relu5_1 of image(c,s) against those of c
    L_style       mean and deviation of the channels of relu1_1 ... relu5_1 against those of s
    L_identity1   |image(c,c) - c|^2 + |image(s,s) - s|^2
    L_identity2   the same of relu1_1 ... relu5_1

The weights are the code's, 1, 3, 50 and 1; the paper exchanges the last two.
"""

import torch

from style_transfer.core.training import Training, decayed
from style_transfer.core.training_losses import four_losses, weigh
from style_transfer.sanet.model import FILES, SANet


def sanet_losses(network: SANet, content: torch.Tensor, style: torch.Tensor) -> dict[str, torch.Tensor]:
    """Contents and styles [B,3,H,W] in [0,1] -> the losses without their weights."""
    both, n = torch.cat([content, style]), len(content)
    with torch.no_grad():
        features = network.encoder(both)
    contents, styles = network.transform.content(*features[3:]), network.transform.style(*features[3:])
    c, s = slice(n), slice(n, None)  # the places of contents and of styles
    image = network.decode(tuple(x[c] for x in contents), tuple(x[s] for x in styles))
    same = network.decode(contents, styles)
    return four_losses(network.encoder, both, features, c, s, network.encoder(image), same)


def train(run: Training) -> None:
    s = run.settings
    encoder = run.encoder()
    network = SANet(encoder.widths).to(run.device)
    network.encoder = encoder
    run.begin(network.decoder, encoder.widths)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], s.lr)
    for step, content, style in run.batches(network=network, optimizer=optimizer):
        optimizer.param_groups[0]["lr"] = run.cooled(decayed(s.lr, s.decay, step))
        terms = sanet_losses(network, content, style)
        run.step(optimizer, weigh(terms, s.weights), **terms)
    run.save(network, FILES)
