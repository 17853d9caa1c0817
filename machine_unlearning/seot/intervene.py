"""SEOT while sampling: prompts that name a target are sampled with an edited embedding, others as ever.

`machine_unlearning.sample` finds `sampler` here for runs of this method. A batch may mix both kinds of
prompts; every term is per image, so its rows do not see each other.
"""

from contextlib import contextmanager
from functools import partial

import torch
from omegaconf import OmegaConf

from diffusion_model_finetuning.core.sd import (
    ddim_grid,
    denoise_until,
    eps,
    sample,
    starting_noise,
    to_pixels,
)
from evaluation import canvas
from evaluation.core.record import read_record
from machine_unlearning.core.attention import recorded
from machine_unlearning.core.cli import recorded_settings
from machine_unlearning.seot.levels import level_of
from machine_unlearning.seot.suppress import ito_loss, ito_terms, swr, word_masks
from machine_unlearning.seot.words import target_tokens, token_count


def sampler(sd, run):
    """What draws the images of a run: `draw` without its first three arguments."""
    record = read_record(run)
    settings = OmegaConf.create(recorded_settings(run, record))
    return partial(draw, sd, canvas.parse_targets(record["target"]), settings)


class Reached(Exception):
    """Ends a forward pass that need go no further."""


@contextmanager
def ending_after(block):
    """Within, a forward pass through `block` ends there, without an output."""

    def end(*_):
        raise Reached

    handle = block.register_forward_hook(end)
    try:
        yield
    except Reached:
        pass
    finally:
        handle.remove()


def attention_maps(unet, x, t: int, text, level: int):
    """A [B,Q,L] and S [B,Q,Q] in float64: means over all heads and layers of a level's down and up block.

    The UNet runs no further than that up block.
    """
    up = len(unet.up_blocks) - 1 - level
    places = (f"down_blocks.{level}.", f"up_blocks.{up}.")
    with recorded(unet, lambda name: name.startswith(places)) as maps, ending_after(unet.up_blocks[up]):
        eps(unet, x, t, text)
    cross, own = ([m for name, m in maps.items() if name.endswith(kind)] for kind in ("attn2", "attn1"))
    return torch.cat(cross, 1).mean(1).double(), torch.cat(own, 1).mean(1).double()


def ito(text, look, reference, erase, retain, rate: float, s):
    """`s.iterations` gradient steps on embeddings [B,L,D] at one timestep.

    `look(text)` gives A and S of an embedding; `reference` are those of the unedited one.
    """
    shown = word_masks(reference[0], erase)
    for _ in range(s.iterations):
        text = text.detach().requires_grad_()
        with torch.enable_grad():
            loss = ito_loss(ito_terms(*reference, shown, *look(text), erase, retain), s.lambdas).sum()
        text = text - rate * torch.autograd.grad(loss, text)[0]
    return text.detach()


def word_flags(found: list[list[int]], counts: list[int], length: int):
    """Words to erase and words to retain, bool [B,L] each, from target positions and token counts."""
    place = torch.arange(length)
    erase = torch.stack([torch.isin(place, torch.tensor(positions)) for positions in found])
    inside = (place > 0) & (place < torch.tensor(counts)[:, None] - 1)
    return erase, inside & ~erase


def denoise(sd, x, text, null, found: dict[int, list[int]], counts: list[int], steps, guidance, s):
    """Noise x [B,C,h,w] -> latents. `found`: row -> its target tokens, `counts`: all tokens of these rows.

    Before share `s.begin` of the steps nothing is edited; then SWR is, and until share `s.end` ITO on top.
    """
    rows = [*found]
    swr_text = text.clone()
    for row, count in zip(rows, counts, strict=True):
        swr_text[row] = swr(text[row], found[row], count, s.alpha)
    erase, retain = (flags.to(x.device) for flags in word_flags([*found.values()], counts, text.shape[1]))
    grid, level = ddim_grid(steps), level_of(sd.unet.config, x.shape[-1], s.map_size)
    rates = s.step_size * torch.linspace(1, 0.1, steps).sqrt()
    begin = round(s.begin * steps)
    end = max(begin, round(s.end * steps)) if s.iterations else begin

    def walk(x, text, start, stop):  # steps `start` to `stop` - 1, counted from the noise
        return denoise_until(sd.unet, x, text, null, guidance, grid[: steps - start], sd.abar, steps - stop)

    x = walk(x, text, 0, begin)
    plain = x[rows]  # whose attention the edited embedding is to share
    for i in range(begin, end):
        ito_text, t = swr_text.clone(), grid[steps - 1 - i]
        # gradients are too small for the half precision that images may be drawn in
        with torch.autocast(x.device.type, enabled=False):
            reference = attention_maps(sd.unet, plain, t, text[rows], level)
            look = partial(attention_maps, sd.unet, x[rows], t, level=level)
            ito_text[rows] = ito(swr_text[rows], look, reference, erase, retain, rates[i].item(), s)
        x = walk(x, ito_text, i, i + 1)
        plain = walk(plain, text[rows], i, i + 1) if s.reference_trajectory else x[rows]
    return walk(x, swr_text, end, steps)


@torch.no_grad()
def draw(sd, targets, s, prompts, seeds, steps=50, guidance=7.5, size=None, precision="float32"):
    """As core `sample`, images uint8 [B,H,W,3]; the same pixels for prompts that name no target."""
    found = {
        row: places
        for row, prompt in enumerate(prompts)
        if (places := target_tokens(sd.tokenizer, prompt, targets, s.fixed_positions))
    }
    if not found:
        return sample(sd, prompts, seeds, steps, guidance, size, precision)
    counts = [token_count(sd.tokenizer, prompts[row]) for row in found]
    noise, dtype = starting_noise(sd, seeds, size), getattr(torch, precision)
    with torch.autocast(sd.device.type, dtype, enabled=dtype != torch.float32):
        null, text = sd.embed([""]), sd.embed(prompts).float()
        x = denoise(sd, noise, text, null, found, counts, steps, guidance, s)
        images = sd.decode(x)
    return to_pixels(images)
