"""HiRM: High-level Representation Misdirection (ICLR 2026)

Trains the first layer of the text encoder alone, until the last layer's self-attention says something else
about the concept. With h(p) [L,D] the output of that attention's projection for prompt p:

    L = mean over prompts, tokens and channels of (h(p) - v)^2

    semantic (S):  v = c h*(p'), of the unedited encoder and the prompt p' of a super-concept
    random (R):    v_t = c r_t, a unit vector r_t for every token (`per_token`);
                   the code: v = c u / |u|, one norm over all L D entries u >= 0 (`joint`)

No image is used, and the UNet stays as it is.
"""

from evaluation import canvas
from evaluation.core.errors import UserError, command, early
from machine_unlearning.core import cli, concepts
from machine_unlearning.core.prompts import anchors, cells


def sentence(cell: concepts.Cell) -> str:
    return concepts.cell_prompt(canvas.TEMPLATE, *cell)


def parse(argv=None):
    """-> flags and settings; prompts to misdirect, each with its super-concept's."""
    args = cli.parse(__doc__, __file__, argv)
    s = args.settings
    if s.wording == "words":
        return args, anchors(args)
    if s.target != "semantic":
        raise UserError(f"wording=cells: sends sentences to others; target={s.target} needs wording=words")
    return args, {sentence(cell): sentence(instead) for cell, instead in cells(args).items()}


early(__name__, parse)  # before the slow imports

import torch
import torch.nn.functional as F
from torch import nn

from evaluation.core.environment import to_device
from evaluation.core.run import Run
from machine_unlearning.core import weights
from machine_unlearning.core.text_encoder import layer, projected

BETAS, EPS, DECAY = (0.9, 0.98), 1e-6, 1e-8  # of AdamW


def random_target(u, c: float, kind: str):
    """Noise u [L,D] at length c: `joint` as a whole, `per_token` in every row."""
    return c * u / (u.norm() if kind == "joint" else u.norm(dim=-1, keepdim=True))


def hirm_loss(h, v):
    """Mean squared distance of h [B,L,D] from targets v [B,L,D], or from one [L,D] for all prompts."""
    return F.mse_loss(h, v.expand_as(h))


def trainable(text_encoder: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter of the first layer's projections and MLP, with gradients on for these alone.

    Without the keys' bias: softmax cancels it, so its gradient is rounding.
    """
    text_encoder.requires_grad_(False)
    name, first = layer(text_encoder, 0)
    parts = [(n, w) for n, w in first.named_parameters() if n.startswith(("self_attn.", "mlp."))]
    return {f"{name}.{n}": w.requires_grad_() for n, w in parts if n != "self_attn.k_proj.bias"}


def high_level(sd, prompts: list[str]):
    """h [B,L,D] of prompts."""
    return projected(sd.text_encoder, sd.tokens(prompts), -1)[1]


@command
def main(argv=None):
    args, prompts = parse(argv)
    s = args.settings
    with Run(args, method="hirm") as run:
        sd = weights.load_model(args, run)
        if s.target == "semantic":
            v = s.coefficient * high_level(sd, [*prompts.values()])  # of the base model, also after --from
        else:
            draw = torch.rand if s.target == "joint" else torch.randn
            shape = sd.tokenizer.model_max_length, sd.text_encoder.config.hidden_size
            u = to_device(draw(shape, generator=run.generator), run.device)
            v = random_target(u, s.coefficient, s.target)
        weights.begin(sd, args)
        student = trainable(sd.text_encoder)
        optimizer = torch.optim.AdamW(student.values(), s.lr, BETAS, EPS, DECAY)

        for _ in run.steps(s.steps):
            loss = hirm_loss(high_level(sd, [*prompts]), v)
            loss.backward()
            run.step(optimizer, loss=loss)
        weights.save_delta(run, sd, [f"text_encoder.{name}" for name in student])


if __name__ == "__main__":
    main()
