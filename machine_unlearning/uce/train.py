"""UCE: Unified Concept Editing (Gandikota et al., WACV 2024)

Rewrites the key and value maps of every cross-attention layer in closed form (eq. 7): tokens c of prompts
to erase go where the guide's tokens g go, tokens p of prompts to preserve stay put. There is no training.

    W' = (lamb W + a sum_i v_i c_i' + b sum_j (W p_j) p_j') (lamb I + a sum_i c_i c_i' + b sum_j p_j p_j')^-1

v = W g (technique `replace`), or the part of W g orthogonal to W c (`tensor`). W' minimises
a sum |W' c - v|^2 + b sum |W' p - W p|^2 + lamb |W' - W|^2.
"""

from evaluation.core.errors import command, early
from machine_unlearning.core import cli
from machine_unlearning.core.prompts import edit_prompts, world_prompts


def parse(argv=None):
    """-> flags and settings; prompts to erase and their guides."""
    args = cli.parse(__doc__, __file__, argv)
    return args, edit_prompts(args)


early(__name__, parse)  # before the slow imports

import torch
from tqdm import tqdm

from evaluation.core.run import Run
from machine_unlearning.core import params, weights
from machine_unlearning.core.closed_form import edit_pairs, edited, gram, last_content
from machine_unlearning.core.embeddings import cached_embeddings


@command
def main(argv=None):
    args, guides = parse(argv)
    s = args.settings
    with Run(args, method="uce") as run, torch.no_grad():
        sd = weights.load_base(args, run)
        prompts, kept = world_prompts(args)
        # the whole world, embedded once for all targets
        rows = cached_embeddings(sd, prompts)
        if s.tokens == "last":
            rows = rows[torch.arange(len(rows)), last_content(sd, prompts)]
        rows = rows[kept]
        run.begin()
        keep, pairs = gram(rows.flatten(0, -2)), edit_pairs(sd, guides, s.tokens)
        matrices = params.trainable(sd.unet, "xattn_kv")
        scale = max(s.preserve_scale, 1 / len(rows))
        for W in tqdm(matrices.values(), f"uce {args.target}", disable=None):
            W.copy_(edited(W.double(), pairs, keep, s.lamb, s.erase_scale, scale, s.technique))
        weights.save_delta(run, sd, matrices)


if __name__ == "__main__":
    main()
