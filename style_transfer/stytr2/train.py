"""Trains StyTr2: patches, transformer and decoder; VGG-19 only looks (Deng et al., CVPR 2022, section 3.3)

    python -m style_transfer.train stytr2 --data mini --out runs/train/stytr2

    L = w_c L_content + w_s L_style + w_1 L_identity1 + w_2 L_identity2

    L_content     normalised relu4_1 and relu5_1 of image(c,s) against those of c
    L_style       mean and deviation of the channels of relu1_1 ... relu5_1 against those of s
    L_identity1   |image(c,c) - c|^2 + |image(s,s) - s|^2
    L_identity2   the same of relu1_1 ... relu5_1

In image(s,s) the style is the content, so its positions are its own. The learning rate rises from a quarter.
"""

import torch
from torch import nn

from style_transfer.core.training import Training, decayed
from style_transfer.core.training_losses import four_losses, weigh
from style_transfer.stytr2.model import FILES, StyTr2


def stytr2_losses(network: StyTr2, encoder: nn.Module, content: torch.Tensor, style: torch.Tensor) -> dict:
    """Contents and styles [B,3,H,W] in [0,1], of one size -> the losses without their weights."""
    both, n = torch.cat([content, style]), len(content)
    with torch.no_grad():
        features = encoder(both)
    contents, styles = network.encode_content(both), network.encode_style(both)
    c, s = slice(n), slice(n, None)  # the places of contents and of styles
    image = network.decode(tuple(x[c] for x in contents), tuple(x[s] for x in styles))
    same = network.decode(contents, styles)
    return four_losses(encoder, both, features, c, s, encoder(image), same)


def warmed(lr: float, warmup: int, decay: float, step: int) -> float:
    """From lr / 4 in a straight line to lr, then as `decayed`."""
    return lr * (1 + 3 * step / warmup) / 4 if step < warmup else decayed(lr, decay, step - warmup)


def train(run: Training) -> None:
    s = run.settings
    encoder = run.encoder()
    widths = encoder.widths
    network = StyTr2(widths[:4], 4 * widths[3]).to(run.device).train()  # with dropout
    run.begin(network.decoder, widths)
    optimizer = torch.optim.Adam(network.parameters(), s.lr)
    for step, content, style in run.batches(network=network, optimizer=optimizer):
        optimizer.param_groups[0]["lr"] = run.cooled(warmed(s.lr, s.warmup, s.decay, step))
        terms = stytr2_losses(network, encoder, content, style)
        run.step(optimizer, weigh(terms, s.weights), **terms)
    run.save(network, FILES)
