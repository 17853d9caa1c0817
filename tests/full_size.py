"""Stable Diffusion 1.5's exact architecture with random weights, for tests with the marker `sd15`."""

from dataclasses import asdict, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from omegaconf import OmegaConf
from transformers import CLIPTextConfig, CLIPTextModel

from diffusion_model_finetuning.core.clip_vocabulary import clip_tokenizer
from diffusion_model_finetuning.core.sd import StableDiffusion
from diffusion_model_finetuning.core.training import save_pipeline
from diffusion_model_finetuning.scratch import sd_scheduler
from evaluation import protocol

UNET_PARAMETERS = 859_520_964
MEMORY = 24e9  # bytes
METHODS = Path(__file__).parent.parent / "machine_unlearning"
QUICK = {  # those of them that a method has: pre-passes of one step
    "walk": 2, "warmup": 0, "accumulate": 1, "images": 2, "retain_images": 1, "surrogates": 1,
    "times": 8, "mask_steps": 1, "score_steps": 1, "invert_steps": 1, "epochs": 1, "lookup_walk": 2,
}  # fmt: skip


def quick(method: str, steps: int) -> list[str]:
    """Settings for a few steps of a method, as its command line takes them."""
    settings = OmegaConf.load(METHODS / method / "config.yaml").canvas.all
    words = [f"{key}={value}" for key, value in ({"steps": steps} | QUICK).items() if key in settings]
    return words + ["batch=4"] * (settings.get("batch", 0) > 4)  # of 16, a step takes half an hour


def build(folder) -> None:
    """2 GB in half precision, and `world.yaml`, a protocol small enough for it; that is written last."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        cross_attention_dim=768,
        attention_head_dim=8,
    )
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = AutoencoderKL(
        **blocks,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
        scaling_factor=0.18215,
    )
    text = CLIPTextConfig(
        vocab_size=49_408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
        projection_dim=768,
        bos_token_id=49_406,
        eos_token_id=49_407,
        pad_token_id=49_407,
    )
    sd = StableDiffusion(unet, vae, CLIPTextModel(text), clip_tokenizer(), sd_scheduler(), str(folder))
    card = {"variant": "canvas", "protocol": str(folder / "world.yaml"), "data": "mini"}
    save_pipeline(sd, folder, True, card)
    # a small world, all of which the miniature's data set can show
    world = replace(
        protocol.load("canvas"),
        themes=("Rust", "Sketch", "Winter"),
        objects=("Cats", "Sea", "Trees"),
        targets=("Sketch",),
    )
    content = {
        key: list(v) if isinstance(v, tuple) else v for key, v in asdict(world).items() if key != "name"
    }
    OmegaConf.save(OmegaConf.create(content), folder / "world.yaml")
