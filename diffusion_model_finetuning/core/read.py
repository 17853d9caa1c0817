"""Reads the tensors of checkpoints as people have them: what a file is, is told by its content and its keys.

    CompVis file, whole or UNet alone    bare or under `state_dict`; raw weights, averages, or averages alone
    diffusers UNet, whole or any part    bare, or nested: {"unet": {...}}, {module: state dict}
    diffusers folder                     one file a network, of any variant, or shards with an index

A part of a UNet is completed from its base model's folder. Nothing that a pickle holds is ever executed.
"""

import logging
import re
from pathlib import Path

from diffusion_model_finetuning.core import formats
from diffusion_model_finetuning.core.card import SD15
from evaluation.core.errors import UserError
from evaluation.core.files import read_json
from evaluation.core.tensors import check_finite, flat, read_content, read_tensors

LOG = logging.getLogger(__name__)
PARTS = {  # how the names of their weight files begin, and of those before safetensors
    "unet": ("diffusion_pytorch_model", "diffusion_pytorch_model"),
    "vae": ("diffusion_pytorch_model", "diffusion_pytorch_model"),
    "text_encoder": ("model", "pytorch_model"),
}
INDEX = re.compile(r".*\.index(\.\w+)?\.json")
WRAPPED = re.compile(
    r"^((module|_orig_mod|unet)\.|model\.(?!diffusion_model\.))+"
)  # what keys may begin with
FOREIGN = {  # beginnings of keys of files that look like ours
    "cond_stage_model.model.": "a Stable Diffusion 2 file",
    "conditioner.": "a Stable Diffusion XL file",
    "lora_unet_": "a file of adapters (LoRA, SPM), not a model",
    "control_model.": "a ControlNet",
}


def weight_files(folder: Path, stem: str, old: str) -> list[Path]:
    """The weight files that `save_pretrained` writes into a network's folder, single ones and indices of
    shards, the best first: without a variant, then safetensors; non_ema is the last of variants."""
    form = re.compile(
        rf"{stem}(\.(?P<v>\w+))?\.safetensors|{old}(\.(?P<w>\w+))?\.bin"
        rf"|({stem}\.safetensors|{old}\.bin)\.index(\.(?P<x>\w+))?\.json"
    )
    found = [(form.fullmatch(path.name), path) for path in sorted(folder.iterdir())]
    ranked = []
    for match, path in found:
        if match:
            variant = match["v"] or match["w"] or match["x"] or ""
            ranked.append((variant == "non_ema", variant, ".bin" in path.name, path.suffix == ".json", path))
    return [path for *_, path in sorted(ranked)]


def read_part(folder: Path, part: str) -> formats.Tensors:
    """One network's tensors from a diffusers folder, as stored, under today's names."""
    files = weight_files(folder / part, *PARTS[part])
    if not files:
        there = ", ".join(sorted(path.name for path in (folder / part).iterdir() if path.suffix != ".json"))
        raise UserError(
            f"{folder}: no weights {part}/{PARTS[part][0]}.safetensors, so not a whole diffusers folder; "
            f"in {part}/ lies {there or 'no file of weights'}"
        )
    tensors = read_shards(files[0]) if INDEX.fullmatch(files[0].name) else read_tensors(files[0])
    return {"vae": formats.modern_vae, "text_encoder": formats.plain_text}.get(part, dict)(tensors)


def read_shards(index: Path) -> formats.Tensors:
    """The tensors of the files that an index names, all of them beside it."""
    tensors, places = {}, read_json(index, weight_map=dict)["weight_map"]
    for name in sorted(set(map(str, places.values()))):
        if Path(name).name != name:
            raise UserError(f"{index}: damaged (it names {name!r:.60}, which is not beside it); get it again")
        tensors |= read_tensors(index.parent / name)
    if lacking := sorted(places.keys() - tensors.keys()):
        raise UserError(f"{index}: {len(lacking)} tensors are in none of its files, first {lacking[0]}")
    return tensors


def read_file(path: Path, folder: Path, complete, weights: str, ignore_objects: bool) -> dict:
    """All three networks' tensors by diffusers names. `complete`: all keys of the UNet of `folder`."""
    content = flat(read_content(path, ignore_objects))
    state = {WRAPPED.sub("", key): tensor for key, tensor in content.items()}
    for beginning, what in FOREIGN.items():
        if any(key.startswith(beginning) for key in state):
            raise UserError(f"{path}: {what}; only Stable Diffusion 1 is supported")
    begins = {key.partition(".")[0] for key in state}
    if begins & {"time_embed", "input_blocks", "middle_block", "output_blocks", "out"}:
        state = {formats.UNET + key: tensor for key, tensor in state.items()}
    try:
        if begins & {key.partition(".")[0] for key in complete}:
            parts = {"unet": state}
        else:
            parts = formats.from_compvis(state, complete)
    except KeyError as error:
        raise UserError(
            f"{path}: has {error.args[0]}, unknown to a model like {folder}; name a folder with --config"
        ) from error
    parts["unet"] = chosen(path, parts, complete, weights)
    if not parts["unet"]:
        keys = ", ".join(sorted(state)[:3]) or "none"
        raise UserError(f"{path}: no Stable Diffusion UNet in it; keys of its tensors: {keys}")
    for part in PARTS:
        check_finite(parts.get(part, {}), path)
    rest = complete.keys() - parts["unet"].keys()
    lacking = [part for part in PARTS if part not in parts or (part == "unet" and rest)]
    if lacking and folder == SD15:
        raise UserError(
            f"{path}: no whole {' and '.join(lacking)} in it; name its base model's folder with --config"
        )
    if rest:
        LOG.warning(
            "%s: %d of the UNet's %d tensors are from this file, the others from %s",
            path, len(parts["unet"]), len(complete), folder,
        )  # fmt: skip
    return {
        part: (read_part(folder, part) if part in lacking else {}) | parts.get(part, {}) for part in PARTS
    }


def chosen(path: Path, parts: dict, complete, weights: str) -> formats.Tensors:
    """The UNet's raw or averaged weights; the averages if a file has no others."""
    raw, averages = parts.get("unet", {}), dict(parts.get("ema", {}))
    for number in ("decay", "num_updates"):
        averages.pop(number, None)
    if weights == "raw" and (raw or not averages):
        return raw
    if lacking := (raw or complete).keys() - averages.keys():
        flag = "--weights ema: " * (weights == "ema")
        raise UserError(f"{path}: {flag}{len(lacking)} of the UNet's tensors have no average")
    if not raw:
        LOG.warning("%s: has the averaged weights (model_ema.*) alone, so these are used", path)
    return {key: averages[key] for key in raw} if raw else averages
