"""Which latents of the SAE a target has more of than all else, step by step

z [n] averaged over an image's patches, then over the images of the target (a_c), of all others (a_o), and
over concepts (a, every one alike):

    score = a_c / sum a_c - a_o / sum a_o        scale_i = gamma a_c,i        average_i = a_i

The latents with the highest scores are taken, at every step others.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import torch

from evaluation.core.errors import UserError
from machine_unlearning.core.generated import per_batch
from machine_unlearning.saeuron.activations import by_blocks, made_by, walk
from machine_unlearning.saeuron.plan import Plan
from machine_unlearning.saeuron.sae import PATCHES, SAE


def image_latents(sae: SAE, x):
    """[B,n]: z averaged over the P patches of images x [B,P,m]."""
    images = max(1, PATCHES // x.shape[1])  # encoded at once
    return torch.cat(
        [sae.encode(part.flatten(0, 1)).unflatten(0, part.shape[:2]).mean(1) for part in x.split(images)]
    )


def looked_up(sd, sae: SAE, sha256: str, prompts: list[str], s) -> list[Path]:
    """Files of z averaged over patches, float32 [B,T,n], of an image for each prompt at the sampler's steps
    T = `lookup_walk`; made once for an SAE, of whose file `sha256` is."""

    def make(rows):
        seeds = [(s.image_seed, "look-up", i) for i in rows]
        maps = walk(sd, [prompts[i] for i in rows], seeds, s.block, s.lookup_walk, s.guidance)
        return torch.stack([image_latents(sae, x).cpu() for x in maps], 1).numpy()

    image_bytes = 4 * s.lookup_walk * len(sae.W_dec)
    about = made_by(sd, prompts, s, s.lookup_walk) | {"sae": sha256}
    return by_blocks("latents", about, len(prompts), per_batch(sd.size), image_bytes, make)


def shares(concepts: list, target) -> torch.Tensor:
    """[3,N]: how much each of N images, of these concepts, counts in the mean of the target's images, in that
    of all other images, and in the mean over all concepts."""
    own = torch.tensor([concept == target for concept in concepts], dtype=torch.double)
    others = 1 - own
    if not (own.any() and others.any()):
        raise UserError(f"--target {target}: needs images of it, and of others to compare them with")
    count = Counter(concepts)
    each = torch.tensor([1 / count[concept] for concept in concepts], dtype=torch.double)
    return torch.stack([own / own.sum(), others / others.sum(), each / len(count)])


def means(files: list[Path], shares: torch.Tensor) -> torch.Tensor:
    """[3,T,n] in float32, of the latents [B,T,n] that lie in files, one file after the other."""
    total, row = 0.0, 0
    for file in files:
        latents = torch.from_numpy(np.load(file))
        total = total + torch.einsum("cb,btn->ctn", shares[:, row : row + len(latents)].to(latents), latents)
        row += len(latents)
    return total


def scores(target, others):
    """[..,n]: share of the target's activation that a latent has, less that of all others'."""
    target, others = (mean / (mean.sum(-1, keepdim=True) + 1e-8) for mean in (target, others))
    return target - others


def selected(scores, count: int):
    """[T,count]: the latents with the highest scores [T,n], ascending."""
    return scores.topk(count, dim=1).indices.sort(dim=1).values


def planned(means, count: int, gamma: float):
    """-> features, scale and average [T,count] of a target with these means [3,T,n]."""
    target, others, average = means
    features = selected(scores(target, others), count)
    return features, gamma * target.gather(1, features), average.gather(1, features)


def planned_for(target: str, means, count: int, gamma: float, grid: list[int], **where) -> Plan:
    """What is done at each of the sampler's timesteps, the ascending `grid`; `where`: block and SAE."""
    if count > means.shape[-1]:
        raise UserError(f"features={count}: expected no more than the SAE's {means.shape[-1]} latents")
    return Plan(target, *planned(means, count, gamma), torch.tensor(grid[::-1]), **where)
