"""What is prepared before many images are drawn changes no pixel; guided predictions in half precision."""

import numpy as np
import pytest
import torch

from diffusion_model_finetuning.core.sd import guided_eps, load_sd, sample

PROMPTS = ["A Cats image in Sketch style.", "Rust style", "A Trees image in Photo style."]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_hastened_pixels_are_the_same_to_the_bit(tiny_sd, precision):
    sd = load_sd(tiny_sd)
    draw = lambda: sample(sd, PROMPTS, [0, 1, 2], steps=5, guidance=9.0, precision=precision)  # noqa: E731
    before, weight = draw(), sd.unet.conv_in.weight
    sd.hasten(precision)
    assert weight.dtype == getattr(torch, precision)
    assert np.array_equal(draw(), before) and before.std() > 5


def guided(unet, t: int, text, null, precision):
    """Noise predicted at guidance 9 for as many latents as there are rows of text."""
    x = torch.randn(len(text), 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", getattr(torch, precision), enabled=precision != "float32"):
        return guided_eps(unet, x, torch.tensor(t), text, null, 9.0).float()


@pytest.mark.parametrize("t", [1, 101, 501, 981])
def test_a_last_layer_in_float32_keeps_guided_noise_nearer(tiny_sd, t):
    """Nearer to float32's. By a hundredth here: most rounding is in the layers before."""
    sd, errors = load_sd(tiny_sd), []
    text, null = sd.embed(["A Cats image in Sketch style."] * 16), sd.embed([""])
    exact = guided(sd.unet, t, text, null, "float32")
    for _ in range(2):
        error = guided(sd.unet, t, text, null, "bfloat16") - exact
        errors.append(error.square().mean().sqrt().item())
        sd.unet.conv_out.__class__ = torch.nn.Conv2d  # the layer as diffusers has it
    assert errors[0] < 0.995 * errors[1] < 0.1


def test_the_last_layer_adds_no_rounding_of_its_own(tiny_sd):
    layer = load_sd(tiny_sd).unet.conv_out
    x = torch.randn(2, layer.in_channels, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        made = layer(x)
    assert torch.equal(made, layer(x.float())) and not torch.equal(made, made.bfloat16().float())
