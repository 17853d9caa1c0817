"""AdaAttN: Revisit Attention Mechanism in Arbitrary Neural Style Transfer (Liu et al., ICCV 2021)

For every content position, attention gives a mean and a standard deviation of the style's features; the
normalised content feature takes these. Queries and keys stack the normalised features of a layer and all
shallower ones.

    A = softmax(f(keys(c)) g(keys(s))^T)    M = A h(s)    S = sqrt(A h(s)^2 - M^2)    out = S mvn(c) + M
    image = decoder(merge(out4 + up(out5)), out3)
"""

from itertools import chain

import torch
import torch.nn.functional as F
from torch import nn

from style_transfer.core import vgg, weights
from style_transfer.core.blocks import attend, grid, merge, merging, mvn, positions, precise
from style_transfer.core.networks import stylise

FILES = {  # released file -> the part of the network that it fills
    "vgg_normalised.pth": "encoder",
    "latest_net_decoder.pth": "decoder",
    "latest_net_transformer.pth": "transformer",
    "latest_net_adaattn_3.pth": "adaattn_3",
}
OPTIONS = {  # attributes of the network
    "samples": 4096,  # style positions that relu3_1 attends to, at most
    "seed": 6666,  # of their choice
}
LIMITS = {"samples": (1, 1_000_000)}


def keys(features: list[torch.Tensor]) -> torch.Tensor:
    """Features of some layers, shallow to deep -> normalised and stacked at the size of the last."""
    size = features[-1].shape[-2:]
    return torch.cat([mvn(F.interpolate(feature, size)) for feature in features], 1)


def choose(count: int, samples: int, seed: int) -> torch.Tensor:
    """The same `samples` of `count` positions on every machine, for a seed."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:samples]


def sampled(key: torch.Tensor, value: torch.Tensor, samples: int, seed: int) -> tuple:
    """Keys [B,N,K] and values [B,N,C] of at most `samples` positions, the same in the whole batch."""
    if key.shape[1] <= samples:
        return key, value
    chosen = choose(key.shape[1], samples, seed).to(key.device)
    return key[:, chosen], value[:, chosen]


def adapt(feature, query, key, value) -> torch.Tensor:
    """Normalised feature [B,C,h,w], queries [B,h*w,K], keys [B,N,K], values [B,N,C] -> [B,C,h,w]."""
    value = precise(value)  # the variance is a difference of squares
    moments = attend(query, key, torch.cat([value, value.square()], 2))
    mean, square = grid(moments, feature.shape[-2:]).chunk(2, 1)
    std = (square - mean.square()).clamp(min=1e-12).sqrt()  # at 0 the root has no gradient
    return std * feature + mean


class AttentionNorm(nn.Module):
    def __init__(self, width: int, key_width: int):
        super().__init__()
        self.f, self.g = (nn.Conv2d(key_width, key_width, 1) for _ in range(2))
        self.h = nn.Conv2d(width, width, 1)

    def content(self, features: list[torch.Tensor]) -> tuple:
        """relu1_1 up to this layer -> the layer's normalised feature [B,C,h,w], queries [B,h*w,K]."""
        return mvn(features[-1]), positions(self.f(keys(features)))

    def style(self, features: list[torch.Tensor]) -> tuple:
        """relu1_1 up to this layer -> keys [B,N,K], values [B,N,C]."""
        return positions(self.g(keys(features))), positions(self.h(features[-1]))

    forward = staticmethod(adapt)  # of what `content` and `style` return


class Transformer(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.attn_adain_4_1 = AttentionNorm(widths[3], sum(widths[:4]))
        self.attn_adain_5_1 = AttentionNorm(widths[4], sum(widths))
        self.merge_conv = merging(widths[3])

    def forward(self, content: tuple, style: tuple) -> torch.Tensor:
        """What the two layers' `content` and `style` return, one after the other -> [B,C,h,w]."""
        fine = self.attn_adain_4_1(*content[:2], *style[:2])
        coarse = self.attn_adain_5_1(*content[2:], *style[2:])
        return self.merge_conv(merge(fine, coarse))


class Decoder(nn.Module):
    """The mirrored VGG, which at the size of relu3_1 also gets what `adaattn_3` made."""

    def __init__(self, widths):
        super().__init__()
        layers, three = list(vgg.decoder(widths)), widths[2]
        layers[5] = nn.Conv2d(2 * three, three, 3)
        self.decoder_layer_1, self.decoder_layer_2 = nn.Sequential(*layers[:4]), nn.Sequential(*layers[4:])

    def forward(self, fused: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.decoder_layer_2(torch.cat([self.decoder_layer_1(fused), skip], 1))


class AdaAttN(nn.Module):
    multiple, style_multiple = 16, 1  # of pixels of the sides of a content, of a style
    stylise = stylise

    def __init__(self, widths=vgg.WIDTHS):
        super().__init__()
        vars(self).update(OPTIONS)
        self.encoder, self.decoder = vgg.Encoder(widths), Decoder(widths)
        self.transformer = Transformer(widths)
        self.adaattn_3 = AttentionNorm(widths[2], sum(widths[:3]))

    def layers(self) -> tuple[AttentionNorm, ...]:
        """At relu3_1, relu4_1 and relu5_1."""
        return self.adaattn_3, self.transformer.attn_adain_4_1, self.transformer.attn_adain_5_1

    def content(self, features: list[torch.Tensor]) -> tuple:
        """relu1_1 ... relu5_1 -> for each layer the normalised feature and the queries."""
        return tuple(x for i, layer in enumerate(self.layers(), 3) for x in layer.content(features[:i]))

    def style(self, features: list[torch.Tensor]) -> tuple:
        """relu1_1 ... relu5_1 -> for each layer keys and values; `samples` is relu3_1's limit."""
        three, *deep = (layer.style(features[:i]) for i, layer in enumerate(self.layers(), 3))
        return *sampled(*three, self.samples, self.seed), *chain(*deep)

    def encode_content(self, images: torch.Tensor) -> tuple:
        """[B,3,H,W] in [0,1] -> what `content` makes of them."""
        return self.content(self.encoder(images))

    def encode_style(self, images: torch.Tensor) -> tuple:
        """[B,3,H,W] in [0,1] -> what `style` makes of them."""
        return self.style(self.encoder(images))

    def decode(self, content: tuple, style: tuple) -> torch.Tensor:
        """-> unclipped [B,3,H,W], nominally in [0,1]."""
        skip = self.adaattn_3(*content[:2], *style[:2])
        return self.decoder(self.transformer(content[2:], style[2:]), skip)


def load(files: dict) -> AdaAttN:
    """From the released files, {name in FILES: path or state dict}; raises UserError."""
    released = weights.read(files, FILES, "AdaAttN")
    return weights.fill(AdaAttN(vgg.widths(released["vgg_normalised.pth"])), released, FILES)
