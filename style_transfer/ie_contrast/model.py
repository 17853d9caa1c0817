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
from style_transfer.core.networks import stylise

FILES = {  # released file -> the part of the network that it fills
    "vgg_normalised.pth": "encoder",
    "decoder_iter_160000.pth": "decoder",
    "transformer_iter_160000.pth": "transform",
}
OPTIONS = {"steps": 1}  # attribute of the network: the output of each is the content of the next


class IEContraAST(nn.Module):
    multiple, style_multiple = 8, 1  # of pixels of a content's sides, others come back larger; of a style's
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

    def decode(self, content: tuple, style: tuple) -> torch.Tensor:
        """-> unclipped [B,3,H,W], nominally in [0,1]."""
        image = self.decoder(self.transform(content, style))
        for _ in range(self.steps - 1):
            image = self.decoder(self.transform(self.encode_content(image), style))
        return image


def load(files: dict) -> IEContraAST:
    """From the released files, {name in FILES: path or state dict}; raises UserError."""
    released = weights.read(files, FILES, "IE-ContraAST")
    return weights.fill(IEContraAST(vgg.widths(released["vgg_normalised.pth"])), released, FILES)
