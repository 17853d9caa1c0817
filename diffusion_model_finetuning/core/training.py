"""What the training scripts share: losses, learning-rate curve, images, files written."""

import math
import os
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from tqdm import tqdm

from diffusion_model_finetuning.core.card import CARD, MODEL
from diffusion_model_finetuning.core.settings import numbers_to_train_on
from evaluation import canvas
from evaluation.core.files import read_json, temporary, write_json
from evaluation.core.tensors import check_finite
from evaluation.data import parquet
from evaluation.data.folder import names_in
from evaluation.data.images import CanvasImages
from evaluation.mini import dataset as mini


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
    drawings = mini.themes_beside(names_in(data)), mini.OBJECTS
    themes, objects = drawings if drawn else (canvas.THEMES, canvas.OBJECTS)
    return [(theme, obj) for theme in themes for obj in objects]


def images(data: str, per_object: int, size: int, without: str | None = None) -> CanvasImages:
    """Training images of all cells but those of the target `without`: numbers 1 to `per_object` without the
    test numbers."""
    left_out = canvas.parse_targets(without, "without") if without else []
    cells = [cell for cell in cells_of(data) if not any(target.covers(*cell) for target in left_out)]
    return CanvasImages(data, cells, numbers_to_train_on(per_object), size)


def load_pixels(data: CanvasImages) -> torch.Tensor:
    """All images in memory, uint8 [N,3,H,W]."""
    pixels = torch.empty(len(data), 3, data.size, data.size, dtype=torch.uint8)
    for i, row in enumerate(tqdm(data.rows, "read images", disable=None)):
        pixels[i] = torch.from_numpy(np.asarray(data.picture(row)).copy()).permute(2, 0, 1)
    return pixels


def save_pipeline(sd, out: Path, half: bool, card: dict, pipeline=StableDiffusionPipeline) -> None:
    """Writes a folder that diffusers' `pipeline.from_pretrained` loads, weights in safetensors.

    `model_index.json` comes last: with it, the model is whole. Raises UserError for weights not finite.
    """
    modules = {"unet": sd.unet, "vae": sd.vae, "text_encoder": sd.text_encoder}
    for name, module in modules.items():
        module = modules[name] = module.half() if half else module
        check_finite(module.state_dict(), out / name)
    with temporary(out / "model") as draft:
        pipeline(
            **modules,
            tokenizer=sd.tokenizer,
            scheduler=sd.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(draft)
        # transformers loads in the dtype named here, diffusers in float32
        config = draft / "text_encoder" / "config.json"
        write_json(config, read_json(config) | {"dtype": "float32"})
        if card:
            write_json(draft / CARD, card)
        put_in_place(draft, out, MODEL)


def put_in_place(draft: Path, out: Path, mark: str) -> None:
    """Moves the files of the folder `draft` into `out`, over those there; the one named `mark` is the last.

    An autoencoder is the last but that: a training from nothing begins with it.
    """
    (out / mark).unlink(missing_ok=True)
    paths = (path.relative_to(draft) for path in draft.rglob("*") if path.is_file())
    for path in sorted(paths, key=lambda path: (str(path) == mark, path.parts[0] == "vae", path)):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(draft / path, out / path)
