"""FIA's and ConceptPrune's formulas on plain tensors: which entries of a weight W [O,I] carry a concept.

Column norms u are [T,P,I]: of T steps and P prompts. Masks are bool [O,I].
"""

import math

import torch


def gain(concept, base):
    """max(0, mu_c - mu_b - sigma_b) [T,I] of two sides' u, sigma being the population's over the prompts."""
    return (concept.mean(1) - base.mean(1) - base.std(1, correction=0)).clamp(min=0)


def sensitivity(W, gains, r1: float):
    """A [O,I] = 1/2 mean_t S / max(mean_t S) + 1/2 share of steps with S_t > tau_t,  S_t = |W| gain_t.

    tau_t: the max(1, int(r1 O I))-th largest entry of S_t, which itself is not above it.
    """
    W, total, above = W.abs().to(gains), 0, 0
    k = max(1, int(r1 * W.numel()))
    for step in gains:  # one at a time: all of them are gigabytes at full size
        S = W * step
        tau = S.flatten().kthvalue(W.numel() - k + 1).values
        total, above = total + S, above + S.gt(tau)
    return total / total.max().clamp(min=torch.finfo(total.dtype).tiny) / 2 + above / (2 * len(gains))


def largest(values, count: int):
    """True for `count` entries of each row of [R,N]."""
    return torch.zeros_like(values, dtype=torch.bool).scatter_(1, values.topk(count, 1).indices, True)


def flagged(A, r2: float):
    """Q: the max(1, int(r2 I)) largest of each row of A [O,I] that are also among the max(1, int(r2 O I))
    largest of the layer. An entry whose input never rises is not flagged, however few do."""
    rows = largest(A, max(1, int(r2 * A.shape[1])))
    return rows & largest(A.flatten()[None], max(1, int(r2 * A.numel()))).view_as(A) & (A > 0)


def fused(masks, alpha: float):
    """Entries that some of K concepts flag, but fewer than ceil(alpha K): what most of them flag is general,
    and spared."""
    votes = sum(mask.int() for mask in masks)
    return (votes > 0) & (votes < math.ceil(alpha * len(masks) - 1e-9))  # 0.55 x 20 is a little over 11


def joint_norms(u):
    """[T,I]: column norms over the rows of all prompts together."""
    return u.square().sum(1).sqrt()


def skilled(W, concept, base, ratio: float):
    """ConceptPrune's mask of one step: the int(ratio I) largest of each row of |W| u_concept that exceed
    |W| u_base; u [I] are `joint_norms`."""
    W = W.abs().to(concept)
    scores = W * concept
    return largest(scores, int(ratio * W.shape[1])) & (scores > W * base)


def agreed(steps, share: float):
    """Entries that more than `share` of the steps' masks [T,O,I] have; 0 unites them."""
    return steps.sum(0) > share * len(steps)
