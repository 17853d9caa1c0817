"""CAST: Domain Enhanced Arbitrary Image Style Transfer via Contrastive Learning (Zhang et al., SIGGRAPH 2022)

Adaptive instance normalisation between an encoder and a decoder. What is unusual is how both are trained:
by a contrastive loss on style codes and a cycle instead of losses on feature statistics. The encoder has the
layout of VGG-19 but is learned too, so the normalised VGG is no substitute for it.

    c, s = encoder(content), encoder(style)       image = decoder(std(s) (c - mean(c)) / std(c) + mean(s))
"""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import nn

from style_transfer.core import vgg, weights
from style_transfer.core.blocks import adain, mean_std
from style_transfer.core.networks import stylise

FILES = {  # released file -> the part of the network that it fills
    "latest_net_AE.pth": "encoder",
    "latest_net_Dec_B.pth": "decoder",
}
OPTIONS = {"strength": 1.0}  # attribute of the network: blends with the content's own features


def encoder(widths=vgg.WIDTHS[:4]) -> nn.Sequential:
    """[B,3,H,W] in [-1,1] -> relu4_1; its four stages end in relu1_1 ... relu4_1."""
    layers = vgg.encoder_layers(widths)
    stages = [nn.Sequential(*layers[start:stop]) for start, stop in pairwise((0, *vgg.TAPS[:4]))]
    return nn.Sequential(OrderedDict((f"enc_{number}", stage) for number, stage in enumerate(stages, 1)))


class CAST(nn.Module):
    multiple, style_multiple = 8, 1  # of pixels of a content's sides, others come back larger; of a style's
    stylise = stylise

    def __init__(self, widths=vgg.WIDTHS[:4]):
        super().__init__()
        vars(self).update(OPTIONS)
        self.encoder = encoder(widths)
        self.decoder = nn.Sequential(OrderedDict(decoder=vgg.decoder(widths)))

    def encode_content(self, images: torch.Tensor) -> tuple:
        """[B,3,H,W] in [0,1] -> relu4_1."""
        return (self.encoder(images * 2 - 1),)

    def encode_style(self, images: torch.Tensor) -> tuple:
        """[B,3,H,W] in [0,1] -> mean and std of relu4_1, [B,C,1,1] each."""
        return mean_std(self.encoder(images * 2 - 1))

    def decode(self, content: tuple, style: tuple) -> torch.Tensor:
        """-> unclipped [B,3,H,W], nominally in [0,1]."""
        fused = self.strength * adain(*content, *style) + (1 - self.strength) * content[0]
        return (self.decoder(fused) + 1) / 2


def load(files: dict) -> CAST:
    """From the released files, {name in FILES: path or state dict}; raises UserError."""
    released = weights.read(files, FILES, "CAST")
    encoder_file = released["latest_net_AE.pth"]
    widths = [encoder_file.width(layer) for layer in ("enc_1.2", "enc_2.5", "enc_3.5", "enc_4.11")]
    return weights.fill(CAST(widths), released, FILES)
