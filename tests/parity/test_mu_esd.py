"""ESD against the original: target, loss, gradients, four Adam steps, partial denoising."""

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


def predictions(description, frozen, inputs):
    x, t = inputs["latents"], torch.tensor([description["timestep"]])
    with torch.no_grad():
        return eps(frozen, x, t, inputs["emb_null"]), eps(frozen, x, t, inputs["emb_concept"])


def test_target_and_losses(case):
    description, arrays, frozen, student, inputs = case
    e_null, e_concept = predictions(description, frozen, inputs)
    with torch.no_grad():
        e_student = eps(
            student, inputs["latents"], torch.tensor([description["timestep"]]), inputs["emb_concept"]
        )
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
    t = torch.tensor([description["timestep"]])
    e_student = eps(student, inputs["latents"], t, inputs["emb_concept"])
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
    t, losses = torch.tensor([description["timestep"]]), []
    for _ in arrays[key]:
        e_student = eps(student, inputs["latents"], t, inputs["emb_concept"])
        loss = esd_loss(e_student, e_null, e_concept, description["grad_eta"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    close(torch.tensor(losses, dtype=torch.float64), arrays[key], description)


def test_partial_denoising(case):
    """The first generation stops after the step with grid index k - 1; the benchmark's port never stops."""
    description, arrays, _, student, inputs = case
    grid = ddim_grid(50)[:-1]
    text, null = inputs["emb_concept"], inputs["emb_null"]
    for k in description["k_values"]:
        x = denoise_until(student, inputs["x_T"], text, null, description["cfg"], grid, ABAR, k - 1)
        close(x, arrays[f"z_v1_k{k}"], description, "z_")
    x = denoise_until(student, inputs["x_T"], text, null, description["cfg"], grid, ABAR, 0)
    close(x, arrays["z_unlearncanvas_nostop"], description, "z_")
