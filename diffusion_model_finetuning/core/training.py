"""What the training scripts share: settings files, losses, learning-rate curve, images, files written."""

import argparse
import json
import math
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from diffusion_model_finetuning.core.card import CARD
from evaluation import canvas
from evaluation.core.config import override
from evaluation.core.errors import UserError, closest
from evaluation.core.files import atomic, write_json
from evaluation.data import parquet
from evaluation.data.images import CanvasImages
from evaluation.mini import dataset as mini

SETTINGS = Path(__file__).parent.parent / "settings"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", required=True, help="mini, sd15, or a YAML file of that form")
    parser.add_argument("--data", required=True, help="data set: folder, parquet shards, or mini")
    parser.add_argument("--out", required=True, help="model folder to write")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")


def settings(name: str, section: str, overrides: list[str]) -> DictConfig:
    """The `section` of a settings file with dot-list overrides; an unknown key is a UserError."""
    path = Path(name) if name.endswith(".yaml") else SETTINGS / f"{name}.yaml"
    if not path.exists():
        shipped = [p.stem for p in SETTINGS.glob("*.yaml")]
        raise UserError(f"--settings {name}: no such settings; {closest(name, shipped)}")
    content = OmegaConf.load(path)
    if section not in content:
        raise UserError(f"--settings {name}: has no section {section!r}")
    return override(content[section], overrides)


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  libraries draw from the global state
    torch.manual_seed(seed)


def noise_loss(
    predicted: torch.Tensor, noise: torch.Tensor, abar_t: torch.Tensor, min_snr: float | None = None
):
    """Mean squared error of the predicted noise [B,C,h,w] at noise levels abar_t [B].

    With `min_snr` = gamma (5 in Hang et al. 2023), an image weighs min(SNR, gamma) / SNR, where SNR =
    abar / (1 - abar): all count alike in x_0 up to gamma, and nearly clean ones no more than that.
    """
    if min_snr is None:
        return F.mse_loss(predicted.float(), noise)
    error, snr = F.mse_loss(predicted.float(), noise, reduction="none"), abar_t / (1 - abar_t)
    return (error.mean((1, 2, 3)) * snr.clamp(max=min_snr) / snr).mean()


def one_cycle(progress: float, warmup: float = 0.05) -> float:
    """Factor of the learning rate: up linearly over the `warmup` share, then down a cosine to zero."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def cells_of(data: str) -> list[tuple[str, str]]:
    """The (theme, object) pairs of a data folder: the miniature's if it is one, else the benchmark's."""
    benchmark = (Path(data) / "Bricks").is_dir() or parquet.shard_files(data)
    drawn = data.partition(":")[0] == "mini" or not benchmark
    themes, objects = (mini.THEMES, mini.OBJECTS) if drawn else (canvas.THEMES, canvas.OBJECTS)
    return [(theme, obj) for theme in themes for obj in objects]


def images(data: str, per_object: int, size: int) -> CanvasImages:
    """Training images of all cells: numbers 1 to `per_object` without the test numbers."""
    numbers = [i for i in range(1, per_object + 1) if i not in canvas.TEST]
    return CanvasImages(data, cells_of(data), numbers, size)


def load_pixels(data: CanvasImages) -> torch.Tensor:
    """All images in memory, uint8 [N,3,H,W]."""
    pixels = torch.empty(len(data), 3, data.size, data.size, dtype=torch.uint8)
    for i, row in enumerate(tqdm(data.rows, "read images", disable=None)):
        pixels[i] = torch.from_numpy(np.asarray(data.picture(row)).copy()).permute(2, 0, 1)
    return pixels


def save_pipeline(sd, out: Path, half: bool, card: dict, pipeline=StableDiffusionPipeline) -> None:
    """Writes a folder that diffusers' `pipeline.from_pretrained` loads, weights in safetensors."""
    modules = {"unet": sd.unet, "vae": sd.vae, "text_encoder": sd.text_encoder}
    if half:
        modules = {name: module.half() for name, module in modules.items()}
    pipeline(
        **modules,
        tokenizer=sd.tokenizer,
        scheduler=sd.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(out)
    # transformers loads in the dtype named here, diffusers in float32
    config = out / "text_encoder" / "config.json"
    write_json(config, json.loads(config.read_text()) | {"dtype": "float32"})
    if card:
        write_json(out / CARD, card)


class Checkpoint:
    """A training state that survives a kill: written now and then, read when the same command runs again.

    Everything given by name has `state_dict` and `load_state_dict`. Each save adds a line to `log.jsonl`.
    """

    def __init__(self, path: Path, **parts):
        self.path, self.parts, self.step = path, parts, 0
        if path.exists():
            state = torch.load(path, map_location="cpu", weights_only=True)
            for name, part in parts.items():
                part.load_state_dict(state[name])
            self.step = state["step"]

    def tick(self, step: int, every: int, **numbers) -> None:
        """Call after each step (counted from 1)."""
        if step % every:
            return
        with atomic(self.path) as temporary:
            torch.save(
                {name: part.state_dict() for name, part in self.parts.items()} | {"step": step}, temporary
            )
        line = {"step": step} | {
            name: round(float(torch.as_tensor(value).detach()), 6) for name, value in numbers.items()
        }
        with open(self.path.with_suffix(".jsonl"), "a") as log:
            log.write(json.dumps(line) + "\n")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
