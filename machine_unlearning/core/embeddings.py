"""Prompt embeddings computed once per base model."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from diffusion_model_finetuning.core.sd import StableDiffusion
from evaluation.core.files import atomic, digest

CACHE = Path(".cache/unlearncanvas")


def cached_embeddings(sd: StableDiffusion, prompts: list[str], fingerprint: str) -> torch.Tensor:
    """[B,L,D] of prompts, in float32; kept under `.cache/` by base model (its `fingerprint`) and prompts."""
    path = CACHE / f"text-{digest([fingerprint, prompts])}.safetensors"
    if path.exists():
        try:
            return load_file(path, device=str(sd.device))["text"]
        except SafetensorError:
            path.unlink()  # a damaged file is made again
    text = sd.embed(prompts).float().contiguous()
    with atomic(path) as temporary:
        save_file({"text": text.cpu()}, temporary)
    return text
