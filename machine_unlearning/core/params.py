"""Which UNet weights a method may change. Names are diffusers'; the rules are the original ESD's."""

import torch
from torch import nn

from evaluation.core.errors import UserError

ENDS = ("conv_out.", "conv_norm_out.", "time_embedding.")  # the UNet's outer parts that `no...` scopes leave
XLAYER = ("up_blocks.2.attentions.0.", "up_blocks.2.attentions.2.")
SELFLAYER = ("down_blocks.1.attentions.0.", "down_blocks.2.attentions.0.")
SCOPES = {  # name -> rule on a parameter's name
    "xattn": lambda name: ".attn2." in name,  # cross-attention: 80 tensors, 44 M in SD 1.5
    "xattn_kv": lambda name: ".attn2.to_k." in name or ".attn2.to_v." in name,  # 32 tensors, 19 M
    "selfattn": lambda name: ".attn1." in name,
    "noxattn": lambda name: ".attn2." not in name and not name.startswith(ENDS),
    "notime": lambda name: not name.startswith(ENDS),
    "xlayer": lambda name: ".attn2." in name and name.startswith(XLAYER),
    "selflayer": lambda name: ".attn1." in name and name.startswith(SELFLAYER),
    "full": lambda name: True,
}


def trainable(unet: nn.Module, scope: str) -> dict[str, nn.Parameter]:
    """Name -> parameter of a scope, with gradients on for these alone. An empty scope is a UserError."""
    weights = {name: weight for name, weight in unet.named_parameters() if SCOPES[scope](name)}
    if not weights:
        raise UserError(f"scope={scope}: selects no weight of this UNet; choose from {', '.join(SCOPES)}")
    unet.requires_grad_(False)
    for weight in weights.values():
        weight.requires_grad_(True)
    return weights


def coverage(weights: dict[str, nn.Parameter], mask: dict[str, torch.Tensor]) -> dict[str, float]:
    """Shares of entries that a mask (name -> bool tensor) lets move: of all `weights`, and the least and most
    of a tensor. A mask that lets none move is a UserError."""
    moving = {name: int(mask[name].sum()) for name in weights}
    total = sum(weight.numel() for weight in weights.values())
    if not any(moving.values()):
        raise UserError(f"the mask lets none of {total} weights move; take a larger share, or another scope")
    shares = [count / weights[name].numel() for name, count in moving.items()]
    return {"mask": sum(moving.values()) / total, "mask_least": min(shares), "mask_most": max(shares)}


def mask_gradients(weights: dict[str, nn.Parameter], mask: dict[str, torch.Tensor]) -> None:
    """Zeroes the gradients where the mask (name -> bool tensor) is False: Adam then leaves these weights."""
    for name, weight in weights.items():
        weight.grad.mul_(mask[name])


def kth_smallest(tensors, k: int) -> float:
    """Exactly the k-th smallest (from 1) of all entries of all tensors, on the CPU in linear time."""
    flat = torch.cat([tensor.flatten().cpu() for tensor in tensors]).numpy()
    flat.partition(k - 1)
    return float(flat[k - 1])
