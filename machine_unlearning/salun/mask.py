"""SalUn's saliency mask: which weights the forgetting loss pulls at most.

    p = (1 + w) eps(x_t,t,c) - w eps(x_t,t,null)        S = | grad sum over batches of -mean (noise - p)^2 |

The mask is 1 for the int(share N) largest of all N entries of S, whatever tensor they are in.
"""

import torch
import torch.nn.functional as F

from diffusion_model_finetuning.core.sd import guided_eps
from machine_unlearning.core import params
from machine_unlearning.core.forget import Batch


def saliency_loss(unet, batch: Batch, null, guidance: float) -> torch.Tensor:
    """-mean (noise - p)^2; `null` is the empty prompt's embedding [1,L,D], `guidance` is w."""
    return -F.mse_loss(guided_eps(unet, batch.x, batch.t, batch.text, null, 1 + guidance), batch.noise)


def largest(scores: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """True for the int(share N) largest of all N entries, exactly so many; of equal ones, for the first."""
    total = sum(score.numel() for score in scores.values())
    count = int(share * total)
    if not count:
        return {name: torch.zeros_like(score, dtype=torch.bool) for name, score in scores.items()}
    threshold = params.kth_smallest(scores.values(), total - count + 1)
    mask = {name: score > threshold for name, score in scores.items()}
    left = count - sum(int(chosen.sum()) for chosen in mask.values())
    for name, score in scores.items():
        ties = (score == threshold).flatten().nonzero().squeeze(1)[:left]
        mask[name].view(-1)[ties] = True
        left -= len(ties)
    return mask


def saliency_mask(unet, batches, null, guidance: float, share: float, scope: str) -> dict[str, torch.Tensor]:
    """Name -> bool tensor for the weights of a scope, none of which moves.

    The gradients of the batches add up, with their signs, where torch keeps them.
    """
    weights = params.trainable(unet, scope)
    for batch in batches:
        saliency_loss(unet, batch, null, guidance).backward()
    mask = largest({name: weight.grad.abs_() for name, weight in weights.items()}, share)
    unet.zero_grad(set_to_none=True)
    return mask
