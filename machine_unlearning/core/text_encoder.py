"""The text encoder's transformer layers, by number: their weights, and what passes their attention."""

import contextlib

import torch
from torch import nn


class _Reached(Exception):
    """Ends a forward pass where nothing after it is wanted."""


def layer(text_encoder: nn.Module, number: int) -> tuple[str, nn.Module]:
    """Name and module of a transformer layer, whatever stands before `layers` in this version's names;
    -1 is the last."""
    name, stack = next(item for item in text_encoder.named_modules() if item[0].split(".")[-1] == "layers")
    number %= len(stack)
    return f"{name}.{number}", stack[number]


def projected(text_encoder: nn.Module, ids: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [B,L,D] that enter and leave the output projection of a layer's self-attention, for ids [B,L].

    What enters is all heads side by side; what leaves has the bias, and is not yet added to the stream. What
    comes after it is not computed. Both carry gradients.
    """
    rows = []

    def stop(module, inputs, output):
        rows.extend((inputs[0], output))
        raise _Reached

    handle = layer(text_encoder, number)[1].self_attn.out_proj.register_forward_hook(stop)
    try:
        with contextlib.suppress(_Reached):
            text_encoder(ids)
    finally:
        handle.remove()
    return rows[0], rows[1]
