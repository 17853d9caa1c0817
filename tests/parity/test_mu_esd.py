"""ESD against the original: target, loss, gradients, Adam steps, partial denoising."""

import re

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from diffusion_model_finetuning.core.sd import ddim_grid, denoise_until, eps
from machine_unlearning.core import params
from machine_unlearning.esd.train import esd_loss, esd_target
from tests.seeded_weights import seeded_array, seeded_input

ABAR = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod


def build_unet(config, seed_of):
    unet = UNet2DConditionModel(**config)
    shapes = {name: tensor.shape for name, tensor in unet.state_dict().items()}
    unet.load_state_dict(
        {n: torch.from_numpy(seeded_array(n, s, seed_of(n)).copy()) for n, s in shapes.items()}
    )
    return unet.eval().requires_grad_(False)


@pytest.fixture
def case(fixture_file):
    description, arrays = fixture_file("mu_esd")
    rule = description["student"]
    assert rule["rule"].startswith("keys containing 'attn2' are filled with attn2_seed")
    config = description["unet"]["config"]
    frozen = build_unet(config, lambda name: description["frozen_seed"])
    student = build_unet(config, lambda name: rule["attn2_seed"] if "attn2" in name else rule["base_seed"])
    inputs = {
        i["name"].rpartition(".")[2]: torch.from_numpy(
            seeded_input(i["name"], i["shape"], i["seed"], i["low"], i["high"])
        )
        for i in description["inputs"]
    }
    return description, arrays, frozen, student, inputs


def close(got, expected, description, prefix=""):
    tolerance = description["suggested_tolerance"]
    expected = torch.as_tensor(np.asarray(expected))
    got = torch.as_tensor(got, dtype=expected.dtype)
    torch.testing.assert_close(
        got, expected, rtol=tolerance[prefix + "rtol"], atol=tolerance[prefix + "atol"]
    )


def predict(unet, x, t, text):
    """eps, where one row of timesteps or of text serves the whole batch."""
    return eps(unet, x, torch.as_tensor(t).expand(len(x)), text.expand(len(x), -1, -1))


def predictions(description, frozen, inputs):
    x, t = inputs["latents"], description["timestep"]
    with torch.no_grad():
        return predict(frozen, x, t, inputs["emb_null"]), predict(frozen, x, t, inputs["emb_concept"])


def test_target_and_losses(case):
    description, arrays, frozen, student, inputs = case
    e_null, e_concept = predictions(description, frozen, inputs)
    with torch.no_grad():
        e_student = predict(student, inputs["latents"], description["timestep"], inputs["emb_concept"])
    for name, value in (("e_null", e_null), ("e_concept", e_concept), ("e_student", e_student)):
        close(value, arrays[name], description)
    close(esd_target(e_null, e_concept, description["grad_eta"]), arrays["target"], description)
    for eta in description["eta"]:
        close(esd_loss(e_student, e_null, e_concept, eta), arrays[f"loss_eta{eta:g}"], description)


def test_gradients(case):
    description, arrays, frozen, student, inputs = case
    weights = params.trainable(student, "xattn")
    assert set(weights) == set(description["trained_xattn"])
    assert len(params.trainable(student, "noxattn")) == description["n_noxattn"]
    weights = params.trainable(student, "xattn")
    e_null, e_concept = predictions(description, frozen, inputs)
    e_student = predict(student, inputs["latents"], description["timestep"], inputs["emb_concept"])
    esd_loss(e_student, e_null, e_concept, description["grad_eta"]).backward()
    norm = torch.stack([w.grad.double().pow(2).sum() for w in weights.values()]).sum().sqrt()
    close(norm, arrays["grad_norm_xattn"], description)
    for name in arrays.files:
        if name.startswith("grad:"):
            close(weights[name.removeprefix("grad:")].grad, arrays[name], description)


def test_adam_steps(case):
    description, arrays, frozen, student, inputs = case
    key = next(name for name in arrays.files if name.startswith("loss_trajectory_adam_lr"))
    optimizer = torch.optim.Adam(params.trainable(student, "xattn").values(), float(key.partition("lr")[2]))
    e_null, e_concept = predictions(description, frozen, inputs)
    losses = []
    for _ in arrays[key]:
        e_student = predict(student, inputs["latents"], description["timestep"], inputs["emb_concept"])
        loss = esd_loss(e_student, e_null, e_concept, description["grad_eta"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    close(torch.tensor(losses, dtype=torch.float64), arrays[key], description)


def test_partial_denoising(case):
    """The first generation stops after the step with grid index k - 1, for k = 0 never, like the port."""
    description, arrays, _, student, inputs = case
    rule = r"grid tau_i=(\d+)i\+1 for i=0\.\.(\d+), last entry (\d+) dropped"
    stride, last, dropped = map(int, re.search(rule, description["expected"]["z_v1_k*"]).groups())
    *grid, end = ddim_grid(last + 1)
    assert (grid[1] - grid[0], end) == (stride, dropped)
    x = inputs["x_T"]
    text, null = (inputs[name].expand(len(x), -1, -1) for name in ("emb_concept", "emb_null"))
    stops = dict(zip(description["k_values"], description["last_grid_index"], strict=True))
    names = {f"z_v1_k{k}": stop for k, stop in stops.items()} | {"z_unlearncanvas_nostop": 0}
    assert set(names) == {name for name in arrays.files if name.startswith("z_")}
    for name, stop in names.items():
        z = denoise_until(student, x, text, null, description["cfg"], grid, ABAR, stop)
        close(z, arrays[name], description, "z_")
