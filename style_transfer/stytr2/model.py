"""StyTr2: Image Style Transfer with Transformers (Deng et al., CVPR 2022)

One strided convolution cuts both images into patches of 8 x 8 pixels, a transformer rewrites those of the
content with what it finds among those of the style, and a convolutional decoder paints the result. VGG-19 is
needed for training only.

    c, s = patches(content), patches(style)       image = decoder(transformer(encode(c), CAPE(c), encode(s)))
"""

from collections import OrderedDict

import torch
from torch import nn

from style_transfer.core import vgg, weights
from style_transfer.core.networks import stylise
from style_transfer.stytr2.transformer import Transformer

FILES = {  # released file -> the part of the network that it fills
    "decoder_iter_160000.pth": "decoder",
    "embedding_iter_160000.pth": "embedding",
    "transformer_iter_160000.pth": "transformer",
}
PATCH = 8  # pixels on a side: the decoder enlarges as much


class StyTr2(nn.Module):
    # of pixels of the sides of a content, of a style, of which what is over is cut off
    multiple, style_multiple = PATCH, 1
    stylise = stylise

    def __init__(self, widths=vgg.WIDTHS[:4], hidden: int = 2048):
        """`widths`: channels of the decoder, from the image inwards; the last one is the transformer's."""
        super().__init__()
        self.embedding = nn.Sequential(OrderedDict(proj=nn.Conv2d(3, widths[3], PATCH, stride=PATCH)))
        self.transformer = Transformer(widths[3], hidden)
        self.decoder = vgg.decoder(widths)

    def encode_content(self, images: torch.Tensor) -> tuple:
        """[B,3,H,W] in [0,1] -> encoded patches and their positions, both [B,C,H/8,W/8]."""
        return self.transformer.encode_content(self.embedding(images))

    def encode_style(self, images: torch.Tensor) -> tuple:
        """[B,3,H,W] in [0,1] -> encoded patches [B,H/8*W/8,C]."""
        return (self.transformer.encode_style(self.embedding(images)),)

    def decode(self, content: tuple, style: tuple) -> torch.Tensor:
        """-> unclipped [B,3,H,W], nominally in [0,1]."""
        return self.decoder(self.transformer(*content, *style))


def load(files: dict) -> StyTr2:
    """From the released files, {name in FILES: path or state dict}; raises UserError."""
    released = weights.read(files, FILES, "StyTr2")
    decoder, embedding, transformer = released.values()
    widths = [decoder.width("25"), decoder.width("18"), decoder.width("5"), embedding.width("proj")]
    return weights.fill(StyTr2(widths, transformer.width("encoder_c.layers.0.linear1")), released, FILES)
