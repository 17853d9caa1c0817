"""What IE-ContraAST needs for its training only: a discriminator of paintings, and what tells outputs from
each other

    contrast(z)    = sum_i -log( exp(z_i z_i+ / 0.2) / sum_{j not left out} exp(z_i z_j / 0.2) )
    adversary(x,y) = sum over three scales of mean (D(x) - y)^2      y = 1 for paintings, 0 for outputs

Every output shares its style with one other of the batch and its content with one other. One of the two is
the positive +, the other one is left out.
"""

import torch
import torch.nn.functional as F
from torch import nn

TEMPERATURE = 0.2
SCALES = 3


def projectors(widths) -> nn.ModuleDict:
    """From the sums of relu3_1 and relu4_1 over space to what is contrasted; `widths`: the encoder's."""

    def head(inner):
        return nn.Sequential(nn.Linear(inner, inner // 2), nn.ReLU(), nn.Linear(inner // 2, widths[2] // 2))

    return nn.ModuleDict({"style": head(widths[2]), "content": head(widths[3])})


def contrast(vectors: torch.Tensor, same: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Of B images; the positive shares the label `same` [B], what shares `other` [B] is left out."""
    vectors = F.normalize(vectors)
    left_out = other[:, None] == other  # the image itself is among them
    logits = (vectors @ vectors.T / TEMPERATURE).masked_fill(left_out, float("-inf"))
    positive = ((same[:, None] == same) & ~left_out).int().argmax(1)
    return F.cross_entropy(logits, positive, reduction="sum")


class Discriminator(nn.Module):
    """Looks at patches of an image, of its half and of its quarter; `widths`: channels of its layers."""

    def __init__(self, widths):
        super().__init__()
        self.scales = nn.ModuleList(self._layers(widths) for _ in range(SCALES))

    def _layers(self, widths) -> nn.Sequential:
        layers, inner = [], 3
        for width in widths:
            layers += [nn.Conv2d(inner, width, 4, stride=2, padding=1)]
            layers += [nn.InstanceNorm2d(width)] if inner > 3 else []
            layers += [nn.LeakyReLU(0.2)]
            inner = width
        return nn.Sequential(*layers, nn.Conv2d(inner, 1, 3, padding=1))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """[B,3,H,W] -> a map [B,1,h,w] of every scale."""
        maps = []
        for layers in self.scales:
            maps.append(layers(images))
            images = F.avg_pool2d(images, 3, stride=2, padding=1, count_include_pad=False)
        return maps


def adversary(maps: list[torch.Tensor], wanted: float) -> torch.Tensor:
    """How far a discriminator's maps are from what is wanted everywhere, in least squares."""
    return sum((scale - wanted).square().mean() for scale in maps)
