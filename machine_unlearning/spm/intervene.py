"""SPM while images are sampled: likeness of prompt and concept scales the adapters (facilitated transport).

    gamma(p, e) = max( cos(vec E(p), vec E(e)),  |T(p) & T(e)| / |T(e)| )

E: the text encoder's last hidden state; T: the set of a prompt's tokens without start, end and padding.
"""

import torch
import torch.nn.functional as F

from diffusion_model_finetuning.core.sd import (
    StableDiffusion,
    ddim_grid,
    denoise_until,
    starting_noise,
    to_pixels,
)
from evaluation.core.record import read_record
from machine_unlearning.core.cli import recorded_settings
from machine_unlearning.spm import adapters


def cosine(text, erased):
    """Cosine of every prompt [B,L,D] with every erased prompt [K,L,D], each one flat vector: [B,K]."""
    return F.normalize(text.flatten(1)) @ F.normalize(erased.flatten(1)).T


def overlap(ids: list[list[int]], erased: list[list[int]], special: list[int]):
    """Share of each erased prompt's distinct tokens that a prompt has: [B,K] for B and K lists of ids."""
    prompts, concepts = ([set(tokens) - set(special) for tokens in side] for side in (ids, erased))
    return torch.tensor([[len(p & e) / len(e) for e in concepts] for p in prompts])


def transport(sd: StableDiffusion, prompts: list[str], erased: list[str], measure: str):
    """gamma [B,K] of B prompts and K erased ones; `measure` may leave one of the two terms out."""
    alike = cosine(sd.embed(prompts), sd.embed(erased))
    ids, concepts = sd.tokens(prompts).tolist(), sd.tokens(erased).tolist()
    shared = overlap(ids, concepts, sd.tokenizer.all_special_ids).to(alike)
    return {"cosine": alike, "tokens": shared, "max": torch.maximum(alike, shared)}[measure]


def mixing(gamma, scaling: str):
    """How K adapters mix for each prompt: gamma [B,K] -> [B,K,K].

    `linear`: the paper's sum_i gamma_i up_i down_i x. `product`: as the official code, (sum_i gamma_i up_i)
    (sum_j gamma_j down_j) x, so gamma squared, and products between adapters.
    """
    return torch.diag_embed(gamma) if scaling == "linear" else gamma[:, :, None] * gamma[:, None, :]


def sampler(sd: StableDiffusion, run: str):
    """-> draw(prompts, seeds, steps, guidance, size, precision), like `sample` of core/sd.py without its sd.

    It is that function with the adapters applied and, where the run's settings say so, another guidance and a
    negative prompt.
    """
    s, trained = recorded_settings(run, read_record(run)), adapters.load(run, sd.unet)

    @torch.no_grad()
    def draw(prompts, seeds, steps=50, guidance=7.5, size=None, precision="float32"):
        noise, dtype = starting_noise(sd, seeds, size), getattr(torch, precision)
        mix = mixing(transport(sd, prompts, trained.prompts, s["gamma"]), s["scaling"])
        scale = guidance if s["sampling_guidance"] is None else s["sampling_guidance"]
        with (
            torch.autocast(sd.device.type, dtype, enabled=dtype != torch.float32),
            adapters.applied(sd.unet, trained, mix),
        ):
            null, text = sd.embed([s["negative_prompt"]]), sd.embed(prompts)
            x = denoise_until(sd.unet, noise, text, null, scale, ddim_grid(steps), sd.abar)
            images = sd.decode(x)
        return to_pixels(images)

    return draw
