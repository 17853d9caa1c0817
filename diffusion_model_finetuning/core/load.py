"""Builds the parts of Stable Diffusion 1 from a diffusers folder or a CompVis file; puts in a run's weights.

A file has no tokenizer, head count or latent scale: another folder, `config`, tells those, by default SD
1.5's (`core/sd15`, and CLIP's vocabulary).
"""

import contextlib
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffusion_model_finetuning.core.card import SD15, check_averages, config_folder
from diffusion_model_finetuning.core.clip_vocabulary import clip_tokenizer
from diffusion_model_finetuning.core.formats import Tensors
from diffusion_model_finetuning.core.read import PARTS, read_file, read_part
from evaluation.core.errors import UserError, refused
from evaluation.core.record import WEIGHTS
from evaluation.core.tensors import check_finite, flat, read_content


class Float32Conv(torch.nn.Conv2d):
    """The UNet's last layer, in float32 under autocast too: guidance multiplies differences of what it gives,
    and their rounding with them (bfloat16's by 8: RMS 0.020 at guidance 9)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self._conv_forward(x.float(), self.weight.float(), self.bias.float())


def empty(folder: Path, part: str, **changes) -> torch.nn.Module:
    """The network that `folder` describes, without memory for its weights."""
    with init_empty_weights():
        if part == "text_encoder":
            return CLIPTextModel(CLIPTextConfig.from_pretrained(folder / part, local_files_only=True))
        network = UNet2DConditionModel if part == "unet" else AutoencoderKL
        made = network.from_config(network.load_config(folder / part, local_files_only=True), **changes)
        if part == "unet":
            last = made.conv_out
            made.conv_out = Float32Conv(
                last.in_channels, last.out_channels, last.kernel_size, padding=last.padding
            )
        return made


def put_in(module: torch.nn.Module, tensors: Tensors, path, device, dtype) -> torch.nn.Module:
    """Gives an empty network copies of its tensors, in `dtype`, or as they are if None."""
    expected = module.state_dict()
    wrong = list(expected.keys() ^ tensors.keys())
    wrong += [key for key in expected.keys() & tensors.keys() if expected[key].shape != tensors[key].shape]
    if wrong:
        raise UserError(
            f"{path}: {len(wrong)} tensors of its {type(module).__name__} are missing, unknown or of another "
            f"size, first {min(wrong)}; does --config name its folder?"
        )
    copies = {key: tensor.to(device, dtype or tensor.dtype, copy=True) for key, tensor in tensors.items()}
    module.load_state_dict(copies, assign=True)
    return module.to(device).eval().requires_grad_(False)


def load_parts(path, device, dtype, config=None, weights="raw", ignore_objects=False) -> list:
    """-> UNet, autoencoder, text encoder, tokenizer, scheduler; see `core.sd.load_sd`."""
    path = Path(path)
    folder = config_folder(path, config)
    check_averages(path, weights)
    wanted = [*PARTS, "scheduler"] + ["tokenizer"] * (folder != SD15)
    for part in wanted:
        if not (folder / part).is_dir():
            raise UserError(f"{folder}: no folder {part}/, so not a diffusers Stable Diffusion folder")
    tokenizer = clip_tokenizer() if folder == SD15 else None
    with refused(f"{folder}: cannot be loaded", Exception):  # the libraries fail in many ways
        modules = {part: empty(folder, part) for part in PARTS}
        scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler", local_files_only=True)
        if not tokenizer:
            tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    longest = modules["text_encoder"].config.max_position_embeddings
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest)  # it may not say any
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise UserError(f"{folder}/tokenizer: has no words; add tokenizer.json, or vocab.json and merges.txt")
    if path.is_dir():
        tensors = {part: read_part(path, part) for part in PARTS}
    else:
        complete = modules["unet"].state_dict()
        tensors = read_file(path, folder, complete, weights, ignore_objects)
    if scheduler.config.prediction_type != "epsilon":
        raise UserError(f"{folder}: predicts {scheduler.config.prediction_type}; only epsilon is supported")
    first, latent = tensors["unet"].get("conv_in.weight"), modules["unet"].config.out_channels
    seen = first.shape[1] if first is not None and first.ndim == 4 else None
    if seen == 2 * latent + 1:
        raise UserError(f"{path}: an inpainting model ({seen} input channels), which is not supported")
    if seen == 2 * latent:  # InstructPix2Pix, whose other sizes are those of the text-to-image model
        modules["unet"] = empty(folder, "unet", in_channels=seen)
    networks = [put_in(modules[part], tensors[part], path, device, dtype) for part in PARTS]
    return [*networks, tokenizer, scheduler]


def run_weights(sd, folder: str | Path, model: str) -> dict[str, torch.Tensor]:
    """A run's stored weights by name; a UserError unless they belong to the base model of fingerprint
    `model`, whose networks `sd` has."""
    path = Path(folder) / WEIGHTS
    if not path.exists():
        raise UserError(f"--run {folder}: no {WEIGHTS}; run the method's train.py with --out {folder} first")
    foreign = f"{path}: not weights stored by a run; remove the folder and run again"
    with refused(foreign, UserError):
        tensors = flat(read_content(path))
    with safe_open(path, "pt") as file:
        base = (file.metadata() or {}).get("model")
    if base is None:
        raise UserError(foreign)
    check_finite(tensors, path)
    if base != model:
        raise UserError(f"--run {folder}: made from another base model ({base}) than {sd.path} ({model})")
    weights = sd.weights()
    unfit = [n for n, tensor in tensors.items() if n not in weights or tensor.shape != weights[n].shape]
    if unfit:
        what = "unknown to the model, or of another size than there"
        raise UserError(f"--run {folder}: {len(unfit)} weights {what}, first {min(unfit)}")
    return tensors


def load_run(sd, folder: str | Path) -> None:
    """Puts a run's stored weights into its base model `sd`; a UserError if they belong to another."""
    weights = sd.weights()
    for name, tensor in run_weights(sd, folder, sd.fingerprint()).items():
        weights[name].copy_(tensor)


@contextlib.contextmanager
def swapped(sd, folder: str | Path, model: str):
    """Within, `sd` has a run's weights in place of the base model's, whose fingerprint is `model`.

    Yields the names of those that it changed.
    """
    tensors, weights = run_weights(sd, folder, model), sd.weights()
    before = {name: weights[name].clone() for name in tensors}
    try:
        for name, tensor in tensors.items():
            weights[name].copy_(tensor)
        yield list(tensors)
    finally:
        for name, tensor in before.items():
            weights[name].copy_(tensor)
