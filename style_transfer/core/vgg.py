"""The "normalised" VGG-19 that most methods see with, and its mirror image that they paint with.

Both are flat sequences, numbered as in the released files. The encoder's first layer, a 1x1 convolution, is
the normalisation, so images go in as RGB in [0,1]; its pooling rounds odd sizes up. The decoder starts from
relu4_1 and ends without an activation: its images are unclipped.
"""

from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from style_transfer.core.weights import Weights, fill, read

ENCODER = "vgg_normalised.pth"
DECODER = "decoder.pth"  # which gives back the image of which ENCODER made relu4_1; the miniature has one

WIDTHS = (64, 128, 256, 512, 512)  # channels of the five stages
DEPTHS = (2, 2, 4, 4, 4)  # convolutions of the five stages
TAPS = (4, 11, 18, 31, 44)  # layers up to and including relu1_1 ... relu5_1
ENLARGED = (0, 4, 6)  # convolutions of the decoder whose maps are doubled


def convolution(inner: int, outer: int) -> list[nn.Module]:
    """A 3x3 convolution of the mirrored image, and its activation: three layers."""
    return [nn.ReflectionPad2d(1), nn.Conv2d(inner, outer, 3), nn.ReLU()]


def encoder_layers(widths=WIDTHS) -> list[nn.Module]:
    """All 53 layers, up to relu5_4."""
    layers, inner = [nn.Conv2d(3, 3, 1)], 3
    for stage, (width, depth) in enumerate(zip(widths, DEPTHS)):
        layers += [nn.MaxPool2d(2, ceil_mode=True)] if stage else []
        for _ in range(depth):
            layers += convolution(inner, width)
            inner = width
    return layers


class Encoder(nn.Sequential):
    """The whole network of `vgg_normalised.pth`; layers beyond the last feature asked for are not run."""

    def __init__(self, widths=WIDTHS):
        super().__init__(*encoder_layers(widths))
        self.widths = tuple(widths)

    def forward(self, images: torch.Tensor, count: int = 5) -> list[torch.Tensor]:
        """[B,3,H,W] in [0,1] -> the first `count` of relu1_1 ... relu5_1, each half as large, rounded up."""
        features = []
        for number, layer in zip(range(1, TAPS[count - 1] + 1), self):
            images = layer(images)
            if number in TAPS:
                features.append(images)
        return features


def decoder(widths=WIDTHS) -> nn.Sequential:
    """[B,widths[3],h,w] -> unclipped images [B,3,8h,8w], in 29 layers."""
    one, two, three, four = widths[:4]
    channels, layers = (four, three, three, three, three, two, two, one, one, 3), []
    for number, (inner, outer) in enumerate(pairwise(channels)):
        layers += convolution(inner, outer)
        layers += [nn.Upsample(scale_factor=2)] if number in ENLARGED else []
    return initialised(nn.Sequential(*layers[:-1]))


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    """From the input to the output."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def draw(part: nn.Module, init) -> None:
    """New weights to begin a training with, which `init` puts into a tensor; biases 0."""
    for layer in part.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            init(layer.weight)
            nn.init.zeros_(layer.bias)


@torch.no_grad()
def initialised(decoder: nn.Sequential) -> nn.Sequential:
    """The decoder with weights to begin a training with: He's, under which features keep their size from
    layer to layer, and images that are nearly grey. After torch's own, those of narrow networks stay so."""
    draw(decoder, nn.init.kaiming_normal_)
    last = convolutions(decoder)[-1]
    last.weight *= 0.1
    last.bias += 0.5
    return decoder


@torch.no_grad()
def copy(source: nn.Module, target: nn.Module) -> None:
    """Gives the target as many of the source's convolutions as it has; one that takes more features leaves
    the last aside."""
    for old, new in zip(convolutions(source), convolutions(target)):
        new.weight.zero_()[:, : old.in_channels] = old.weight
        new.bias.copy_(old.bias)


def scaled(width: float) -> tuple[int, ...]:
    """Channels of the five stages at a fraction of VGG-19's: 1 as released, 1/8 in the miniature."""
    return tuple(round(width * channels) for channels in WIDTHS)


def widths(weights: Weights) -> tuple[int, ...]:
    """Channels of the five stages, read off the file of an encoder."""
    return tuple(weights.width(layer) for layer in ("2", "9", "16", "29", "42"))


def load_encoder(path: str | Path) -> Encoder:
    """The normalised VGG-19 of any widths, from its released file; raises UserError."""
    released = read({ENCODER: str(path)}, [ENCODER], "the VGG encoder")
    return fill(Encoder(widths(released[ENCODER])), released, {ENCODER: ""})
