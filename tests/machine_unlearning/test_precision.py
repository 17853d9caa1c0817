"""Training in bfloat16: gradients, what stays float32; casting frozen weights once changes no bit."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from diffusion_model_finetuning.core.sd import cast_frozen, eps, load_sd
from machine_unlearning.core import params
from machine_unlearning.core.precision import compute_in
from machine_unlearning.esd import train as esd
from tests import tiny


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    x, text, other = (torch.randn(shape, generator=generator) for shape in ((3, 4, 8, 8), *[(3, 32, 16)] * 2))
    return x, torch.tensor([3, 400, 900]), text, other


def prediction_and_gradient(unet, weights, batch):
    """Of a loss whose target comes from the same weights, without gradient, first."""
    x, t, text, other = batch
    with torch.no_grad():
        wanted = eps(unet, x, t, other)
    predicted = eps(unet, x, t, text)
    gradients = torch.autograd.grad(F.mse_loss(predicted, wanted), weights.values())
    return predicted.detach(), torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_bfloat16_points_the_way_of_float32_and_casts_once(tiny_sd, batch, checkpointing):
    results = []
    for precision, cast in (("float32", True), ("bfloat16", False), ("bfloat16", True)):
        unet = load_sd(tiny_sd).unet
        compute_in(unet, precision)
        weights = params.trainable(unet, "xattn")
        if cast:
            cast_frozen(unet, precision)
        if checkpointing:
            unet.enable_gradient_checkpointing()
        results.append(prediction_and_gradient(unet, weights, batch))
    (full, full_gradient), plain, cast = results
    assert all(torch.equal(*pair) for pair in zip(plain, cast, strict=True))
    assert cast[0].dtype == cast[1].dtype == torch.float32
    assert not torch.equal(cast[0], full) and F.cosine_similarity(cast[1], full_gradient, dim=0) > 0.98


def test_what_is_cast(tiny_sd):
    unet = load_sd(tiny_sd).unet
    weights = params.trainable(unet, "xattn_kv")
    cast_frozen(unet, "bfloat16")
    low = {name for name, weight in unet.named_parameters() if weight.dtype == torch.bfloat16}
    assert low.isdisjoint(weights)
    layers = {f"{name}.weight" for name, layer in unet.named_modules() if hasattr(layer, "in_features")}
    assert layers - weights.keys() <= low and "conv_in.bias" in low
    assert not [name for name in low if "norm" in name or name.startswith("conv_out")]


def test_weights_of_an_earlier_run_are_stored_as_they_were(tiny_sd, tmp_path):
    """Though frozen, and so cast, in the later one."""

    def unlearn(target, *more):
        words = ["--target", target, "--model", str(tiny_sd), "--out", str(tmp_path / target), *more]
        esd.main([*words, "--device", "cpu", "steps=1", "walk=2", "batch=2", "size=16", "lr=1e-3"])
        return load_file(tmp_path / target / "weights.safetensors")

    first = unlearn("Rust", "scope=full")
    second = unlearn("Sketch", "--from", str(tmp_path / "Rust"), "scope=xattn_kv", "precision=bfloat16")
    assert tiny.changed(first, second) == {name for name in first if params.SCOPES["xattn_kv"](name)}
