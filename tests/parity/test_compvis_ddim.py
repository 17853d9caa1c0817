"""The CompVis DDIM sampler with guidance: timesteps, noise levels, the latent after every step."""

import torch
from diffusers import DDIMScheduler

from diffusion_model_finetuning.core.formats import schedule, unet_from_compvis
from diffusion_model_finetuning.core.load import SD15
from diffusion_model_finetuning.core.sd import ddim_grid, denoise_until
from tests.parity import compvis


def test_trajectory(fixture_file):
    description, arrays = fixture_file("compvis_ddim")
    given, config = compvis.inputs(description), description["config"]
    unet = compvis.build_unet(config["unet"])
    unet.load_state_dict(unet_from_compvis(compvis.weights(description, "unet")))
    abar = DDIMScheduler.from_pretrained(SD15 / "scheduler").alphas_cumprod
    compvis.close(abar, schedule()["alphas_cumprod"].numpy(), description)

    steps, grid = given["steps"], arrays["timesteps"].tolist()[::-1]
    assert grid == list(range(1, 1001, 1000 // steps))  # one more than `steps` where they do not divide 1000
    assert ddim_grid(steps) == grid[:steps]
    compvis.close(abar[grid], arrays["alphas"], description)
    compvis.close(abar[[0, *grid[:-1]]], arrays["alphas_prev"], description)

    x, guidance = given["x_T"], given["guidance"]
    cond, uncond = (given[name].expand(len(x), -1, -1) for name in ("cond", "uncond"))
    compvis.close(x, arrays["trajectory"][0], description)
    for count, step in enumerate(reversed(range(len(grid))), 1):
        so_far = denoise_until(unet, x, cond, uncond, guidance, grid, abar, step)
        compvis.close(so_far, arrays["trajectory"][count], description)
    compvis.close(so_far, arrays["latent"], description)
    assert not torch.allclose(so_far, x)
