"""A run's plan: which latents are changed, and how, at each of the sampler's timesteps; a few kilobytes

    plan.safetensors        `0.features` ... `0.timesteps` of the first target, and so on; metadata `saeuron`

The SAE is not in it, but where in the cache it lies, and its hash.
"""

import json
from pathlib import Path
from typing import NamedTuple

import torch

from evaluation.core.errors import UserError
from evaluation.core.tensors import read_metadata, read_tensors, save_tensors

FILE = "plan.safetensors"
TENSORS = ("features", "scale", "average", "timesteps")


class Plan(NamedTuple):
    """Of one target: at timestep t a latent i above `average` is multiplied by `scale`."""

    target: str
    features: torch.Tensor  # int64 [T,F]
    scale: torch.Tensor  # [T,F]
    average: torch.Tensor  # [T,F]
    timesteps: torch.Tensor  # int64 [T], descending
    block: str  # of the UNet
    sae: str  # folder of the SAE, from the cache's
    sha256: str  # of the SAE's file, its first digits


class Step(NamedTuple):
    """What several targets change at one timestep; no latent twice."""

    features: torch.Tensor  # int64 [F]
    scale: torch.Tensor  # [F]
    average: torch.Tensor  # [F]


def save(folder: str | Path, plans: list[Plan]) -> None:
    tensors = {f"{i}.{name}": getattr(plan, name) for i, plan in enumerate(plans) for name in TENSORS}
    about = [{name: plan._asdict()[name] for name in ("target", "block", "sae", "sha256")} for plan in plans]
    save_tensors(Path(folder) / FILE, tensors, {"saeuron": json.dumps({"plans": about})})


def load(folder: str | Path) -> list[Plan]:
    """The plans of a run, target after target; a UserError if there is none, or it is damaged."""
    path = Path(folder) / FILE
    if not path.exists():
        raise UserError(f"{path}: no such file; remove the folder and run SAeUron's train.py for it again")
    tensors, about = read_tensors(path), read_metadata(path, "saeuron").get("plans")
    try:
        of_each = [{name: tensors[f"{i}.{name}"] for name in TENSORS} for i in range(len(about))]
        plans = [Plan(**parts, **words) for parts, words in zip(of_each, about)]
        for features, *others in (plan[1:5] for plan in plans):
            shapes = [features.shape, features.shape, features.shape[:1]]
            if features.ndim != 2 or features.is_floating_point() or [o.shape for o in others] != shapes:
                raise ValueError
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{path}: not a plan of SAeUron; remove the folder and run again") from error
    return plans


def joined(plans: list[Plan]) -> list[Step]:
    """What plans of the same timesteps and SAE do together, at each of them; of a latent that several change,
    the last one's scale and average hold."""
    steps = []
    for t in range(len(plans[0].timesteps)):
        features, scale, average = (torch.cat([plan[part][t] for plan in plans]) for part in (1, 2, 3))
        last = sorted({feature: i for i, feature in enumerate(features.tolist())}.values())
        steps.append(Step(features[last], scale[last], average[last]))
    return steps
