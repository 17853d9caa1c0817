"""Semantic Surgery's formulas on plain tensors. Embeddings are [L,D]: B of prompts, K of concepts."""

import torch
import torch.nn.functional as F


def directions(concepts, neutral):
    """d_k = e(k) - e(n) [K,L,D] of concepts [K,L,D] from the neutral text [L,D].

    All prompts share the start token: what differs there is rounding, which a cosine would take for a
    direction. So row 0 is 0.
    """
    return F.pad((concepts - neutral)[:, 1:], (0, 0, 1, 0))


def similarity(text, d):
    """a [B,K]: the mean over all L positions of the cosine of prompts [B,L,D] and directions [K,L,D] there;
    it is 0 where a direction is."""
    return torch.einsum("bld,kld->bk", F.normalize(text, dim=-1), F.normalize(d, dim=-1)) / d.shape[1]


def presence(a, beta, gamma: float):
    """rho in (0,1) of similarities a [B,K]; beta, a number or [K], is about minus the similarity at which
    a concept counts as there, in the sign of the original's code."""
    return torch.sigmoid((a + beta) / gamma)


def strength(rho, threshold: float):
    """[B]: the largest presence of [B,K] that reaches the threshold, 0 if none does."""
    return torch.where(rho >= threshold, rho, 0).amax(-1)


def edited(text, removed, strength):
    """Prompts [B,L,D] without the directions `removed` [B,L,D], each times a strength [B]."""
    return text - strength[:, None, None] * removed


def best_beta(a, shown) -> tuple[float, float]:
    """-> beta, balanced accuracy: minus the threshold of similarities a [N] that best tells cells that show a
    concept (`shown`, bool [N], of both kinds some) from the rest, and how well it does.

    Balanced accuracy is the mean of the shares told right in both groups. It is constant between two
    neighbouring similarities; the threshold is the middle of the widest interval where it is highest.
    Raises ValueError if there is no such interval.
    """
    levels = a.double().unique()
    if len(levels) < 2 or shown.all() or not shown.any():
        raise ValueError("all similarities are alike, or all cells show it, or none")
    present, absent = (a.double()[rows].sort().values for rows in (shown, ~shown))
    right = [torch.searchsorted(group, levels[:-1], right=True) for group in (present, absent)]
    # whole numbers, so that equal accuracies are equal
    score = (len(present) - right[0]) * len(absent) + right[1] * len(present)
    best = (levels.diff() * (score == score.max())).argmax()
    return -((levels[best] + levels[best + 1]) / 2).item(), score[best].item() / (
        2 * len(present) * len(absent)
    )
