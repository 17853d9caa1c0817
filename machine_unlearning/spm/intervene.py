"""SPM while images are sampled: likeness of prompt and concept scales the adapters (facilitated transport).

    gamma(p, e) = max( cos(vec E(p), vec E(e)),  |T(p) & T(e)| / |T(e)| )

E: the text encoder's last hidden state; T: the set of a prompt's tokens without start, end and padding.
"""

import torch
import torch.nn.functional as F

from diffusion_model_finetuning.core.intervention import Intervention
from diffusion_model_finetuning.core.sd import StableDiffusion
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


def transport(sd: StableDiffusion, ids, text, erased: list[str], measure: str):
    """gamma [B,K] of B prompts, as ids [B,L] and embeddings [B,L,D], and K erased ones; `measure` may leave
    one of the two terms out."""
    concepts = sd.tokens(erased)
    with torch.autocast(text.device.type, enabled=False):
        alike = cosine(text.float(), sd.embed(concepts).float())
    shared = overlap(ids.tolist(), concepts.tolist(), sd.tokenizer.all_special_ids).to(alike)
    return {"cosine": alike, "tokens": shared, "max": torch.maximum(alike, shared)}[measure]


def mixing(gamma, scaling: str):
    """How K adapters mix for each prompt: gamma [B,K] -> [B,K,K].

    `linear`: the paper's sum_i gamma_i up_i down_i x. `product`: as the official code, (sum_i gamma_i up_i)
    (sum_j gamma_j down_j) x, so gamma squared, and products between adapters.
    """
    return torch.diag_embed(gamma) if scaling == "linear" else gamma[:, :, None] * gamma[:, None, :]


def intervention(sd: StableDiffusion, run: str) -> Intervention:
    """What a run does while images are sampled: its adapters are applied, with the guidance and the negative
    prompt of its settings."""
    s, trained = recorded_settings(run, read_record(run)), adapters.load(run, sd.unet)

    def around(ids, text):
        mix = mixing(transport(sd, ids, text, trained.prompts, s["gamma"]), s["scaling"])
        return adapters.applied(sd.unet, trained, mix)

    return Intervention(around=around, null=s["negative_prompt"], guidance=s["sampling_guidance"])
