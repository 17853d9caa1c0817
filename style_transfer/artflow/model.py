"""ArtFlow: Unbiased Image Style Transfer via Reversible Neural Flows (An et al., CVPR 2021)

A reversible network takes both images to latents, the content's latents are recoloured with the statistics of
the style's, and the same network backwards makes the picture. There is no decoder, so nothing gets lost.

    image = G^-1(operator(G(c), G(s)))
    adain(z_c, z_s) = (z_c - mu_c) / sd_c sd_s + mu_s
    wct(z_c, z_s) = cov_s^(1/2) cov_c^(-1/2) (z_c - mu_c) + mu_s
"""

import re

import torch
from torch import nn

from evaluation.core.errors import UserError
from style_transfer.artflow.flow import Block, Reversible
from style_transfer.core import weights
from style_transfer.core.blocks import full_precision, precise
from style_transfer.core.networks import stylise

FILES = {"glow.pth": ""}  # the network whole; the file does not say for which operator it was trained
OPTIONS = {  # attributes of the network
    "operator": "adain",  # or wct, as the weights were trained for
    "strength": 1.0,  # blends latents, at 0 the content comes back
}
LIMITS = {"operator": ("adain", "wct")}
SMALLEST = 1e-5  # eigenvalue that whitening and colouring keep; also added to the variances of AdaIN


def statistics(latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[B,C,h,w] -> mean [B,C,1] and covariance [B,C,C] over the positions, unbiased."""
    points = precise(latent).flatten(2)
    mean = points.mean(2, keepdim=True)
    centred = points - mean
    return mean, centred @ centred.mT / (points.shape[2] - 1)


def power(covariance: torch.Tensor, exponent: float) -> torch.Tensor:
    """Of a symmetric matrix [B,C,C], in the space of its eigenvalues that are not too small."""
    values, vectors = torch.linalg.eigh(covariance)
    values = torch.where(values >= SMALLEST, values.clamp(min=SMALLEST) ** exponent, 0.0)
    return vectors * values[:, None] @ vectors.mT


def scaling(latent: torch.Tensor, operator: str, exponent: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents [B,C,h,w] -> their mean [B,C,1] and a power of their covariance, or of its diagonal, [B,C,C]:
    -1/2 takes a content's from its centred latents, 1/2 gives them a style's."""
    if operator not in ("adain", "wct"):
        raise UserError(f"operator={operator}: is neither adain nor wct")
    with full_precision(latent):
        mean, covariance = statistics(latent)
        if operator == "wct":
            return mean, power(covariance, exponent)
        return mean, torch.diag_embed((covariance.diagonal(dim1=1, dim2=2) + SMALLEST) ** exponent)


class ArtFlow(nn.Module):
    stylise = stylise

    def __init__(self, blocks: int = 2, flows: int = 8, hidden: int = 512):
        super().__init__()
        vars(self).update(OPTIONS)
        self.multiple = self.style_multiple = 2**blocks  # of pixels of the sides
        self.blocks = Reversible(*(Block(3 * 4**level, flows, hidden) for level in range(blocks)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B,3,H,W] in [0,1] -> latents [B,48,H/4,W/4]."""
        return self.blocks(images)

    def reverse(self, latents: torch.Tensor) -> torch.Tensor:
        return self.blocks.reverse(latents)

    def initialise(self, images: torch.Tensor) -> None:
        """Before training: scales of all layers from a batch of images."""
        for block in self.blocks:
            images = block.initialise(images)

    def encode_content(self, images: torch.Tensor) -> tuple:
        """[B,3,H,W] in [0,1] -> latents [B,48,H/4,W/4], their mean [B,48,1] and whitening [B,48,48]."""
        latents = self(images)
        return latents, *scaling(latents, self.operator, -0.5)

    def encode_style(self, images: torch.Tensor) -> tuple:
        """[B,3,H,W] in [0,1] -> mean [B,48,1] and colouring [B,48,48] of the latents."""
        return scaling(self(images), self.operator, 0.5)

    def decode(self, content: tuple, style: tuple) -> torch.Tensor:
        """-> unclipped [B,3,H,W], nominally in [0,1]."""
        (latents, mean, whitening), (style_mean, colouring) = content, style
        with full_precision(latents):
            recoloured = colouring @ whitening @ (latents.flatten(2) - mean) + style_mean
            latents = torch.lerp(latents, recoloured.view_as(latents), self.strength)
        return self.reverse(latents)


def load(files: dict) -> ArtFlow:
    """From the released file, {name in FILES: path or state dict}; raises UserError."""
    released = weights.read(files, FILES, "ArtFlow")
    glow = released["glow.pth"]
    hidden = glow.width("blocks.0.flows.0.coupling.net.0")
    places = [re.match(r"blocks\.(\d+)\.flows\.(\d+)\.", key) for key in glow.tensors]
    blocks, flows = (1 + max(int(place[i]) for place in places if place) for i in (1, 2))
    network = weights.fill(ArtFlow(blocks, flows, hidden), released, FILES)
    if not all(flow.actnorm.initialized for block in network.blocks for flow in block.flows):
        raise UserError(f"{glow.file}: weights of ArtFlow before training; some scales are not initialized")
    return network
