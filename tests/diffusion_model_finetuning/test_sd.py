"""The parts of Stable Diffusion against diffusers and against themselves in another arrangement."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from diffusion_model_finetuning.core.sd import (
    ddim_grid,
    ddim_step,
    denoise_until,
    diffusion_loss,
    eps,
    guided_eps,
    load_sd,
    noise_of,
    sample,
)
from evaluation.core.errors import UserError

PROMPTS = ["A Cats image in Sketch style.", "Rust style", "A Trees image in Photo style."]


@pytest.fixture(scope="module")
def sd(tiny_sd):
    return load_sd(tiny_sd)


def test_sample_equals_diffusers(sd, tiny_sd):
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd, torch_dtype=torch.float32, safety_checker=None)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    latents = torch.stack([noise_of(seed, (4, 8, 8)) for seed in range(3)])
    expected = pipe(
        PROMPTS,
        latents=latents,
        num_inference_steps=7,
        guidance_scale=4.0,
        height=16,
        width=16,
        output_type="np",
    ).images
    images = sample(sd, PROMPTS, [0, 1, 2], steps=7, guidance=4.0)
    assert images.shape == (3, 16, 16, 3) and images.dtype == np.uint8
    assert np.abs(images / 255.0 - expected).max() <= 1 / 255
    assert images.std() > 5  # not one flat colour, of which any sampler would be right


def test_batch_equals_single(sd):
    prompts, seeds = PROMPTS * 3, list(range(9))
    together = sample(sd, prompts[:8], seeds[:8], steps=5, guidance=5.0)
    alone = np.concatenate(
        [sample(sd, [p], [s], steps=5, guidance=5.0) for p, s in zip(prompts[:8], seeds[:8])]
    )
    assert np.abs(together.astype(int) - alone).max() <= 1


def test_noise_depends_on_the_key_alone():
    shape = (4, 8, 8)
    key = ("Sketch", "Cats", 188)
    first = noise_of(key, shape)
    torch.manual_seed(5)
    torch.randn(3)
    assert torch.equal(first, noise_of(key, shape))
    others = [("Sketch", "Cats", 288), ("Sketch", "Dogs", 188), ("Rust", "Cats", 188), 188]
    assert all(not torch.equal(first, noise_of(other, shape)) for other in others)
    many = torch.stack([noise_of(i, shape) for i in range(200)])
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02


def test_ddim_step_undoes_add_noise(sd):
    x0, noise = torch.randn(2, 3, 4, 8, 8).unbind()
    t, earlier = torch.tensor([900, 500, 21]), torch.tensor([700, 1, 20])
    a, a_prev = sd.abar[t].view(-1, 1, 1, 1), sd.abar[earlier].view(-1, 1, 1, 1)
    moved = ddim_step(sd.add_noise(x0, noise, t), noise, a, a_prev)
    torch.testing.assert_close(moved, sd.add_noise(x0, noise, earlier), rtol=1e-4, atol=1e-4)
    expected = sd.scheduler.add_noise(x0, noise, t)
    torch.testing.assert_close(sd.add_noise(x0, noise, t), expected)


def test_guidance(sd):
    x, text, null = torch.randn(2, 4, 8, 8), sd.embed(PROMPTS[:2]), sd.embed([""])
    t = torch.tensor([10, 800])
    e, e_null = eps(sd.unet, x, t, text), eps(sd.unet, x, t, null.expand(2, -1, -1))
    torch.testing.assert_close(
        guided_eps(sd.unet, x, t, text, null, 3.0), 3 * e - 2 * e_null, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(guided_eps(sd.unet, x, t, text, null, 1), e)


def test_stops_per_row_equal_single_rows(sd):
    grid, stops = ddim_grid(5), torch.tensor([0, 2, 5])
    x, text, null = torch.randn(3, 4, 8, 8), sd.embed(PROMPTS), sd.embed([""])
    together = denoise_until(sd.unet, x, text, null, 3.0, grid, sd.abar, stops)
    for i, stop in enumerate(stops.tolist()):
        alone = denoise_until(sd.unet, x[i : i + 1], text[i : i + 1], null, 3.0, grid, sd.abar, stop)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-4)
    assert torch.equal(together[2], x[2])  # stop behind the grid's end: nothing is denoised
    assert not torch.equal(together[1], x[1])


def test_a_row_that_walks_on_keeps_its_own_null(sd):
    grid, stops = ddim_grid(5), torch.tensor([3, 0, 2])
    x, text, null = torch.randn(3, 4, 8, 8), sd.embed(PROMPTS), sd.embed(["", "A Dogs image", "Sketch style"])
    together = denoise_until(sd.unet, x, text, null, 3.0, grid, sd.abar, stops)
    for i, row in enumerate(torch.arange(3).split(1)):
        alone = denoise_until(sd.unet, x[row], text[row], null[row], 3.0, grid, sd.abar, stops[row])
        torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-4)
        shared = denoise_until(sd.unet, x[row], text[row], null[:1], 3.0, grid, sd.abar, stops[row])
        assert torch.allclose(alone, shared, rtol=1e-4, atol=1e-4) == (i == 0)


@pytest.mark.parametrize("stop", [-1, torch.tensor([2, 0, -1])])
def test_negative_stop_is_refused(sd, stop):
    """It would begin again at the noisy end of the grid."""
    x, text, null = torch.randn(3, 4, 8, 8), sd.embed(PROMPTS), sd.embed([""])
    with pytest.raises(ValueError, match="stop -1"):
        denoise_until(sd.unet, x, text, null, 3.0, ddim_grid(5), sd.abar, stop)


def test_null_of_other_rows_is_refused(sd):
    x, text = torch.randn(2, 4, 8, 8), sd.embed(PROMPTS[:2])
    with pytest.raises(RuntimeError):
        guided_eps(sd.unet, x, 10, text, sd.embed(PROMPTS), 3.0)


def test_encode_decode(sd):
    images = torch.rand(2, 3, 16, 16)
    moments = sd.moments(images)
    drawn = sd.sample_moments(moments, torch.Generator().manual_seed(3))
    assert torch.equal(sd.encode(images, torch.Generator().manual_seed(3)), drawn)
    torch.manual_seed(3)
    posterior = sd.vae.encode(images * 2 - 1).latent_dist
    expected = sd.vae.config.scaling_factor * posterior.sample(torch.Generator().manual_seed(3))
    torch.testing.assert_close(drawn, expected)
    expected = sd.vae.decode(drawn / sd.vae.config.scaling_factor).sample / 2 + 0.5
    torch.testing.assert_close(sd.decode(drawn), expected.clamp(0, 1))


def test_loss_is_the_mean_squared_error_of_the_noise(sd):
    latents, text = torch.randn(4, 4, 8, 8), sd.embed(["Rust style"] * 4)
    generator = torch.Generator().manual_seed(1)
    t, noise = torch.randint(1000, (4,), generator=generator), torch.randn(latents.shape, generator=generator)
    error = eps(sd.unet, sd.scheduler.add_noise(latents, noise, t), t, text) - noise
    loss = diffusion_loss(sd, latents, text, torch.Generator().manual_seed(1))
    torch.testing.assert_close(loss, error.pow(2).mean())


def test_fingerprint(sd, tiny_sd):
    assert load_sd(tiny_sd).fingerprint() == sd.fingerprint()
    other = load_sd(tiny_sd)
    other.unet.conv_out.bias[0] += 1
    assert other.fingerprint() != sd.fingerprint()


def test_errors_are_one_sentence(tiny_sd, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(tiny_sd, copy)
    config = copy / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": "v_prediction"}))
    with pytest.raises(UserError, match=r"model: predicts v_prediction; only epsilon"):
        load_sd(copy)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged") as damaged:
        load_sd(copy)
    shutil.rmtree(copy / "text_encoder")
    with pytest.raises(UserError, match="no folder text_encoder/") as missing:
        load_sd(copy)
    assert all("\n" not in str(error.value) for error in (damaged, missing))
