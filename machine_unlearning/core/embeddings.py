"""Prompt embeddings computed once per base model."""

from pathlib import Path

import torch

from diffusion_model_finetuning.core.sd import StableDiffusion
from diffusion_model_finetuning.core.shared import cached_once
from evaluation.core.files import digest

CACHE = Path(".cache/unlearncanvas")


def cached_embeddings(sd: StableDiffusion, prompts: list[str], fingerprint: str) -> torch.Tensor:
    """[B,L,D] of prompts, in float32; kept under `.cache/` by base model (its `fingerprint`) and prompts."""
    path = CACHE / f"text-{digest([fingerprint, prompts])}.safetensors"
    return cached_once(path, lambda: {"text": sd.embed(prompts).float()})["text"].to(sd.device)
