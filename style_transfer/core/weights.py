"""The weights that the authors of a method released: read safely, checked, put into its network; and written.

A method says `FILES = {released file name: the part of its network that this file fills}`. The files may lie
anywhere and be called anything; `load` is told which is which by these names.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from evaluation.core.errors import UserError
from evaluation.core.files import digest, file_digest
from evaluation.core.tensors import check_finite, flat, read_content, save_tensors


@dataclass
class Weights:
    """The tensors of one file, with its name and its method's for the messages."""

    tensors: dict[str, torch.Tensor]
    file: str
    method: str

    def shape(self, key: str) -> torch.Size:
        """Of one tensor. Raises UserError if the file has none of that name, or it is a single number."""
        if key not in self.tensors or self.tensors[key].ndim == 0:
            raise UserError(f"{self.file}: no weights of {self.method}, which have a tensor '{key}'")
        return self.tensors[key].shape

    def width(self, layer: str) -> int:
        """Output channels of a layer."""
        return self.shape(f"{layer}.weight")[0]

    def into(self, module: nn.Module) -> None:
        """Fills `module`, whose keys and shapes must be exactly the file's; raises UserError."""
        wanted = module.state_dict()
        tensors = with_module(self.tensors, wanted)
        shared = sorted(wanted.keys() & tensors.keys())
        faults = {
            "missing": sorted(wanted.keys() - tensors.keys()),
            "unknown": sorted(tensors.keys() - wanted.keys()),
            "of another shape": [key for key in shared if tensors[key].shape != wanted[key].shape],
        }
        if any(faults.values()):
            text = ", ".join(f"{len(keys)} {what} ('{keys[0]}')" for what, keys in faults.items() if keys)
            raise UserError(f"{self.file}: does not fit {self.method}; of its tensors are {text}")
        module.load_state_dict(tensors)


def with_module(tensors: dict, wanted: dict) -> dict:
    """The tensors, under `module.` again if the network has a part of that name: `flat` takes it for parallel
    training's."""
    renamed = {f"module.{key}": tensor for key, tensor in tensors.items()}
    return renamed if renamed.keys() == wanted.keys() else tensors


def slot(name: str) -> str:
    """A file name without folders and training step, so that other steps than the released are found too."""
    return re.sub(r"_iter_\d+\.", "_iter.", re.sub(r"^(latest|\d+)_net_", "net_", Path(name).name))


def find(folder: str | Path, released: dict) -> dict[str, Path]:
    """Where each of the `released` files lies: in the folder or below, also of another training step; or
    beside the folder, where methods share an encoder. Raises UserError."""
    return {name: _find(Path(folder), name) for name in released}


def _find(folder: Path, name: str) -> Path:
    if (folder / name).exists():
        return folder / name
    exact = sorted(p for p in folder.rglob(name) if p.name == name)
    paths = exact or sorted(p for p in folder.rglob("*") if slot(p.name) == slot(name))
    if not paths and (folder.parent / name).exists():
        return folder.parent / name
    if not paths:
        raise UserError(f"--weights {folder}: {name} is missing; put the file its authors released there")
    if len(paths) > 1:
        raise UserError(f"--weights {folder}: which is {name}, {paths[0]} or {paths[1]}? leave one")
    return paths[0]


def fingerprint(path: Path) -> str:
    """16 digits that stand for the content of a file, or of all files below a folder."""
    if path.is_file():
        return file_digest(path)
    return digest({str(p.relative_to(path)): file_digest(p) for p in path.rglob("*") if p.is_file()})


def read(files: dict, released: dict, method: str) -> dict[str, Weights]:
    """The weights of every file in `released`, under these names.

    `files`: released name, of any training step -> path or state dict; those in no need are not read. Raises
    UserError if one is missing, or is not a checkpoint that loads without running code.
    """
    given = {slot(name): source for name, source in files.items()}
    weights = {}
    for name in released:
        if slot(name) not in given:
            raise UserError(f"{method} needs the file {name}, which is not among {sorted(files) or 'none'}")
        source, file = given[slot(name)], name
        try:
            if not isinstance(source, dict):
                source, file = read_content(source), str(source)
            tensors = flat(_only_state_dict(source))
            check_finite(tensors, file)
        except UserError as error:
            raise UserError(f"{error}; {method} expected its {name}") from error
        if not tensors:
            raise UserError(f"{file}: holds no tensors; {method} expected its {name}")
        weights[name] = Weights(tensors, file, method)
    return weights


def _only_state_dict(content):
    """The state dict in a checkpoint such as {"epoch": 3, "generator": {...}}, if it is the only one."""
    values = list(content.values()) if isinstance(content, dict) else []
    inside = [v for v in values if isinstance(v, dict) and v and all(map(torch.is_tensor, v.values()))]
    return inside[0] if len(inside) == 1 and not any(map(torch.is_tensor, values)) else content


def fill(network: nn.Module, weights: dict[str, Weights], released: dict[str, str]) -> nn.Module:
    """Puts every file into its part of `network`; -> the network in evaluation mode, without gradients."""
    for name, part in released.items():
        weights[name].into(network.get_submodule(part))
    return network.eval().requires_grad_(False)


def save_file(path: Path, part: nn.Module, half: bool) -> None:
    """The tensors of a network as PyTorch's file, in fp16 if `half`; same tensors, same bytes."""
    state = part.state_dict()
    if half:
        state = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    save_tensors(path, state)
