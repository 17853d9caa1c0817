"""Linear maps of token rows, edited in closed form: UCE's least squares (Gandikota et al., WACV 2024, eq. 7)

    W' = (lamb W + a sum_i v_i c_i' + b sum_j (W p_j) p_j') (lamb I + a sum_i c_i c_i' + b sum_j p_j p_j')^-1

minimises a sum |W' c - v|^2 + b sum |W' p - W p|^2 + lamb |W' - W|^2.
"""

from typing import NamedTuple

import torch

from diffusion_model_finetuning.core.sd import StableDiffusion
from evaluation.core.errors import refused


class Pair(NamedTuple):
    """Matching token rows [n,D] of a prompt to erase and of its guide."""

    edit: torch.Tensor
    guide: torch.Tensor


def align(edit, guide, n_edit: int, n_guide: int, tokens: str) -> Pair:
    """Token rows [L,D] of both prompts, aligned at the last content token (numbers n_edit, n_guide).

    `all`: from there through the padding, as far as both reach; `last`: that token alone.
    """
    if tokens == "last":
        return Pair(edit[n_edit : n_edit + 1], guide[n_guide : n_guide + 1])
    rows = len(edit) - max(n_edit, n_guide)
    return Pair(edit[n_edit : n_edit + rows], guide[n_guide : n_guide + rows])


def values(W, pair: Pair, technique: str):
    """Where the rows of the erased prompt should go: [n,out]."""
    new = pair.guide @ W.T
    if technique == "replace":
        return new
    old = pair.edit @ W.T
    direction = old / old.norm()
    return new - (direction * new).sum() * direction


def gram(rows, chunk: int = 8192):
    """sum of p p' over rows [n,D] -> float64 [D,D], in chunks: a thousand prompts need no float64 copy."""
    return sum((part.T @ part).double() for part in rows.split(chunk))


def solve(W, C, V, keep, lamb: float, erase: float, preserve: float):
    """The edited matrix of W [out,D]: rows C [n,D] should give V [n,out]; all float64.

    `keep` is the Gram matrix of the preserved rows [D,D].
    """
    A = lamb * torch.eye(W.shape[1], dtype=W.dtype, device=W.device) + erase * C.T @ C + preserve * keep
    B = lamb * W + erase * V.T @ C + preserve * W @ keep
    with refused(f"lamb={lamb}: leaves more than one solution; make it larger", torch.linalg.LinAlgError):
        return torch.linalg.solve(A, B.T).T  # A is symmetric


def edited(W, pairs: list[Pair], keep, lamb: float, erase: float, preserve: float, technique: str):
    """UCE's edit of W [out,D]: `solve` for the rows of all `pairs`."""
    C = torch.cat([pair.edit for pair in pairs])
    V = torch.cat([values(W, pair, technique) for pair in pairs])
    return solve(W, C, V, keep, lamb, erase, preserve)


def last_content(sd: StableDiffusion, prompts: list[str]) -> list[int]:
    """Number of each prompt's last content token; the start token's, 0, for an empty prompt."""
    return [len(sd.tokenizer(prompt, truncation=True)["input_ids"]) - 2 for prompt in prompts]


def edit_pairs(sd: StableDiffusion, guides: dict[str, str], tokens: str) -> list[Pair]:
    """The prompts to erase and their guides as aligned token rows."""
    prompts = [text for pair in guides.items() for text in pair]
    rows, ends = sd.embed(prompts).double(), last_content(sd, prompts)
    pairs = zip(rows[::2], rows[1::2], ends[::2], ends[1::2])
    return [align(*pair, tokens) for pair in pairs]
