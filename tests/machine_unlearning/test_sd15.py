"""Every method on Stable Diffusion 1.5's exact architecture, with random weights: one step, on a CPU.

Run by `bash scripts/smoke_sd15.sh METHOD`. With UNLEARNCANVAS_SD15=FOLDER the model (2 GB) is kept there.
"""

import importlib
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from omegaconf import OmegaConf
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

from diffusion_model_finetuning.core.clip_vocabulary import clip_tokenizer
from diffusion_model_finetuning.core.sd import StableDiffusion, load_sd
from diffusion_model_finetuning.scratch import sd_scheduler
from diffusion_model_finetuning.train_sd import save_pipeline
from evaluation import cost, protocol
from machine_unlearning.core import embeddings
from machine_unlearning.core.weights import intervenes
from machine_unlearning.sample import sampler
from tests.tiny import METHODS

UNET_PARAMETERS = 859_520_964
MEMORY = 24e9  # bytes
QUICK = {  # those of them that a method has: one step, and pre-passes of one
    "steps": 1, "walk": 2, "warmup": 0, "accumulate": 1, "images": 2, "retain_images": 1, "surrogates": 1,
    "times": 8, "mask_steps": 1, "score_steps": 1, "invert_steps": 1,
}  # fmt: skip


def build(folder):
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
        protocol.load("canvas"), themes=("Rust", "Sketch", "Winter"), objects=("Cats", "Sea", "Trees")
    )
    content = {
        key: list(v) if isinstance(v, tuple) else v for key, v in asdict(world).items() if key != "name"
    }
    OmegaConf.save(OmegaConf.create(content | {"targets": ["Sketch"]}), folder / "world.yaml")


@pytest.fixture(scope="module")
def sd15(tmp_path_factory):
    kept = os.environ.get("UNLEARNCANVAS_SD15")
    folder = Path(kept).resolve() if kept else tmp_path_factory.mktemp("sd15")
    if not (folder / "world.yaml").exists():  # written last
        build(folder)
    return folder


@pytest.mark.sd15
@pytest.mark.parametrize("method", METHODS)
def test_one_step_at_full_size(method, sd15, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path / "embeddings")
    train = importlib.import_module(f"machine_unlearning.{method}.train")
    settings = OmegaConf.load(Path(train.__file__).parent / "config.yaml").canvas.all
    quick = [f"{key}={value}" for key, value in QUICK.items() if key in settings]
    run = tmp_path / "run"
    train.main(["--target", "Sketch", "--model", str(sd15), "--out", str(run), "--device", "cpu", *quick])
    record = json.loads((run / "record.json").read_text())
    print(f"{method}: {record['seconds']} s, {record['peak_memory_bytes'] / 1e9:.1f} GB")
    assert record["variant"] == "canvas"

    sd = load_sd(sd15)
    assert sum(weight.numel() for weight in sd.unet.parameters()) == UNET_PARAMETERS
    stored = load_file(run / "weights.safetensors")
    changed = [name for name, new in stored.items() if not torch.equal(sd.unet.get_parameter(name), new)]
    assert bool(changed) != intervenes(method)
    draw = sampler(sd, run, method)
    assert all(torch.equal(sd.unet.get_parameter(name), tensor) for name, tensor in stored.items())
    images = draw(["A Cats image in Sketch style."], [0], 2, 9.0, 512, "float32")
    assert images.shape == (1, 512, 512, 3)
    assert max(record["peak_memory_bytes"], cost.peak_memory("cpu")) < MEMORY


@pytest.mark.sd15
def test_uce_edits_for_the_whole_benchmark_in_seconds(sd15, tmp_path, monkeypatch):
    """1,001 prompts are preserved; embedding them is set-up, once per base model."""
    from machine_unlearning.uce import train

    model = tmp_path / "model"
    model.mkdir()
    for part in sd15.iterdir():
        if part.is_dir() or part.name == "model_index.json":  # without the card: the canvas protocol
            (model / part.name).symlink_to(part)
    monkeypatch.setattr(embeddings, "CACHE", tmp_path / "embeddings")
    words = ["--target", "Van_Gogh", "--model", str(model), "--out", str(tmp_path / "run"), "--device", "cpu"]
    train.main(words)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    print(f"uce, 1,001 prompts: {record['seconds']} s, {record['peak_memory_bytes'] / 1e9:.1f} GB")
    assert record["seconds"]["unlearn"] < 10 and record["peak_memory_bytes"] < MEMORY
