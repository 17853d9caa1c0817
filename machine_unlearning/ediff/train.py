"""EDiff: EraseDiff (Wu et al., CVPR 2025)

Keeps f, the denoising loss of images to keep, low, subject to g being as low as training on g alone makes it
(the value v). g asks that images to forget, under the forgotten prompt c, are denoised as under a substitute
prompt c'. The gradient followed is

    r + lambda q        r = grad f        q = grad (g - v) = grad g, for v is a number
    g = || eps_theta(x_t,t,c) - sg eps_theta(x_t,t,c') ||^2        lambda = max(eta - <r,q> / |q|^2, 0)

so that its inner product with q is eta |q|^2 at least: g falls. The benchmark's lambda is a constant.
"""

from evaluation.core.errors import command, early
from machine_unlearning.core import cli

early(__name__, cli.parse_with_substitutes, __doc__, __file__)  # before the slow imports

from itertools import islice

import torch

from diffusion_model_finetuning.core.sd import cast_frozen
from evaluation.core.run import Run
from machine_unlearning.core import params, weights
from machine_unlearning.core.forget import denoising_loss, relabelling_loss, streams


def multiplier(kind: str, dot: float, r: float, q: float, eta: float, alpha: float) -> float:
    """lambda, from dot = <r,q> and the norms r = |r|, q = |q|; `alpha` is the constant one.

    Kinds: `bome` is the paper's, `cosine` the original's other scripts', `constant` the benchmark's.
    """
    if kind == "constant":
        return alpha
    if q == 0:
        return 0.0
    return max(eta - dot / (q * q if kind == "bome" else r * q + 1e-8), 0.0)


def inner_product(a, b) -> torch.Tensor:
    """Inner product of two lists of tensors, in float64."""
    return sum((x * y).sum(dtype=torch.float64) for x, y in zip(a, b, strict=True))


def ediff_gradient(trained, retaining, forgetting, kind: str, eta: float, alpha: float) -> float:
    """Puts r + lambda q into the gradients of the weights `trained`; returns lambda."""
    r, q = (torch.autograd.grad(loss, trained) for loss in (retaining, forgetting))
    products = inner_product(r, q), inner_product(r, r), inner_product(q, q)
    dot, rr, qq = torch.stack(products).tolist()  # waits for a GPU once
    strength = multiplier(kind, dot, rr**0.5, qq**0.5, eta, alpha)
    for weight, a, b in zip(trained, r, q, strict=True):
        weight.grad = a.add(b, alpha=strength)
    return strength


def restore(trained, start) -> None:
    with torch.no_grad():
        for weight, value in zip(trained, start, strict=True):
            weight.copy_(value)


@command
def main(argv=None):
    args = cli.parse_with_substitutes(__doc__, __file__, argv)
    s = args.settings
    with Run(args, method="ediff") as run:
        sd = weights.load_base(args, run)
        if s.checkpointing:
            sd.unet.enable_gradient_checkpointing()
        pairs = zip(*streams(sd, args, run.generator))
        named = params.trainable(sd.unet, s.scope)
        cast_frozen(sd.unet, s.precision)
        trained = list(named.values())
        optimizer = torch.optim.Adam(trained, s.lr, fused=True)

        steps = run.steps(s.epochs * s.passes * (s.inner_steps + s.steps))
        for _ in range(s.epochs):
            start = [weight.detach().clone() for weight in trained]
            for _ in range(s.passes):
                value = 0.0
                for _, (forget, _) in zip(islice(steps, s.inner_steps), pairs):
                    forgetting = relabelling_loss(sd.unet, forget)
                    forgetting.backward()
                    value += forgetting.detach() / s.inner_steps
                    run.step(optimizer, inner=forgetting)
                restore(trained, start)
                for _, (forget, retain) in zip(islice(steps, s.steps), pairs):
                    forgetting = relabelling_loss(sd.unet, forget)
                    retaining = denoising_loss(sd.unet, retain)
                    strength = ediff_gradient(trained, retaining, forgetting, s.multiplier, s.eta, s.alpha)
                    loss = retaining + strength * (forgetting - value)
                    run.step(optimizer, loss=loss, forget=forgetting, retain=retaining, multiplier=strength)
        weights.save_delta(run, sd, named)


if __name__ == "__main__":
    main()
