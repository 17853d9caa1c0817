"""LPIPS and ArtFID, from local files only

    LPIPS(x, y)  = sum_l mean_hw sum_c w_lc (u_lc(x) - u_lc(y))^2       u_l = f_l / |f_l| at every position
    ArtFID       = (1 + mean LPIPS(photo, output)) (1 + FID(outputs, style references))

f_l are five layers of ImageNet's VGG-16 or AlexNet, w_l the weights that the LPIPS package releases for them.
FID is that of `evaluation.fid`, with the Inception of torch-fidelity or torchvision; ArtFID's own was taught
to name artists, so figures printed elsewhere do not compare.

In the miniature the same formulas are called mini-perceptual and mini-ArtFID: f_l are relu1_1 to relu5_1 of
its VGG encoder, every w_lc is 1 / C_l, which makes the sum over channels their mean, and FID's features are
those of its two classifiers.
"""

from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from torch import nn
from torchvision.models import alexnet, vgg16

from evaluation.core.errors import UserError
from evaluation.core.pools import threads
from evaluation.judges import features
from evaluation.metrics.frechet import Moments
from evaluation.metrics.frechet import frechet as distance
from style_transfer.core import vgg, weights

BACKBONES = {  # channels of the compared layers -> network, its layers up to which each is computed
    (64, 128, 256, 512, 512): (vgg16, (4, 9, 16, 23, 30)),
    (64, 192, 384, 256, 256): (alexnet, (2, 5, 8, 10, 12)),
}
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1,1]


class Tower(nn.Module):
    """The compared layers of a network of torchvision."""

    def __init__(self, layers: nn.Sequential, taps: tuple[int, ...]):
        super().__init__()
        self.layers, self.taps = layers, taps
        self.register_buffer("shift", torch.tensor(SHIFT).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(3, 1, 1))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """[B,3,H,W] in [0,1] -> maps [B,C,h,w]."""
        x, maps = (2 * images - 1 - self.shift) / self.scale, []
        for number, layer in enumerate(self.layers[: self.taps[-1]], 1):
            x = layer(x)
            if number in self.taps:
                maps.append(x)
        return maps


class Perceptual(NamedTuple):
    name: str
    network: nn.Module  # images [B,3,H,W] in [0,1] -> maps [B,C,h,w]
    weights: list[torch.Tensor]  # of the channels, [C,1,1] each

    def look(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Maps of unit length at every position."""
        return [x / (x.norm(dim=1, keepdim=True) + 1e-10) for x in self.network(images)]

    def distance(self, x: list[torch.Tensor], y: list[torch.Tensor]) -> torch.Tensor:
        """Of what `look` made of B images each -> [B]."""
        return sum(((a - b).square() * w).sum(1).mean((1, 2)) for a, b, w in zip(x, y, self.weights))


def lpips(backbone: Path, linear: Path, device: str) -> Perceptual:
    """From torchvision's file of VGG-16 or AlexNet and the released weights for it; raises UserError."""
    found = weights.read({"backbone": backbone, "linear": linear}, ["backbone", "linear"], "LPIPS")
    keys = [f"lin{layer}.model.1.weight" for layer in range(5)]
    channels = tuple(found["linear"].shape(key)[1] for key in keys)
    if channels not in BACKBONES:
        raise UserError(
            f"--lpips {linear}: weights neither for VGG-16 nor for AlexNet; take vgg.pth or alex.pth"
        )
    make, taps = BACKBONES[channels]
    with torch.device("meta"):  # its own random weights are not wanted
        layers = make(weights=None).features
    prefix = "features."
    tensors = found["backbone"].tensors.items()
    found["backbone"].tensors = {key.removeprefix(prefix): t for key, t in tensors if key.startswith(prefix)}
    layers.to_empty(device="cpu")
    found["backbone"].into(layers)
    network = Tower(layers, taps).eval().requires_grad_(False).to(device)
    return Perceptual("LPIPS", network, [found["linear"].tensors[key][0].to(device) for key in keys])


def miniature(encoder: vgg.Encoder) -> Perceptual:
    """What takes the place of LPIPS in the miniature."""
    like = next(encoder.parameters())
    equal = [like.new_full((channels, 1, 1), 1 / channels) for channels in vgg.widths_of(encoder)]
    return Perceptual("mini-perceptual", encoder, equal)


def extractor(files: list[Path], device: str):
    """Of one file of Inception, or of the miniature's two classifiers: PIL images -> features [B,width]."""
    if len(files) == 2:
        return features.load_extractor("classifier", files, device)
    keys = weights.read({"Inception": files[0]}, ["Inception"], "--inception")["Inception"].tensors
    if "Mixed_7c.branch_pool.conv.weight" not in keys:
        raise UserError(f"--inception {files[0]}: not torch-fidelity's or torchvision's Inception v3")
    name = "torchvision" if "AuxLogits.fc.weight" in keys else "inception"
    return features.load_extractor(name, files, device)


def frechet(outputs: list, references: list, read, extract) -> float:
    """FID of two sets of images; read(name) -> PIL."""
    with threads(8) as pool:
        one, other = (moments(names, pool, read, extract) for names in (outputs, references))
    return distance(one.mean, one.covariance, other.mean, other.covariance)


def moments(names: list, pool, read, extract) -> Moments:
    """Of the features of images, batch by batch."""
    total = None
    for start in range(0, len(names), features.BATCH):
        found = extract(list(pool.map(read, names[start : start + features.BATCH])))
        total = total or Moments(found.shape[1])
        total.add(found)
    return total


def figures(judge: Perceptual | None, rows: list[dict], outputs: dict, read, files: list[Path], device: str):
    """{"perceptual": mean distance to the photo, FID and ArtFID}, as far as there is a judge and `files`.

    `rows` are the judge's; `outputs`: (content, reference) -> file, `files` those of `extractor`.
    """
    found, mini = {judge.name: fmean(row[judge.name] for row in rows)} if judge else {}, len(files) == 2
    references = list(dict.fromkeys(reference for _, reference in outputs))
    if files and len(references) > 1:
        distance = frechet(list(outputs.values()), references, read, extractor(files, device))
        found["mini-FID" if mini else "FID"] = distance
        if judge:
            name = "mini-ArtFID" if mini or judge.name.startswith("mini") else "ArtFID"
            found[name] = (1 + found[judge.name]) * (1 + distance)
    return {"perceptual": found} if found else {}
