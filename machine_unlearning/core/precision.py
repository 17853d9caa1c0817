"""Training in bfloat16: what a UNet multiplies and convolves is rounded, what is trained stays float32."""

import torch
from torch import nn


def compute_in(unet: nn.Module, precision: str) -> None:
    """From now on the UNet's calls are computed in `precision`, float32 or bfloat16, and return float32."""
    if precision == "float32":
        return
    forward = unet.forward

    def run(*args, **kwargs):
        # no cache: weights cast while gradients are off would give none later
        with torch.autocast(unet.device.type, getattr(torch, precision), cache_enabled=False):
            output = forward(*args, **kwargs)
        output.sample = output.sample.float()
        return output

    unet.forward = run
