"""Random weights in the layout of `Salesforce/blipdiffusion-controlnet`: tiny, or as large as the release."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import save_file

from style_transfer.blip.clip import ContextText
from style_transfer.blip.model import FILES
from style_transfer.blip.qformer import QFormer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bears", "towers", "tall"]
SCHEDULER = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "set_alpha_to_one": False,
    "skip_prk_steps": True, "steps_offset": 1,
}  # fmt: skip
TINY = {
    "tower": {"width": 16, "hidden": 32, "depth": 2, "heads": 2, "patch": 4, "positions": 17, "eps": 1e-6},
    "qformer": {
        "width": 16, "hidden": 32, "depth": 2, "heads": 4, "queries": 4, "vocabulary": 9, "positions": 8,
        "projection": 64, "eps": 1e-12, "frequency": 2,
    },
    "text_encoder": {"width": 16, "hidden": 32, "depth": 2, "heads": 2, "positions": 24, "eps": 1e-5},
    "vae": {"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 16},
    "unet": {
        "sample_size": 8, "block_out_channels": [16, 32], "layers_per_block": 1, "cross_attention_dim": 16,
        "attention_head_dim": 2, "norm_num_groups": 8, "down_block_types": ["CrossAttnDownBlock2D"] * 2,
        "up_block_types": ["CrossAttnUpBlock2D"] * 2,
    },
    "controlnet": [8, 16],
}  # fmt: skip
REAL = {
    "tower": {
        "width": 1024, "hidden": 4096, "depth": 23, "heads": 16, "patch": 14, "positions": 257, "eps": 1e-6,
    },
    "qformer": {
        "width": 768, "hidden": 3072, "depth": 12, "heads": 12, "queries": 16, "vocabulary": 30_523,
        "positions": 512, "projection": 3072, "eps": 1e-12, "frequency": 1,
    },
    "text_encoder": {"width": 768, "hidden": 3072, "depth": 12, "heads": 12, "positions": 77, "eps": 1e-5},
    "vae": {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "sample_size": 512},
    "unet": {
        "sample_size": 64, "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2,
        "cross_attention_dim": 768, "attention_head_dim": 8,
    },
    "controlnet": [16, 32, 96, 256],
}  # fmt: skip


def save_own(module, folder, config):
    for tensor in module.parameters():
        if tensor.ndim == 3:  # made as zeros
            torch.nn.init.normal_(tensor)
    folder.mkdir()
    save_file(
        {name: tensor.half() for name, tensor in module.state_dict().items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(config))


def heads(sizes):
    return {"num_attention_heads": sizes["heads"]}


def build(folder, sizes, tokenizer):
    """Writes the release into `folder`, part by part and in half precision -> {name in FILES: path}."""
    torch.manual_seed(0)
    folder, depth = Path(folder), len(sizes["vae"]["block_out_channels"])
    unet = UNet2DConditionModel(**sizes["unet"])
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=sizes["controlnet"])
    for tensor in controlnet.parameters():
        if not tensor.any():  # a ControlNet begins without any influence
            torch.nn.init.normal_(tensor, std=0.5)
    controlnet.half().save_pretrained(folder / "controlnet")
    unet.half().save_pretrained(folder / "unet")
    del unet, controlnet
    vae = AutoencoderKL(
        **sizes["vae"],
        down_block_types=["DownEncoderBlock2D"] * depth,
        up_block_types=["UpDecoderBlock2D"] * depth,
        latent_channels=4,
        scaling_factor=0.18215,
    )
    vae.half().save_pretrained(folder / "vae")
    frequency = {"cross_attention_frequency": sizes["qformer"]["frequency"]}
    bert = heads(sizes["qformer"]) | frequency
    config = {"vision_config": heads(sizes["tower"]), "qformer_config": bert}
    save_own(QFormer(**sizes["qformer"], tower=sizes["tower"]), folder / "qformer", config)
    text_encoder = ContextText(**sizes["text_encoder"], vocabulary=len(tokenizer))
    save_own(text_encoder, folder / "text_encoder", heads(sizes["text_encoder"]))
    tokenizer.save_pretrained(folder / "tokenizer")
    PNDMScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"ctx_begin_pos": 2, "mean": None, "std": None}))
    fillers = [f"word{number}" for number in range(len(WORDS), sizes["qformer"]["vocabulary"] - 1)]
    (folder / "vocab.txt").write_text("\n".join([*WORDS, *fillers]) + "\n")
    return {name: folder / name for name in FILES}
