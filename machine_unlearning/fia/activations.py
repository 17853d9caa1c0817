"""How strongly the inputs of the feed-forward networks' second layers are driven while images are sampled

    u_j(prompt, step) = || column j of X ||        X: a layer's input, each row (position) of norm 1

Only the first steps of a trajectory are observed, and no later ones taken.
"""

from contextlib import contextmanager

import torch
from tqdm import tqdm

from diffusion_model_finetuning.core.sd import ddim, ddim_grid

LAYER = ".ff.net.2"  # how the names end of the layers whose weights are pruned


def layers(unet) -> dict[str, torch.nn.Linear]:
    """The second layers of all feed-forward networks of the transformer blocks, by name in its order."""
    return dict(sorted((n, layer) for n, layer in unet.named_modules() if n.endswith(LAYER)))


def column_norms(X):
    """u [B,I], float64, of inputs X [B,N,I] with N positions."""
    squares = X.double().square()
    return (squares / squares.sum(-1, keepdim=True)).sum(-2).sqrt()


@contextmanager
def recorded(unet, count: int, halves: str):
    """Within, the dict yielded holds, after each UNet call for `count` prompts, u [count,I] by layer.

    A call may have the prompts alone, or first as many rows without a prompt, for guidance: with `both`
    halves all rows of a prompt count, with `conditional` the last.
    """
    seen, handles = {}, []

    def watch(name):
        def look(layer, inputs):
            u = column_norms(inputs[0]).unflatten(0, (-1, count))
            seen[name] = u[-1] if halves == "conditional" else u.square().sum(0).sqrt()

        return look

    try:
        for name, layer in layers(unet).items():
            handles.append(layer.register_forward_pre_hook(watch(name)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def observed(sd, text, noise, steps: int, observe: int, guidance: float, halves: str, batch: int):
    """u [T,P,I] by layer, of the first T = `observe` of `steps` DDIM steps of P prompts [P,L,D], each from
    its own noise [P,C,h,w]. `batch` prompts are sampled at once."""
    grid, null, parts = ddim_grid(steps), sd.embed([""]), []
    for rows, x in tqdm([*zip(text.split(batch), noise.split(batch))], "observe", disable=None):
        with recorded(sd.unet, len(x), halves) as seen:
            walk = []
            for i in reversed(range(steps - observe, steps)):
                x = ddim(sd.unet, x, rows, null, guidance, grid, sd.abar, i)
                walk.append(dict(seen))
        parts.append({name: torch.stack([step[name] for step in walk]) for name in seen})
    return {name: torch.cat([part[name] for part in parts], 1) for name in parts[0]}
