"""MCCNet: Arbitrary Video Style Transfer via Multi-Channel Correlation (Deng et al., AAAI 2021)

The style becomes one number per channel, mixed across channels, which rescales the content's channels. There
is no matching in space, so neighbouring frames of a video stay alike.

    w = fc(sum g(mvn(s))^2 / sum g(mvn(s)))         image = decoder(c + out(f(mvn(c)) w))
"""

import torch
from torch import nn

from style_transfer.core import vgg, weights
from style_transfer.core.blocks import full_precision, mvn
from style_transfer.core.networks import stylise

FILES = {  # released file -> the part of the network that it fills
    "vgg_normalised.pth": "encoder",
    "decoder_iter_160000.pth": "decoder",
    "mcc_module_iter_160000.pth": "module",
}
OPTIONS = {"strength": 1.0}  # attribute of the network: blends with the content as its own style


class Correlation(nn.Module):
    """`h` is in the released file but has no part in the computation."""

    def __init__(self, width: int):
        super().__init__()
        self.f, self.g, self.h, self.out_conv = (nn.Conv2d(width, width, 1) for _ in range(4))
        self.fc = nn.Linear(width, width)

    def weigh(self, features: torch.Tensor) -> torch.Tensor:
        """[B,C,h,w] -> a factor for every channel, [B,C,1,1].

        The mean of g is its bias, which may be near zero: the division wants full precision.
        """
        with full_precision(features):
            g = self.g(mvn(features))
            energy = g.square().sum((2, 3)) / g.sum((2, 3))
            return self.fc(energy)[:, :, None, None]


class MCCNet(nn.Module):
    multiple, style_multiple = 8, 1  # of pixels of the sides of a content, of a style
    stylise = stylise

    def __init__(self, widths=vgg.WIDTHS):
        super().__init__()
        vars(self).update(OPTIONS)
        self.encoder, self.decoder = vgg.Encoder(widths), vgg.decoder(widths)
        self.module = nn.ModuleDict({"MCCN": Correlation(widths[3])})

    def encode_content(self, images: torch.Tensor) -> tuple:
        """[B,3,H,W] in [0,1] -> relu4_1, its projection [B,C,h,w] each, its own channel factors [B,C,1,1]."""
        mcc, features = self.module["MCCN"], self.encoder(images, 4)[3]
        return features, mcc.f(mvn(features)), mcc.weigh(features)

    def encode_style(self, images: torch.Tensor) -> tuple:
        """[B,3,H,W] in [0,1] -> the channel factors [B,C,1,1]."""
        return (self.module["MCCN"].weigh(self.encoder(images, 4)[3]),)

    def fuse(self, content: tuple, style: tuple) -> torch.Tensor:
        """-> [B,C,h,w]. The output is linear in the factors, so blending these is blending the outputs."""
        features, projected, own = content
        factors = torch.lerp(own, style[0], self.strength)
        return features + self.module["MCCN"].out_conv(projected * factors)

    def decode(self, content: tuple, style: tuple) -> torch.Tensor:
        """-> unclipped [B,3,H,W], nominally in [0,1], sides rounded up to multiples of 8."""
        return self.decoder(self.fuse(content, style))


def load(files: dict) -> MCCNet:
    """From the released files, {name in FILES: path or state dict}; raises UserError."""
    released = weights.read(files, FILES, "MCCNet")
    return weights.fill(MCCNet(vgg.widths(released["vgg_normalised.pth"])), released, FILES)
