"""SHS: Scissorhands (Wu and Harandi, ECCV 2024)

First trims: cross-attention weights most connected to the images to forget are drawn anew (trim.py). Then
repairs, on the images to keep, while the loss on the images to forget goes up:

    L = L_den(retain) - alpha L_den(forget)

A gradient g of L that would bring the forgotten back is projected: G holds gradients of -L_den(forget) of the
trimmed model, and if any <g, G_k> < 0, g becomes g + G'v, where v minimises (Gradient Episodic Memory)

    v'(GG' + 0.001 I)v / 2 + (Gg)'v        over v >= 0.5
"""

from evaluation.core.errors import UserError, command, early
from machine_unlearning.core import cli

early(__name__, cli.parse_with_substitutes, __doc__, __file__)  # before the slow imports

from functools import partial
from itertools import islice

import torch
from tqdm import tqdm

from diffusion_model_finetuning.core.sd import cast_frozen
from evaluation.core.environment import to_device
from evaluation.core.run import Run
from machine_unlearning.core import params, weights
from machine_unlearning.core.forget import denoising_loss, relabelling_loss, streams
from machine_unlearning.shs.trim import fresh, sensitivity, threshold, trim


def gradient(weights) -> torch.Tensor:
    """The gradients of a list of weights as one vector [D]."""
    return torch.cat([weight.grad.flatten() for weight in weights])


def memory(unet, weights, batch) -> torch.Tensor:
    """Gradient [D] of -L_den: a step against it makes the model worse on this batch."""
    (-denoising_loss(unet, batch)).backward()
    remembered = gradient(weights)
    unet.zero_grad(set_to_none=True)
    return remembered


def multipliers(g, G, margin: float, ridge: float) -> torch.Tensor:
    """v [K], by coordinate descent: the closed form after one sweep if there is one memory."""
    products = torch.cat([G @ G.T, (G @ g)[:, None]], 1).cpu().double()  # waits for a GPU once
    A, b = products[:, :-1] + ridge * torch.eye(len(G), dtype=torch.float64), products[:, -1]
    v = torch.full_like(b, margin)
    for _ in range(1000):
        before = v.clone()
        for k in range(len(v)):
            v[k] = (v[k] - (A[k] @ v + b[k]) / A[k, k]).clamp(min=margin)
        if torch.allclose(v, before, rtol=1e-12, atol=0):
            break
    return v


def project(g, G, margin: float = 0.5, ridge: float = 1e-3) -> torch.Tensor:
    """g [D] moved along memories G [K,D] so that no step against it undoes the forgetting."""
    return g + to_device(multipliers(g, G, margin, ridge).to(G.dtype), G.device) @ G


def project_gradients(weights, G) -> bool:
    """Projects the gradients of a list of weights, if they conflict with a memory; returns whether."""
    g = gradient(weights)
    conflict = bool((G @ g < 0).any())
    if conflict:
        parts = project(g, G).split([weight.numel() for weight in weights])
        for weight, part in zip(weights, parts, strict=True):
            weight.grad.copy_(part.view_as(weight))
    return conflict


@command
def main(argv=None):
    args = cli.parse_with_substitutes(__doc__, __file__, argv)
    s = args.settings
    with Run(args, method="shs") as run:
        sd = weights.load_base(args, run)
        trimmed, trained = (params.trainable(sd.unet, scope) for scope in (s.trim_scope, s.scope))
        if not trimmed.keys() <= trained.keys():
            raise UserError(f"trim_scope={s.trim_scope}: has weights that scope={s.scope} does not train")
        if s.checkpointing:
            sd.unet.enable_gradient_checkpointing()
        pairs = zip(*streams(sd, args, run.generator))
        batches = tqdm(islice(pairs, s.score_steps), "score", s.score_steps, disable=None)
        scores = sensitivity(sd.unet, (forget for forget, _ in batches))
        trimmed, trained = (params.trainable(sd.unet, scope) for scope in (s.trim_scope, s.scope))
        cast_frozen(sd.unet, s.precision)
        count = trim(trimmed, scores, threshold(scores, s.keep), partial(fresh, generator=run.generator))
        del scores
        run.note(trimmed=count)
        part = list(trimmed.values())
        if s.project_every:
            G = torch.stack([memory(sd.unet, part, forget) for forget, _ in islice(pairs, s.memories)])
        optimizer = torch.optim.Adam(trained.values(), s.lr, fused=True)

        for step, (forget, retain) in zip(run.steps(s.steps), pairs):
            forgetting = -denoising_loss(sd.unet, forget) if s.ascent else relabelling_loss(sd.unet, forget)
            retaining = denoising_loss(sd.unet, retain)
            loss = retaining + s.alpha * forgetting
            loss.backward()
            projected = s.project_every and step % s.project_every == 0 and project_gradients(part, G)
            run.step(optimizer, loss=loss, forget=forgetting, retain=retaining, projected=projected)
        weights.save_delta(run, sd, trained)


if __name__ == "__main__":
    main()
