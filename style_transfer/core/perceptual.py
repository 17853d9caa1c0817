"""LPIPS and ArtFID, from local files only

    LPIPS(x, y)  = sum_l mean_hw sum_c w_lc (u_lc(x) - u_lc(y))^2       u_l = f_l / |f_l| at every position
    ArtFID       = (1 + mean LPIPS(photo, output)) (1 + FID(outputs, style references))

f_l are five layers of ImageNet's VGG-16 or AlexNet, w_l the weights of the LPIPS package, which torchmetrics
ships. FID's features are those of the Inception of torch-fidelity, of torchvision, or of ArtFID's own, which
was taught to name artists: figures printed elsewhere are of the latter.

In the miniature the same formulas are called mini-perceptual and mini-ArtFID: f_l are relu1_1 to relu5_1 of
its VGG encoder, every w_lc is 1 / C_l, which makes the sum over channels their mean, and FID's features are
those of its two classifiers.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.models import inception_v3

from evaluation.core.errors import UserError, refused
from evaluation.core.tensors import read_tensors
from evaluation.judges import features
from evaluation.metrics.frechet import frechet, moments
from style_transfer.core import vgg

FIRST_LAYER = {(64, 3, 3, 3): "vgg", (64, 3, 11, 11): "alex"}  # shape of its weights -> torchmetrics' name
HEADS = ("fc", "AuxLogits")  # of Inception, which no features need


def units(maps) -> tuple[torch.Tensor, ...]:
    """Maps [B,C,h,w] with vectors of unit length at every position; those of zeros stay so."""
    floats = [feature.float() for feature in maps]
    return tuple(f / (f.square().sum(1, keepdim=True) + 1e-8).sqrt() for f in floats)


def distance(x, y, weights: list[torch.Tensor]) -> torch.Tensor:
    """Of `units` of B images each -> [B]; `weights`: [C,1,1] of every layer."""
    return sum(((a - b).square() * w.float()).sum(1).mean((1, 2)) for a, b, w in zip(x, y, weights))


def equal_weights(encoder: vgg.Encoder) -> list[torch.Tensor]:
    """Those of the miniature."""
    like = next(encoder.parameters())
    return [like.new_full((channels, 1, 1), 1 / channels) for channels in encoder.widths]


def load_lpips(backbone: str | Path) -> nn.Module:
    """torchmetrics' network, its linear weights those in the package, its layers those of torchvision's file
    of VGG-16 or AlexNet; raises UserError."""
    tensors = read_tensors(backbone)
    first = tensors.get("features.0.weight", torch.empty(0))
    if tuple(first.shape) not in FIRST_LAYER:
        raise UserError(f"--lpips {backbone}: neither torchvision's VGG-16 nor its AlexNet")
    network = _LPIPS(net=FIRST_LAYER[tuple(first.shape)], pnet_rand=True)  # else it would download
    with refused(f"--lpips {backbone}: not all layers are there", KeyError, RuntimeError):
        layers = {name: "features." + name.partition(".")[2] for name in network.net.state_dict()}
        network.net.load_state_dict({name: tensors[layer] for name, layer in layers.items()})
    return network.eval().requires_grad_(False)


def extractor(path: str | Path, device: str) -> Callable:
    """Images [B,3,H,W] in [0,1] -> features [B,2048] of an Inception; raises UserError for another file."""
    tensors = read_tensors(path)
    if "Mixed_7c.branch_pool.conv.weight" not in tensors:
        raise UserError(f"--inception {path}: no Inception v3 of torch-fidelity, torchvision or ArtFID")
    if "AuxLogits1.fc.weight" in tensors or "fc2.weight" in tensors:
        return art_inception(tensors, path, device)
    name = "torchvision" if "AuxLogits.fc.weight" in tensors else "inception"
    extract = features.load_extractor(name, [path], device)

    def of_images(images):
        pictures = images.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return torch.from_numpy(extract([Image.fromarray(picture) for picture in pictures]))

    return of_images


def art_inception(tensors: dict, path: str | Path, device: str) -> Callable:
    """ArtFID's own network: images as they are, in their own size, neither resized nor normalised."""
    network = inception_v3(weights=None, transform_input=False, aux_logits=False, init_weights=False)
    network.fc = nn.Identity()
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith(HEADS)}
    with refused(f"--inception {path}: not the weights of ArtFID's Inception", RuntimeError):
        network.load_state_dict(body)
    return network.eval().requires_grad_(False).to(device)


def figures(means: dict[str, float], outputs: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Mean distance to the photo, FID and ArtFID, as far as there are `means` of such a column and features
    [N,width] of outputs and references."""
    name = next((name for name in ("LPIPS", "mini-perceptual") if name in means), None)
    made = {name: means[name]} if name else {}
    if len(outputs) > 1 and len(references) > 1:
        mini = "mini-" if outputs.shape[1] != 2048 else ""
        ours, theirs = moments(outputs), moments(references)
        fid = made[mini + "FID"] = frechet(ours.mean, ours.covariance, theirs.mean, theirs.covariance)
        if name:
            mini = "mini-" if mini or name.startswith("mini") else ""
            made[mini + "ArtFID"] = (1 + made[name]) * (1 + fid)
    return made
