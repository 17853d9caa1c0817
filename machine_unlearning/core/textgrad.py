"""Tokens found by gradient: the formulas of UnlearnDiffAtk (Zhang et al., ECCV 2024), many prompts at once

Before (or behind) a prompt's tokens stand k more. Each is a distribution u over the V words of the table W
(a relaxed one-hot vector), and the model's own loss tells which words make it draw what it has forgotten:

    min_U  E_t,eps || eps - eps_theta(x_t, t, text(.. one-hot(U) W ..)) ||^2        u >= 0, sum u = 1

Words are drawn from u, seen by the model as rows of W, and the gradient by the one-hot vector, clipped to
[-1, 1], is taken for that by u (straight through); after a step of Adam, u is projected to the simplex.
Prompts have their own U, and nothing here lets one see another.
"""

import torch

from diffusion_model_finetuning.core.intervention import Intervention
from diffusion_model_finetuning.core.sd import StableDiffusion
from machine_unlearning.core.acting import acted_eps


def simplex(u: torch.Tensor) -> torch.Tensor:
    """The nearest point of every row [..,V] with u >= 0 and sum 1 (Duchi et al., ICML 2008, figure 1).

    rho is the largest j with u_j + (1 - sum_i<=j u_i) / j > 0, u in descending order; the row is shifted by
    that term of rho and cut off at 0. The original finds the shift by bisection, within 1e-5.
    """
    falling, count = u.sort(-1, descending=True).values, torch.arange(1, u.shape[-1] + 1, device=u.device)
    shifts = (1 - falling.cumsum(-1)) / count
    rho = (falling + shifts > 0).sum(-1, keepdim=True)
    return (u + shifts.gather(-1, rho - 1)).clamp(min=0)


def draw_words(u: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
    """A word of every distribution u [..,V], by the quantile that a standard normal number [..] stands at."""
    levels = u.double().cumsum(-1)
    share = torch.special.ndtr(normals.double()).clamp(max=1 - 1e-12).unsqueeze(-1)
    return torch.searchsorted(levels, share * levels[..., -1:], right=True).squeeze(-1)


def straight_through(gradient: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """What stands for the gradient by u [..,V], from that by the rows [..,E] of the table [V,E] it chose."""
    return (gradient @ table.T).clamp(-1, 1)


def descend(optimizer: torch.optim.Optimizer, u: torch.Tensor, gradient: torch.Tensor) -> None:
    """One step of `u`, which the optimizer has, and back to the simplex."""
    u.grad = gradient
    optimizer.step()
    u.copy_(simplex(u))


def timesteps(count: int, train_steps: int = 1000) -> list[int]:
    """The middles of `count` equal parts, ascending: 10, 30 ... 990 for 50."""
    return [(2 * i + 1) * train_steps // (2 * count) for i in range(count)]


def insert(prompts: torch.Tensor, words: torch.Tensor, places: list[int]) -> torch.Tensor:
    """Prompts [B,L] or [B,L,E] with `words` [B,k] or [B,k,E] put in from their `places` on; what is then
    beyond L, padding, is cut off."""
    joined = [torch.cat([p[:at], w, p[at:]])[: len(p)] for p, w, at in zip(prompts, words, places)]
    return torch.stack(joined)


def denoising_loss(predicted: torch.Tensor, noise: torch.Tensor, kind: str) -> torch.Tensor:
    """[B]: mean square (l2) or mean absolute difference (l1) of the noise [B,C,h,w]."""
    difference = predicted - noise
    return (difference.square() if kind == "l2" else difference.abs()).mean((1, 2, 3))


def gradient_by_words(
    sd: StableDiffusion, act: Intervention, prompts, words, places, x, t: int, noise, kind: str
) -> torch.Tensor:
    """Of the loss of noisy latents x [B,C,h,w] at timestep t, by the rows of the table [B,k,E] that the
    `words` [B,k] choose. Prompts are ids [B,L]. The model is attacked as it samples: `act` is its method's.
    """
    table, ids = sd.text_encoder.get_input_embeddings().weight, insert(prompts, words, places)
    chosen = table[words].requires_grad_()
    plain = sd.embed_rows(insert(table[prompts], chosen, places))
    predicted = acted_eps(sd, act, ids, plain, x, t)
    return torch.autograd.grad(denoising_loss(predicted, noise, kind).sum(), chosen)[0]
