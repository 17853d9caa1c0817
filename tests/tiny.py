"""A random-weight Stable Diffusion of 16-pixel images, in diffusers layout: every code path, no quality."""

import functools
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from omegaconf import OmegaConf

from diffusion_model_finetuning.core.sd import load_sd
from diffusion_model_finetuning.scratch import new_sd
from diffusion_model_finetuning.train_sd import save_pipeline
from evaluation.core.record import WEIGHTS, write_record
from machine_unlearning.core.weights import load_run

METHODS = sorted(p.parent.name for p in Path(__file__).parent.parent.glob("machine_unlearning/*/train.py"))
CARD = {"variant": "mini", "protocol": "mini", "data": "mini"}
WORDINGS = {"A {object} image in {theme} style.": 0.5, "{theme} style": 0.5}
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "sample_size": 16,
    "latent_channels": 4,
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
SCRATCH = {
    "length": 32,
    "text_encoder": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 16,
    },
    "unet": {
        "sample_size": 8,
        "block_out_channels": [16, 32],
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "down_block_types": ["CrossAttnDownBlock2D"] * 2,
        "up_block_types": ["CrossAttnUpBlock2D"] * 2,
        "norm_num_groups": 8,
    },
}
SETTINGS = {
    "vae": {
        "seed": 0,
        "size": 32,
        "per_object": 1,
        "steps": 4,
        "batch": 8,
        "crop": 16,
        "full_size_share": 0.25,
        "lr": 1e-3,
        "kl": 1e-4,
        "save_every": 2,
        "model": VAE,
    },
    "sd": {
        "seed": 0,
        "size": 16,
        "per_object": 1,
        "steps": 4,
        "batch": 4,
        "accumulate": 1,
        "lr": 1e-3,
        "one_cycle": True,
        "warmup": 0.25,
        "weight_decay": 0.01,
        "clip": 1.0,
        "ema": 0.9,
        "caption_dropout": 0.2,
        "captions": WORDINGS,
        "flip": True,
        "text_encoder": "train",
        "precision": "no",
        "gradient_checkpointing": False,
        "min_snr": None,
        "workers": 0,
        "log_every": 1,
        "save_every": 2,
        "keep": 2,
        "validate": {"every": 0, "prompts": ["Rust style", "Sketch style"]},
        "half": True,
        "card": CARD,
        "scratch": SCRATCH,
    },
    "ip2p": {
        "seed": 0,
        "size": 16,
        "per_object": 1,
        "steps": 4,
        "batch": 4,
        "accumulate": 1,
        "lr": 1e-3,
        "one_cycle": False,
        "warmup": 0.0,
        "weight_decay": 0.01,
        "clip": 1.0,
        "ema": 0.9,
        "instruction": "Transform the image to {theme} style.",
        "dropout": 0.2,
        "flip": True,
        "precision": "no",
        "gradient_checkpointing": False,
        "min_snr": None,
        "workers": 0,
        "log_every": 1,
        "save_every": 2,
        "keep": 2,
        "validate": {"every": 0, "edits": ["Rust+Cats", "Sketch+Sea"]},
        "half": False,
        "card": CARD,
    },
}


def save_vae(folder, seed=0):
    torch.manual_seed(seed)
    AutoencoderKL(**VAE, scaling_factor=0.5).save_pretrained(Path(folder) / "vae")


def build_sd(folder, seed=0):
    """Writes the model into `folder`; another seed gives another base model."""
    save_vae(folder, seed)
    save_pipeline(new_sd(folder, OmegaConf.create(SCRATCH), WORDINGS, "cpu"), Path(folder), False, CARD)
    return Path(folder)


def settings_file(folder):
    """Settings of both training scripts, to be given as --settings."""
    path = Path(folder) / "tiny.yaml"
    OmegaConf.save(OmegaConf.create(SETTINGS), path)
    return str(path)


@functools.cache
def weights_at(model: Path, written: int):
    """`weights_of` a model whose files were last written then."""
    return load_sd(model).weights()


def weights_of(model, run=None):
    """Name -> tensor of a model folder's UNet and text encoder, with a run's weights put in."""
    if not run:
        written = max(path.stat().st_mtime_ns for path in Path(model).rglob("*.safetensors"))
        return {name: weight.clone() for name, weight in weights_at(Path(model), written).items()}
    sd = load_sd(model)
    load_run(sd, run)
    return sd.weights()


def changed(before, after):
    """Names of the tensors that differ in any bit."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def interrupt(function, calls):
    """Like `function`, but the call after `calls` of them raises KeyboardInterrupt instead."""
    count = 0

    def wrapped(*args, **kwargs):
        nonlocal count
        count += 1
        if count > calls:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    return wrapped


def finished(folder: Path, method="esd", **changes) -> Path:
    """The files of a finished run, without weights in them; -> its folder."""
    kinds = {"target": "Rust", "variant": "mini", "settings": {}, "seed": 0, "model": "0", "seconds": {}}
    write_record(folder, {"method": method, **kinds, "peak_memory_bytes": 0, "stored_bytes": 0} | changes)
    (folder / WEIGHTS).write_bytes(b"")
    return folder


def flags_of(arguments: list[str]) -> dict[str, str]:
    """Flag -> value of a command's arguments."""
    return dict(zip(arguments[::2], arguments[1::2], strict=True))
