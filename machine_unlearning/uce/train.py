"""UCE: Unified Concept Editing (Gandikota et al., WACV 2024)

Rewrites the key and value maps of every cross-attention layer in closed form (eq. 7): tokens c of prompts
to erase go where the guide's tokens g go, tokens p of prompts to preserve stay put. There is no training.

    W' = (lamb W + a sum_i v_i c_i' + b sum_j (W p_j) p_j') (lamb I + a sum_i c_i c_i' + b sum_j p_j p_j')^-1

v = W g (technique `replace`), or the part of W g orthogonal to W c (`tensor`). W' minimises
a sum |W' c - v|^2 + b sum |W' p - W p|^2 + lamb |W' - W|^2.
"""

from evaluation.core.errors import command, early, refused
from machine_unlearning.core import cli
from machine_unlearning.uce.prompts import edit_prompts, world_prompts


def parse(argv=None):
    """-> flags and settings; prompts to erase and their guides."""
    args = cli.parse(__doc__, __file__, argv)
    return args, edit_prompts(args)


early(__name__, parse)  # before the slow imports

from typing import NamedTuple

import torch
from tqdm import tqdm

from diffusion_model_finetuning.core.sd import StableDiffusion
from evaluation.core.run import Run
from machine_unlearning.core import params, weights
from machine_unlearning.core.embeddings import cached_embeddings


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


def uce_solve(W, pairs: list[Pair], keep, lamb: float, erase: float, preserve: float, technique: str):
    """The edited matrix of W [out,D], all float64; `keep` is the Gram matrix of the preserved rows [D,D]."""
    C = torch.cat([pair.edit for pair in pairs])
    V = torch.cat([values(W, pair, technique) for pair in pairs])
    A = lamb * torch.eye(W.shape[1], dtype=W.dtype, device=W.device) + erase * C.T @ C + preserve * keep
    B = lamb * W + erase * V.T @ C + preserve * W @ keep
    with refused(f"lamb={lamb}: leaves more than one solution; make it larger", torch.linalg.LinAlgError):
        return torch.linalg.solve(A, B.T).T  # A is symmetric


def last_content(sd: StableDiffusion, prompts: list[str]) -> list[int]:
    """Number of each prompt's last content token; the start token's, 0, for an empty prompt."""
    return [len(sd.tokenizer(prompt, truncation=True)["input_ids"]) - 2 for prompt in prompts]


def edit_pairs(sd: StableDiffusion, guides: dict[str, str], tokens: str) -> list[Pair]:
    """The prompts to erase and their guides as aligned token rows."""
    prompts = [text for pair in guides.items() for text in pair]
    rows, ends = sd.embed(prompts).double(), last_content(sd, prompts)
    pairs = zip(rows[::2], rows[1::2], ends[::2], ends[1::2])
    return [align(*pair, tokens) for pair in pairs]


@command
def main(argv=None):
    args, guides = parse(argv)
    s = args.settings
    with Run(args, method="uce") as run, torch.no_grad():
        sd = weights.load_base(args, run)
        prompts, kept = world_prompts(args)
        # the whole world, embedded once for all targets
        rows = cached_embeddings(sd, prompts, run.model)
        if s.tokens == "last":
            rows = rows[torch.arange(len(rows)), last_content(sd, prompts)]
        rows = rows[kept]
        run.begin()
        keep, pairs = gram(rows.flatten(0, -2)), edit_pairs(sd, guides, s.tokens)
        edited = params.trainable(sd.unet, "xattn_kv")
        for weight in tqdm(edited.values(), f"uce {args.target}", disable=None):
            scale = max(s.preserve_scale, 1 / len(rows))
            new = uce_solve(weight.double(), pairs, keep, s.lamb, s.erase_scale, scale, s.technique)
            weight.copy_(new)
        weights.save_delta(run, sd, edited)


if __name__ == "__main__":
    main()
