"""Reads the tensors of checkpoint files, whatever their layout: what a file is, is told by its keys.

    CompVis file, whole or UNet alone    pickle (.ckpt, .pt, .pth), bare or under `state_dict`, or safetensors
    diffusers UNet alone                 the same kinds of file
    diffusers folder                     one file a network

A UNet alone, or its cross-attention alone, is completed from its base model's folder. Nothing that a pickle
holds is ever executed.
"""

import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from diffusion_model_finetuning.core import formats
from diffusion_model_finetuning.core.card import SD15
from evaluation.core.errors import UserError

PARTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
BINARIES = {"text_encoder": "pytorch_model.bin"}  # what PARTS were before safetensors
FOREIGN = {  # beginnings of keys of files that look like ours
    "cond_stage_model.model.": "a Stable Diffusion 2 file",
    "conditioner.": "a Stable Diffusion XL file",
    "lora_unet_": "a file of adapters (LoRA, SPM), not a model",
    "control_model.": "a ControlNet",
}


class Ignored:
    """Stands in for any class or function a pickle names: takes all arguments, does nothing."""

    def __new__(cls, *_, **__):
        return super().__new__(cls)

    def __setstate__(self, state):
        pass


def read_tensors(path: Path, ignore_objects: bool = False) -> formats.Tensors:
    """The tensors of a .safetensors file, or of a pickle's `state_dict` or the pickle itself.

    Pickles are read with weights_only=True. One that holds other objects, such as a trainer's callbacks, is
    refused, or with `ignore_objects` read with `Ignored` in their places.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        zipped = zipfile.is_zipfile(path)  # not so before torch 1.6
        objects = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipped else []
        if objects and not ignore_objects:
            raise UserError(
                f"{path}: holds other objects than tensors ({min(objects)}); convert it once, without them: "
                f"python -m diffusion_model_finetuning.convert {path} FOLDER --ignore-objects"
            )
        with torch.serialization.safe_globals([(Ignored, name) for name in objects]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    # torch's own message recommends to run the pickle; a text file ends in any of the others
    except (pickle.UnpicklingError, LookupError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: cannot be loaded (a pickle that cannot be read safely)") from error
    except (SafetensorError, RuntimeError, ValueError, EOFError) as error:
        reason = (str(error) or "empty").splitlines()[0]
        raise UserError(f"{path}: cannot be loaded ({reason})") from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    pairs = content.items() if isinstance(content, dict) else []
    return {key: value for key, value in pairs if isinstance(key, str) and torch.is_tensor(value)}


def read_part(folder: Path, part: str) -> formats.Tensors:
    """One network's tensors from a diffusers folder, as stored, under today's names."""
    file = folder / part / PARTS[part]
    if not file.exists():
        file = folder / part / BINARIES.get(part, "diffusion_pytorch_model.bin")
    if not file.exists():
        raise UserError(f"{folder}: no weights {part}/{PARTS[part]}, so not a whole diffusers folder")
    tensors = read_tensors(file)
    return {"vae": formats.modern_vae, "text_encoder": formats.plain_text}.get(part, dict)(tensors)


def read_file(path: Path, folder: Path, complete, weights: str, ignore_objects: bool) -> dict:
    """All three networks' tensors by diffusers names. `complete`: all keys of the UNet of `folder`."""
    state = read_tensors(path, ignore_objects)
    for beginning, what in FOREIGN.items():
        if any(key.startswith(beginning) for key in state):
            raise UserError(f"{path}: {what}; only Stable Diffusion 1 is supported")
    if any(key.startswith(("input_blocks.", "middle_block.", "output_blocks.")) for key in state):
        state = {formats.UNET + key: tensor for key, tensor in state.items()}
    try:
        if any(key.startswith(("down_blocks.", "mid_block.", "up_blocks.")) for key in state):
            parts = {"unet": state}
        else:
            parts = formats.from_compvis(state, complete)
    except KeyError as error:
        raise UserError(
            f"{path}: has {error.args[0]}, unknown to a model like {folder}; name a folder with --config"
        ) from error
    if "unet" not in parts:
        keys = ", ".join(sorted(state)[:3]) or "none"
        raise UserError(f"{path}: no Stable Diffusion UNet in it; keys of its tensors: {keys}")
    if weights == "ema":
        averages = parts.get("ema", {})
        if lacking := parts["unet"].keys() - averages.keys():
            raise UserError(f"{path}: --weights ema: {len(lacking)} of the UNet's tensors have no average")
        parts["unet"] = {key: averages[key] for key in parts["unet"]}
    partial = all(".attn2." in key for key in parts["unet"])
    lacking = [part for part in PARTS if part not in parts or (part == "unet" and partial)]
    if lacking and folder == SD15:
        raise UserError(
            f"{path}: no whole {' and '.join(lacking)} in it; name its base model's folder with --config"
        )
    return {
        part: (read_part(folder, part) if part in lacking else {}) | parts.get(part, {}) for part in PARTS
    }
