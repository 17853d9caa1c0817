"""IE-ContraAST: Artistic Style Transfer with Internal-external Learning and Contrastive Learning
(Chen et al., NeurIPS 2021)

The network is SANet's: every content position takes from the style what is at the positions most like it, at
two scales of VGG-19. What is unusual is its training, by a discriminator that has seen many paintings and by
losses that contrast the stylised images of a batch.

    attention(c, s) = out(softmax(f(mvn(c)) g(mvn(s))^T) h(s)) + c
    image = decoder(merge(attention(c4, s4) + up(attention(c5, s5))))
"""

import torch
from torch import nn

from style_transfer.core import vgg, weights
from style_transfer.core.blocks import TwoScales

FILES = {  # released file -> the part of the network that it fills
    "vgg_normalised.pth": "encoder",
    "decoder_iter_160000.pth": "decoder",
    "transformer_iter_160000.pth": "transform",
}


class IEContraAST(nn.Module):
    multiple = 8  # of pixels of a content's sides: others come back larger; those of a style are free

    def __init__(self, widths=vgg.WIDTHS):
        super().__init__()
        self.encoder, self.decoder = vgg.Encoder(widths), vgg.decoder(widths)
        self.transform = TwoScales(widths[3])

    def encode_content(self, images: torch.Tensor) -> tuple:
        """[B,3,H,W] in [0,1] -> relu4_1 and its queries, relu5_1 and its queries."""
        return self.transform.content(*self.encoder(images)[3:])

    def encode_style(self, images: torch.Tensor) -> tuple:
        """[B,3,H,W] in [0,1] -> keys and values at relu4_1, keys and values at relu5_1."""
        return self.transform.style(*self.encoder(images)[3:])

    def decode(self, content: tuple, style: tuple) -> torch.Tensor:
        """-> unclipped [B,3,H,W], nominally in [0,1]."""
        return self.decoder(self.transform(content, style))

    def stylise(self, content: torch.Tensor, style: torch.Tensor, steps: int = 1) -> torch.Tensor:
        """[B,3,H,W] and [B,3,h,w] in [0,1] -> unclipped [B,3,H,W]. A step's result is the next's content."""
        style = self.encode_style(style)
        for _ in range(steps):
            content = self.decode(self.encode_content(content), style)
        return content


def load(files: dict) -> IEContraAST:
    """From the released files, {name in FILES: path or state dict}; raises UserError."""
    found = weights.read(files, FILES, "IE-ContraAST")
    return weights.fill(IEContraAST(vgg.widths(found["vgg_normalised.pth"])), found, FILES)
