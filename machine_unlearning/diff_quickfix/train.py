"""Diff-QuickFix (Basu et al., ICLR 2024)

Causal tracing finds one place in CLIP's text encoder that carries an attribute: the first layer's
self-attention, at the last token of the name. Its output projection W is rewritten in closed form, so that
what it receives for captions of the concept, k, comes out as what it receives for an anchor's, q:

    W' = (lamb W + sum_i v_i k_i' + b sum_j (W p_j) p_j') (lamb I + sum_i k_i k_i' + b sum_j p_j p_j')^-1

with v = W q, the minimiser of sum |W' k - v|^2 + lamb |W' - W|^2 + b sum |W' p - W p|^2. Rows p of prompts to
preserve are an option of ours (b = 0 in the paper). No image, no UNet, no gradient.
"""

from evaluation.core.errors import UserError, command, early
from machine_unlearning.core import cli
from machine_unlearning.diff_quickfix.captions import Caption, edit_captions, kept_prompts


def parse(argv=None):
    """-> flags and settings; pairs of captions of a concept and of its anchor."""
    args = cli.parse(__doc__, __file__, argv)
    return args, edit_captions(args)


early(__name__, parse)  # before the slow imports

import torch

from evaluation.core.run import Run
from machine_unlearning.core import weights
from machine_unlearning.core.attention import place, spelled
from machine_unlearning.core.closed_form import Pair, gram, solve
from machine_unlearning.core.text_encoder import layer, projected

LAYER = 0


def last_token(tokenizer, caption: Caption) -> int:
    """Position of the name's last token, where it stands last in the caption; 0 is start-of-text."""
    ids = tokenizer(caption.text, truncation=True)["input_ids"]
    backwards = place(ids[::-1], spelled(tokenizer, caption.name)[::-1])
    if not backwards:
        raise UserError(f"{caption.text!r}: too long, so that {caption.name!r} is cut off; use fewer words")
    return len(ids) - 1 - backwards[0]


def align(edit, guide, i: int, j: int, tokens: str) -> Pair:
    """Rows [L,D] of a concept's and an anchor's caption, matched from their last tokens i and j on.

    `all`: to the concept's end; where the anchor has no row left, its last stands in. `last`: these alone.
    """
    steps = torch.arange(len(edit) - i if tokens == "all" else 1, device=edit.device)
    return Pair(edit[i + steps], guide[(j + steps).clamp(max=len(guide) - 1)])


def aligned(sd, pairs: list[tuple[Caption, Caption]], edit, guide, tokens: str) -> Pair:
    """The matching rows of all captions, of rows [B,L,D] of the concepts and of the anchors."""
    ends = [[last_token(sd.tokenizer, caption) for caption in pair] for pair in pairs]
    matched = [align(k, q, i, j, tokens) for k, q, (i, j) in zip(edit, guide, ends, strict=True)]
    return Pair(*map(torch.cat, zip(*matched)))


def values(q, W, b, added):
    """Where the rows k should go, [n,out]: the anchor's output W q + b, but for what the layer adds to it."""
    return q @ W.T + b - added


@torch.no_grad()
def entering(sd, prompts: list[str]):
    """What the projection receives for prompts, float64 [B,L,D]; the edit does not change it."""
    return projected(sd.text_encoder, sd.tokens(prompts), LAYER)[0].double()


@command
def main(argv=None):
    args, pairs = parse(argv)
    s = args.settings
    with Run(args, method="diff_quickfix") as run, torch.no_grad():
        sd = weights.load_model(args, run)
        run.begin()
        name, encoder_layer = layer(sd.text_encoder, LAYER)
        W, b = encoder_layer.self_attn.out_proj.weight, encoder_layer.self_attn.out_proj.bias
        base_W, base_b, q = W.double(), b.double(), entering(sd, [anchor.text for _, anchor in pairs])
        weights.begin(sd, args)  # --from changes W, not where the rows of a later concept go
        k = entering(sd, [concept.text for concept, _ in pairs])
        rows = aligned(sd, pairs, k, q, s.tokens)
        v = values(rows.guide, base_W, base_b, b.double() if s.bias == "without" else 0)
        keep = torch.zeros_like(base_W)
        if s.preserve:
            keep = gram(entering(sd, kept_prompts(args)).flatten(0, 1))
        new = solve(W.double(), rows.edit, v, keep, s.lamb, 1.0, s.preserve)
        run.note(rows=len(v), squares=rows.edit.square().sum(), change=(new - W).norm() / W.norm())
        W.copy_(new)
        weights.save_delta(run, sd, [f"text_encoder.{name}.self_attn.out_proj.weight"])


if __name__ == "__main__":
    main()
