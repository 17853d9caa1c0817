"""How far apart two images are in style and in content, in the eyes of VGG-19 and of a vision transformer

    style    sum_l |m(F_l(x)) - m(F_l(y))|^2 + |d(F_l(x)) - d(F_l(y))|^2      l = relu1_1 ... relu5_1
    content  |n(F_4(x)) - n(F_4(y))|^2 + |n(F_5(x)) - n(F_5(y))|^2
    gram     sum_l |G(F_l(x)) - G(F_l(y))|^2                                  G(F) = F F' / (h w)
    tokens   sum_b |z_b(x) - z_b(y)|^2                                        b = six blocks, evenly spaced
    cosine   1 - cos(e(x), e(y))                                              e = an embedding

m and d are the means and deviations of the channels, n a map with those taken out; z_b are all tokens after
block b. Squares are means over all elements; sums are not divided. Identical images are at 0.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from style_transfer.core.blocks import mean_std, precise

BLOCKS = 6  # of a vision transformer are compared


class VGGFeatures(NamedTuple):
    """What style and content losses need of VGG's maps of B images."""

    statistics: tuple  # a layer: mean and deviation of its channels, [B,C,1,1] each
    structure: tuple  # normalised relu4_1 and relu5_1, [B,C,h,w]


def vgg_features(maps: list[torch.Tensor]) -> VGGFeatures:
    """VGG's maps [B,C,h,w] of images, relu1_1 first -> what the losses compare."""
    statistics = tuple(mean_std(feature) for feature in maps)
    structure = ((f - mean) / std for f, (mean, std) in zip(maps[3:], statistics[3:]))
    return VGGFeatures(statistics, tuple(structure))


def style_loss(x: VGGFeatures, y: VGGFeatures) -> torch.Tensor:
    """-> [B]."""
    return sum(square(a, b) for one, other in zip(x.statistics, y.statistics) for a, b in zip(one, other))


def content_loss(x: VGGFeatures, y: VGGFeatures) -> torch.Tensor:
    """-> [B]."""
    return sum(square(a, b) for a, b in zip(x.structure, y.structure))


def grams(maps: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """VGG's maps [B,C,h,w] -> [B,C,C] each, to be compared by `feature_loss`."""
    flat = [precise(feature).flatten(2) for feature in maps]
    return tuple(f @ f.transpose(1, 2) / f.shape[2] for f in flat)


def feature_loss(x, y) -> torch.Tensor:
    """Of maps [B,C,h,w] of some layers, their Gram matrices, or tokens [B,N,width] of some blocks -> [B]."""
    return sum(square(a, b) for a, b in zip(x, y))


def cosine_distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Of embeddings [B,width] -> [B], in [0,2]."""
    return 1 - F.cosine_similarity(precise(x), precise(y))


def square(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of every sample: [B,...] -> [B]."""
    return (x - y).square().flatten(1).mean(1)


def blocks(depth: int) -> list[int]:
    """Which blocks are compared: the last of each sixth, 3, 7, ... 23 of 24; all of six or fewer."""
    count = min(depth, BLOCKS)
    return [depth * (i + 1) // count - 1 for i in range(count)]


def tokens(vit, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A timm transformer and its input [B,3,H,W] -> what its head sees [B,width], tokens [B,N,width] of its
    `blocks`.

    Tokens are whole outputs of a block, class token first where there is one, before the final norm.
    """
    how = {"indices": blocks(len(vit.blocks)), "return_prefix_tokens": True, "output_fmt": "NLC"}
    last, maps = vit.forward_intermediates(images, **how)
    whole = [torch.cat(m[::-1], dim=1) if isinstance(m, tuple) else m for m in maps]
    return vit.forward_head(last, pre_logits=True), whole
