"""What a later request needs of a FIA run: which entries each target flags, and the weights they had.

`masks.safetensors` holds for each target and layer the mask's bits, `TARGET/LAYER`, uint8, and for each layer
the unpruned weights of all entries that some target flags, `weights/LAYER`, in the order of the entries. So
masks can be fused anew, and a weight that is spared then comes back.
"""

from pathlib import Path

import numpy as np
import torch

from evaluation.core.errors import refused
from evaluation.core.tensors import read_tensors, save_tensors

MASKS = "masks.safetensors"
Masks = dict[str, dict[str, torch.Tensor]]  # target -> layer -> bool [O,I]


def union(masks: Masks, layer: str) -> torch.Tensor:
    """The entries of a layer that some target flags."""
    return torch.stack([of_target[layer] for of_target in masks.values()]).any(0)


def save(run: Path, masks: Masks, layers: dict[str, torch.nn.Linear]) -> None:
    """`layers` have their weights still."""
    tensors = {f"weights/{name}": layer.weight[union(masks, name)] for name, layer in layers.items()}
    for target, of_target in masks.items():
        for name, mask in of_target.items():
            tensors[f"{target}/{name}"] = torch.from_numpy(np.packbits(mask.cpu().numpy()))
    save_tensors(run / MASKS, tensors)


@torch.no_grad()
def restore(start: str | Path, layers: dict[str, torch.nn.Linear]) -> Masks:
    """The masks of an earlier run; the layers get back the weights that it pruned. UserError for a file that
    does not fit them."""
    path, masks = Path(start) / MASKS, {}
    tensors = read_tensors(path)
    with refused(f"{path}: damaged, or of another model; run FIA again", KeyError, ValueError, RuntimeError):
        for key in sorted(key for key in tensors if not key.startswith("weights/")):
            target, _, name = key.partition("/")
            weight = layers[name].weight
            bits = np.unpackbits(tensors[key].numpy(), count=weight.numel()).astype(bool)
            masks.setdefault(target, {})[name] = torch.from_numpy(bits).view_as(weight).to(weight.device)
        for name, layer in layers.items():
            layer.weight[union(masks, name)] = tensors[f"weights/{name}"].to(layer.weight)
    return masks
