"""SPM's adapters: made, applied while the UNet runs, composed, merged and stored.

An adapter of rank r adds (alpha / r) up down x to every linear and convolution layer of transformer blocks.
K adapters stand side by side as one LoRA of rank K r, and a matrix M says how they mix:

    y = W x + (alpha / r) up (M (x) I_r) down x        down [K r,in], up [out,K r], M [K,K], all per image

M = diag(gamma) is the plain sum of gamma_i up_i down_i x. Outside `applied` the model is the frozen one.
"""

import json
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from evaluation.core.errors import UserError
from evaluation.core.tensors import read_metadata, read_tensors, save_tensors

FILE = "adapters.safetensors"


class Adapters(NamedTuple):
    """K adapters side by side; `factors`: a layer's name -> down [K r,in,..] and up [out,K r,..]."""

    prompts: list[str]  # what each of the K erases
    rank: int
    alpha: float
    factors: dict[str, tuple[torch.Tensor, torch.Tensor]]


def layers(unet: nn.Module) -> dict[str, nn.Module]:
    """Name -> every linear and convolution layer inside the UNet's transformer blocks: 192 in SD 1.5."""
    return {
        f"{outer}.{inner}": layer
        for outer, block in unet.named_modules()
        if isinstance(block, Transformer2DModel)
        for inner, layer in block.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }


def create(unet: nn.Module, prompt: str, rank: int, alpha: float, generator: torch.Generator) -> Adapters:
    """One adapter to train: down uniform within 1/sqrt(fan in), up zero, so that it starts without effect."""
    factors = {}
    for name, layer in layers(unet).items():
        out, inner, *kernel = layer.weight.shape
        r = min(rank, inner, out)
        down, up = torch.empty(r, inner, *kernel), torch.zeros(out, r, *[1] * len(kernel))
        nn.init.kaiming_uniform_(down, a=5**0.5, generator=generator)
        factors[name] = tuple(nn.Parameter(factor.to(layer.weight.device)) for factor in (down, up))
    return Adapters([prompt], rank, alpha, factors)


def compose(parts: list[Adapters]) -> Adapters:
    """All adapters of `parts`, which agree in rank and alpha, side by side."""
    factors = {
        name: tuple(torch.cat([part.factors[name][i] for part in parts], dim=i) for i in (0, 1))
        for name in parts[0].factors
    }
    return parts[0]._replace(prompts=[p for part in parts for p in part.prompts], factors=factors)


def permeate(layer, x, down, up, mix, alpha: float):
    """(alpha / r) up mix down x for images mixed by their own mix [B,K,K]; x [B,..,in] or [B,in,h,w]."""
    count = mix.shape[-1]
    scale = alpha * count / len(down)
    if isinstance(layer, nn.Linear):
        inner = F.linear(x, down).unflatten(-1, (count, -1))
        return scale * F.linear(torch.einsum("bij,b...jr->b...ir", mix, inner).flatten(-2), up)
    inner = F.conv2d(x, down, None, layer.stride, layer.padding).unflatten(1, (count, -1))
    return scale * F.conv2d(torch.einsum("bij,bjr...->bir...", mix, inner).flatten(1, 2), up)


@contextmanager
def applied(unet: nn.Module, adapters: Adapters, mix: torch.Tensor):
    """Within, UNet calls pass through the adapters, mixed for each image by mix [B,K,K].

    It repeats over longer batches: both halves of a guidance pair are mixed alike, [1,K,K] serves every row.
    """

    def hook(factors, layer, inputs, output):
        rows = mix.repeat(len(output) // len(mix), 1, 1)
        return output + permeate(layer, inputs[0], *factors, rows, adapters.alpha)

    handles = [
        layer.register_forward_hook(partial(hook, adapters.factors[name]))
        for name, layer in layers(unet).items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def merged(unet: nn.Module, adapters: Adapters, mix: torch.Tensor) -> dict[str, torch.Tensor]:
    """State-dict entries of the layers with the adapters melted in: W + (alpha / r) up (mix (x) I_r) down.

    One mix [K,K] for all prompts, such as diag(gamma): an export loses the scaling by prompt.
    """
    weights = {}
    for name, layer in layers(unet).items():
        down, up = (factor.detach().flatten(1) for factor in adapters.factors[name])
        r = len(down) // len(mix)
        product = up @ torch.kron(mix, torch.eye(r, device=mix.device)) @ down
        weights[f"{name}.weight"] = layer.weight + adapters.alpha / r * product.view_as(layer.weight)
    return weights


def key(name: str) -> str:
    """A layer's name in LoRA files as the community's tools read them."""
    return "lora_unet_" + name.replace(".", "_")


def save(folder: str | Path, adapters: Adapters) -> None:
    """Writes them as one LoRA; its alpha is K times an adapter's, as readers divide by its rank K r."""
    tensors = {}
    for name, (down, up) in adapters.factors.items():
        tensors[f"{key(name)}.lora_down.weight"], tensors[f"{key(name)}.lora_up.weight"] = down, up
        tensors[f"{key(name)}.alpha"] = torch.tensor(adapters.alpha * len(adapters.prompts))
    about = {"prompts": adapters.prompts, "rank": adapters.rank, "alpha": adapters.alpha}
    # two entries of metadata would stand in random order
    save_tensors(Path(folder) / FILE, tensors, {"spm": json.dumps(about)})


def load(folder: str | Path, unet: nn.Module) -> Adapters:
    """The adapters of a run, on the UNet's device; a UserError if the file is missing or not such a file."""
    path = Path(folder) / FILE
    if not path.exists():
        raise UserError(f"{path}: no such file; remove {folder} and run SPM's train.py with --out {folder}")
    tensors, about = read_tensors(path), read_metadata(path, "spm")
    factors = {
        name: tuple(tensors.get(f"{key(name)}.lora_{part}.weight") for part in ("down", "up"))
        for name in layers(unet)
    }
    adapters = Adapters(about.get("prompts"), about.get("rank"), about.get("alpha"), factors)
    if fault := misfit(adapters, layers(unet)):
        raise UserError(f"{path}: not adapters of this model ({fault}); remove the folder and run again")
    on_device = {name: tuple(factor.to(unet.device) for factor in pair) for name, pair in factors.items()}
    return adapters._replace(factors=on_device)


def misfit(adapters: Adapters, network: dict[str, nn.Module]) -> str | None:
    """Why adapters read from a file are none of a network's layers; None if they are."""
    prompts, rank, alpha = adapters.prompts, adapters.rank, adapters.alpha
    listed = isinstance(prompts, list) and prompts and all(isinstance(prompt, str) for prompt in prompts)
    if not listed or type(rank) is not int or type(alpha) not in (int, float):
        return "its metadata says nothing of them"
    for name, layer in network.items():
        out, inner, *kernel = layer.weight.shape
        r = len(prompts) * min(rank, inner, out)
        shapes = [(r, inner, *kernel), (out, r, *[1] * len(kernel))]
        if [None if factor is None else tuple(factor.shape) for factor in adapters.factors[name]] != shapes:
            return f"the size of {key(name)}"
    return None
