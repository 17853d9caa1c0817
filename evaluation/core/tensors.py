"""Files of tensors: read safely whatever they are called, written whole, and never with NaN or infinity

safetensors                            also under another suffix
pickle (.ckpt, .pt, .pth, .bin)        of torch, old or zipped; nothing that it holds is ever executed
"""

import contextlib
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file

from evaluation.core.errors import UserError, brief
from evaluation.core.files import atomic

Tensors = dict[str, torch.Tensor]
NOT_WEIGHTS = {  # how files begin that lie in a checkpoint's place
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; run git lfs pull, or download it",
    b"<": "a web page, not a file of weights; download the file itself",
}
# torch's own message recommends to run the pickle; a text file ends in any of the others
UNPICKLABLE = (pickle.UnpicklingError, LookupError, AttributeError, TypeError)


class Ignored:
    """Stands in for any class or function a pickle names: takes all arguments, does nothing."""

    def __new__(cls, *_, **__):
        return super().__new__(cls)

    def __setstate__(self, state):
        pass


def read_content(path: str | Path, ignore_objects: bool = False):
    """What a file of tensors holds, on the CPU: a dict of safetensors, or what was pickled.

    Pickles are read with weights_only=True. One that holds other objects, such as a trainer's callbacks, is
    refused, or with `ignore_objects` read with `Ignored` in their places. Raises UserError.
    """
    path = Path(path)
    if not path.is_file():
        kind = "a folder; a file was expected" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {kind}")
    with open(path, "rb") as file:
        head = file.read(100)
    for beginning, what in NOT_WEIGHTS.items():
        if head.lstrip().startswith(beginning):
            raise UserError(f"{path}: {what}")
    try:
        if is_safetensors(path):
            return load_file(path)
        zipped = zipfile.is_zipfile(path)  # not so before torch 1.6
        objects = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipped else []
        if objects and not ignore_objects:
            raise UserError(
                f"{path}: holds other objects than tensors ({min(objects)}); convert it once, without them: "
                f"python -m diffusion_model_finetuning.convert {path} FOLDER --ignore-objects"
            )
        with torch.serialization.safe_globals([(Ignored, name) for name in objects]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except UNPICKLABLE as error:
        raise UserError(f"{path}: cannot be loaded (a pickle that cannot be read safely)") from error
    except (safetensors.SafetensorError, RuntimeError, ValueError, EOFError) as error:
        raise UserError(
            f"{path}: damaged, or not a file of weights ({brief(error)}); get it again"
        ) from error


def read_tensors(path: str | Path, ignore_objects: bool = False) -> Tensors:
    """The finite tensors of a file, flat, under plain names; raises UserError."""
    tensors = flat(read_content(path, ignore_objects))
    check_finite(tensors, path)
    return tensors


def flat(content, inside=("state_dict", "model_state_dict")) -> Tensors:
    """The tensors of a checkpoint: those under one of the keys `inside` if there is one; nested dicts joined
    by dots; without the prefix of parallel training."""
    if not isinstance(content, Mapping):
        return {}
    content = next((content[key] for key in inside if isinstance(content.get(key), Mapping)), content)
    tensors = dict(_joined(content))
    return {key.removeprefix("module."): tensor for key, tensor in tensors.items()}


def _joined(content: Mapping):
    for key, value in content.items():
        if torch.is_tensor(value):
            yield str(key), value
        elif isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", tensor) for inner, tensor in _joined(value))


def is_safetensors(path: str | Path) -> bool:
    """By what the file is, whatever its name; a damaged one by its name."""
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        head = file.read(9)
    begins = len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < size
    return begins or Path(path).suffix == ".safetensors"


def read_metadata(path: str | Path, key: str) -> dict:
    """The JSON object under `key` of a safetensors file's metadata, {} if it has none; raises UserError."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            content = json.loads((file.metadata() or {}).get(key, "{}"))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({str(error)[:100]}); get it again"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: damaged (its metadata {key!r} is no JSON object); get it again")
    return content


def check_finite(tensors: Mapping[str, torch.Tensor], where) -> None:
    """UserError, which `where` begins, for the first tensor with NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            odd = "NaN" if tensor.isnan().any() else "infinity"
            raise UserError(f"{where}: its tensor {name} holds {odd}, so it is no result to go on with")


def save_tensors(path: str | Path, tensors: Mapping[str, torch.Tensor], metadata=None, wrapped=False) -> None:
    """Writes a file, a pickle unless `path` ends in .safetensors.

    `wrapped`: as CompVis, under `state_dict` beside a `global_step`, without which its trainers stop.
    Raises UserError rather than write what is not finite.
    """
    path = Path(path)
    check_finite(tensors, path)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        if path.suffix == ".safetensors":
            save_file(tensors, temporary, metadata)
        else:
            with open(temporary, "wb") as file:  # an open file: its name would become part of the bytes
                torch.save({"state_dict": tensors, "global_step": 0} if wrapped else tensors, file)


def cached(path: str | Path, make) -> Tensors:
    """The tensors that a safetensors file keeps; a missing or damaged one is made again by `make()`."""
    if Path(path).is_file():
        with contextlib.suppress(UserError):
            return read_tensors(path)
    # laid out as they are when read: arithmetic may round otherwise
    tensors = {name: tensor.contiguous() for name, tensor in make().items()}
    save_tensors(path, tensors)
    return tensors
