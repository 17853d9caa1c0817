"""SAeUron's change of what a block gives, on plain patches: latents scaled, or (PER) patches replaced

scale:    z'_i = scale_i z_i where z_i > average_i        x' = x + D(z') - D(z)
replace:  x'_j = x_l for patches j with any z_i > average_i, l a random one without, of the same image
"""

import torch

from diffusion_model_finetuning.core.sd import noise_of
from machine_unlearning.saeuron.plan import Step
from machine_unlearning.saeuron.sae import PATCHES, SAE


def scaled(network: SAE, x, step: Step, residual: str):
    """x' [R,P,m] of images x [R,P,m], whose latents of `step` are multiplied where they are above average.

    residual `correct`: x + D(z') - D(z). `none`: D(z'). `published`: D(z') + D(z) - x, as the original, which
    adds twice the SAE's error to every patch.
    """

    def of_patches(x):
        z = network.encode(x)
        active = z[:, step.features]
        new = torch.where(active > step.average, active * step.scale, active)
        difference = (new - active) @ network.W_dec[step.features]
        if residual == "correct":
            return x + difference
        made = network.decode(z)
        return made + difference + (made - x if residual == "published" else 0)

    return by_parts(of_patches, x)


def flagged(network: SAE, x, step: Step):
    """[R,P]: whether any latent of `step` is above average in the patches of x [R,P,m]."""
    return by_parts(lambda x: (network.encode(x)[:, step.features] > step.average).any(1), x)


def by_parts(of_patches, x):
    """[R,P,..] of images x [R,P,m], from a function of patches [N,m], which makes n numbers of each."""
    parts = x.flatten(0, 1).split(PATCHES)
    return torch.cat([of_patches(part) for part in parts]).unflatten(0, x.shape[:2])


def replaced(x, flags, draws):
    """Images x [R,P,m], their flagged patches (flags [R,P]) replaced by unflagged ones of the image, if any.

    Patch j takes the unflagged one number floor(draws[j] count); draws [R,P] are uniform in [0,1).
    """
    unflagged_first = flags.long().argsort(dim=1, stable=True)
    count = (~flags).sum(1, keepdim=True)
    source = unflagged_first.gather(1, (draws * count).long())
    source = torch.where(flags & (count > 0), source, torch.arange(x.shape[1], device=x.device))
    return x.gather(1, source.unsqueeze(-1).expand_as(x))


def uniform(keys: list[tuple], count: int):
    """[R,count] in [0,1), each row a function of its key alone."""
    normal = torch.stack([noise_of(key, (count,)) for key in keys]).double()
    return torch.special.ndtr(normal).clamp(max=1 - 1e-12)
