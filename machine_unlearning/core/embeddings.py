"""Prompt embeddings computed once per text encoder."""

from pathlib import Path

import torch

from diffusion_model_finetuning.core.fingerprint import text_fingerprint
from diffusion_model_finetuning.core.sd import StableDiffusion
from diffusion_model_finetuning.core.shared import cached_once
from evaluation.core.files import digest

CACHE = Path(".cache/unlearncanvas")


def cached_embeddings(sd: StableDiffusion, prompts: list[str]) -> torch.Tensor:
    """[B,L,D] of prompts, in float32; kept under `.cache/` by prompts and by the text encoder as it is now:
    an earlier run may have edited it."""
    path = CACHE / f"text-{digest([text_fingerprint(sd), prompts])}.safetensors"
    return cached_once(path, lambda: {"text": sd.embed(prompts).float()})["text"].to(sd.device)
