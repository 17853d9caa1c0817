"""MAST: Manifold Alignment for Semantically Aligned Style Transfer (Huo et al., ICCV 2021)

Nothing is learned but to decode. Content and style features are two sets of points; a graph U links every
point with its nearest of the other set. The linear map P brings linked points together; it is applied at one
level of VGG-19 after the other, from coarse to fine, each time to the picture made so far.

    P = (X diag(U 1) X^T)^-1 X U Y^T        blended = strength P^T X + (1 - strength) X
"""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import nn

from evaluation.core.errors import UserError
from style_transfer.core import vgg, weights
from style_transfer.core.blocks import full_precision, precise
from style_transfer.core.networks import stylise
from style_transfer.mast.align import align

FILES = {  # released file -> the part of the network that it fills
    "vgg_r51.pth": "encoder",
    "dec_r41.pth": "decoders.r41",
    "dec_r31.pth": "decoders.r31",
    "dec_r21.pth": "decoders.r21",
}
OPTIONS = {  # attributes of the network
    "layers": ["r41", "r31", "r21"],  # levels, one after the other
    "strength": 0.6,  # share of the aligned features
    "neighbours": 5,
    "dim_thresh": 128,  # levels of more than its square of points are pooled for the alignment
}
LIMITS = {"layers": ("r41", "r31", "r21"), "neighbours": (1, 10_000), "dim_thresh": (1, 100_000)}
FEATURES = {"relu2": "r11", "relu4": "r21", "relu6": "r31", "relu10": "r41", "relu14": "r51"}
LEVELS = {"r41": (0, 19), "r31": (13, 23), "r21": (20, 25)}  # where in VGG's mirror image its decoder begins
NAMES = {
    nn.ReflectionPad2d: "pad", nn.Conv2d: "conv", nn.ReLU: "relu", nn.MaxPool2d: "pool", nn.Upsample: "up",
}  # fmt: skip


def named(layers, number: int) -> nn.Sequential:
    """The layers under their released names, `pad2`, `conv2`, `relu2` ... after convolution `number`."""
    names = {}
    for layer in layers:
        number += isinstance(layer, nn.ReflectionPad2d)
        names[f"{NAMES[type(layer)]}{number}"] = layer
    return nn.Sequential(OrderedDict(names))


def encoder(widths) -> nn.Sequential:
    """VGG-19 up to relu5_1, `conv1` to `conv14`; its pooling rounds odd sizes down."""
    layers = vgg.encoder_layers(widths)[: vgg.TAPS[4]]
    return named((nn.MaxPool2d(2) if isinstance(layer, nn.MaxPool2d) else layer for layer in layers), 1)


def decoder(widths, level: str) -> nn.Sequential:
    """From a level's features to unclipped images: the last convolutions up to `conv27`."""
    first, number = LEVELS[level]
    return named(vgg.decoder(widths)[first:], number - 1)


class MAST(nn.Module):
    multiple, style_multiple = 8, 1  # of pixels of the sides of a content, of a style
    stylise = stylise

    def __init__(self, widths=vgg.WIDTHS):
        super().__init__()
        vars(self).update(OPTIONS)
        self.encoder = encoder(widths)
        self.decoders = nn.ModuleDict({level: decoder(widths, level) for level in LEVELS})

    def features(self, images: torch.Tensor, levels) -> dict[str, torch.Tensor]:
        """[B,3,H,W] -> {level: [B,C,h,w]}, in full precision: in less, neighbours change places."""
        if unknown := sorted(set(levels) - set(LEVELS)):
            raise UserError(f"layers={','.join(levels)}: {unknown[0]} is not among {', '.join(LEVELS)}")
        features = {}
        with full_precision(images):
            images = precise(images)
            for name, layer in self.encoder.named_children():
                images = layer(images)
                if FEATURES.get(name) in levels:
                    features[FEATURES[name]] = images
                if len(features) == len(levels):
                    break
        return features

    def encode_content(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """[B,3,H,W] in [0,1] -> the features of the first level; those of the others depend on the style."""
        return self.features(images, self.layers[:1])

    def encode_style(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """[B,3,H,W] in [0,1] -> the features of all levels."""
        return self.features(images, self.layers)

    def blend(self, content: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """Features [B,C,H,W] and [B,C,h,w] -> the content's, moved towards the style by `strength`."""
        with full_precision(content):
            pairs = zip(content, style, strict=True)
            aligned = torch.stack([align(c, s, self.neighbours, self.dim_thresh) for c, s in pairs])
            return torch.lerp(content, aligned, self.strength)

    def decode(self, content: dict, style: dict) -> torch.Tensor:
        """-> unclipped [B,3,H,W], nominally in [0,1], sides rounded down to multiples of 8."""
        for level, following in pairwise([*self.layers, None]):
            image = self.decoders[level](self.blend(content[level], style[level]))
            content = self.features(image, [following]) if following else {}
        return image


def load(files: dict) -> MAST:
    """From the released files, {name in FILES: path or state dict}; raises UserError."""
    released = weights.read(files, FILES, "MAST")
    encoder_file = released["vgg_r51.pth"]
    widths = (encoder_file.width(f"conv{number}") for number in (2, 4, 6, 10, 14))
    return weights.fill(MAST(tuple(widths)), released, FILES)
