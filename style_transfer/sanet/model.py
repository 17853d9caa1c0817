"""SANet: Arbitrary Style Transfer with Style-Attentional Networks (Park & Lee, CVPR 2019)

Every content position takes from the style what is at the positions most like it, at two scales of VGG-19.
Queries and keys are normalised, so that likeness is one of structure; values are not, they carry the style.

    attention(c, s) = out(softmax(f(mvn(c)) g(mvn(s))^T) h(s)) + c
    image = decoder(merge(attention(c4, s4) + up(attention(c5, s5))))
"""

import torch
from torch import nn

from style_transfer.core import vgg, weights
from style_transfer.core.blocks import TwoScales
from style_transfer.core.networks import stylise

FILES = {  # released file -> the part of the network that it fills
    "vgg_normalised.pth": "encoder",
    "decoder_iter_500000.pth": "decoder",
    "transformer_iter_500000.pth": "transform",
}
OPTIONS = {  # attributes of the network
    "strength": 1.0,  # blends with the content as its own style
    "steps": 1,  # the output of each is the content of the next
}


class SANet(nn.Module):
    multiple, style_multiple = 16, 1  # of pixels of the sides of a content, of a style
    stylise = stylise

    def __init__(self, widths=vgg.WIDTHS):
        super().__init__()
        vars(self).update(OPTIONS)
        self.encoder, self.decoder = vgg.Encoder(widths), vgg.decoder(widths)
        self.transform = TwoScales(widths[3])

    def encode_content(self, images: torch.Tensor) -> tuple:
        """[B,3,H,W] in [0,1] -> relu4_1 and its queries, relu5_1 and its queries."""
        return self.transform.content(*self.encoder(images)[3:])

    def encode_style(self, images: torch.Tensor) -> tuple:
        """[B,3,H,W] in [0,1] -> keys and values at relu4_1, keys and values at relu5_1."""
        return self.transform.style(*self.encoder(images)[3:])

    def fuse(self, content: tuple, style: tuple) -> torch.Tensor:
        """-> [B,C,h,w], at the size of relu4_1 of the content."""
        fused = self.transform(content, style)
        if self.strength < 1:
            own = self.transform(content, self.transform.style(content[0], content[2]))
            fused = torch.lerp(own, fused, self.strength)
        return fused

    def decode(self, content: tuple, style: tuple) -> torch.Tensor:
        """-> unclipped [B,3,H,W], nominally in [0,1], sides rounded up to multiples of 8."""
        image = self.decoder(self.fuse(content, style))
        for _ in range(self.steps - 1):
            image = self.decoder(self.fuse(self.encode_content(image), style))
        return image


def load(files: dict) -> SANet:
    """From the released files, {name in FILES: path or state dict}; raises UserError."""
    released = weights.read(files, FILES, "SANet")
    return weights.fill(SANet(vgg.widths(released["vgg_normalised.pth"])), released, FILES)
