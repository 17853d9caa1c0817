"""What CAST needs for its training only: discriminators of photos and of paintings, codes that tell
paintings apart

    contrast(q, k) = -log( exp(q k / 0.07) / (exp(q k / 0.07) + sum_n exp(q n / 0.07)) )      n in a queue
    hinge(D, y)    = mean max(0, 1 - y D)       y = 1 for real images, -1 for outputs

The generator is scored with y = 1, so that its gradient ends where D exceeds 1. Images are in [-1,1].
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from style_transfer.core import vgg

TEMPERATURE = 0.07
PROJECTED = (1024, 2048, 2048)  # widths of a projector's three layers, at full size
GAIN = 0.02  # of the discriminators' initial weights
LEAST = 0.8  # share of a painting's area that a view shows


def normalised(layers: list[nn.Module]) -> list[nn.Module]:
    """The layers, with batch normalisation behind every convolution."""
    made = []
    for layer in layers:
        made += [layer, nn.BatchNorm2d(layer.out_channels)] if isinstance(layer, nn.Conv2d) else [layer]
    return made


def projector(channels: int, sizes) -> nn.Sequential:
    """From mean and maximum of a layer's channels to a code; the first layer is a 1x1 convolution's."""
    layers = []
    for inner, outer in pairwise((2 * channels, channels, *sizes)):
        layers += [nn.Linear(inner, outer), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class StyleCodes(nn.Module):
    """VGG-19 with batch normalisation; a code is made from each of relu1_1 ... relu4_1."""

    def __init__(self, width: float):
        super().__init__()
        widths = vgg.scaled(width)[:4]
        layers = [nn.Conv2d(3, 3, 3, padding=1), *vgg.encoder_layers(widths)[1:]]
        slices = pairwise((0, *vgg.TAPS[:4]))
        self.stages = nn.ModuleList(nn.Sequential(*normalised(layers[start:stop])) for start, stop in slices)
        sizes = [round(width * size) for size in PROJECTED]
        self.projectors = nn.ModuleList(projector(channels, sizes) for channels in widths)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B,3,H,W] -> unit vectors [4,B,D]."""
        codes = []
        for stage, project in zip(self.stages, self.projectors):
            images = stage(images)
            pooled = torch.cat([images.mean((2, 3)), images.amax((2, 3))], 1)
            codes.append(F.normalize(project(pooled)))
        return torch.stack(codes)


class Queue(nn.Module):
    """The last codes of paintings, [4,size,D]; random ones at first."""

    def __init__(self, size: int, width: float):
        super().__init__()
        self.register_buffer("codes", F.normalize(torch.randn(4, size, round(width * PROJECTED[-1])), dim=2))

    @torch.no_grad()
    def push(self, codes: torch.Tensor) -> None:
        """In with codes [4,B,D], out with the oldest."""
        self.codes = torch.cat([codes, self.codes], 1)[:, : self.codes.shape[1]].contiguous()


def contrast(query: torch.Tensor, positive: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """[4,B,D], [4,B,D] and [4,K,D] -> sum over the layers of the mean over the batch."""
    right = (query * positive).sum(2, keepdim=True)
    logits = torch.cat([right, query @ negatives.mT], 2) / TEMPERATURE
    return -logits.log_softmax(2)[:, :, 0].mean(1).sum()


def views(images: torch.Tensor) -> torch.Tensor:
    """Of each image a random square of 0.8 to 1 of its area, enlarged to its size."""
    side = torch.empty(len(images)).uniform_(LEAST, 1).sqrt()
    centre = (torch.rand(len(images), 2) * 2 - 1) * (1 - side[:, None])
    place = torch.cat([side[:, None, None] * torch.eye(2), centre[:, :, None]], 2).to(images)
    sampling = F.affine_grid(place, images.shape, align_corners=False)
    return F.grid_sample(images, sampling, padding_mode="reflection", align_corners=False)


class Halve(nn.Module):
    """Blurs with [1 2 1], then takes every second pixel."""

    def forward(self, x):
        weights = torch.tensor([1.0, 2.0, 1.0], device=x.device, dtype=x.dtype) / 4
        kernel = torch.outer(weights, weights).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), kernel, stride=2, groups=x.shape[1])


def discriminator(width: float) -> nn.Sequential:
    """[B,3,H,W] -> a score for every patch of 70 pixels, [B,1,h,w]."""
    sizes, layers = vgg.scaled(width)[:4], []
    for number, (inner, outer) in enumerate(pairwise((3, *sizes))):
        layers += [nn.Conv2d(inner, outer, 4, padding=1)]
        layers += [nn.InstanceNorm2d(outer)] if number else []
        layers += [nn.LeakyReLU(0.2)]
        layers += [Halve()] if number < 3 else []
    return nn.Sequential(*layers, nn.Conv2d(sizes[-1], 1, 4, padding=1))


def hinge(scores: torch.Tensor, wanted: float) -> torch.Tensor:
    """`wanted` is 1 or -1."""
    return (1 - wanted * scores).relu().mean()
