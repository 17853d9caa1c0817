"""SEOT while sampling: prompts that name a target are sampled with an edited embedding, others as ever.

`machine_unlearning.sample` finds `intervention` here for runs of this method. A batch may mix both kinds of
prompts; every term is per image, so its rows do not see each other.
"""

from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from omegaconf import OmegaConf

from diffusion_model_finetuning.core.intervention import Intervention
from diffusion_model_finetuning.core.sd import ddim_grid, eps
from evaluation import canvas
from evaluation.core.record import RECORD, read_record, requests
from machine_unlearning.core.attention import recorded
from machine_unlearning.core.cli import recorded_settings
from machine_unlearning.seot.levels import level_of
from machine_unlearning.seot.suppress import ito_loss, ito_terms, swr, word_masks
from machine_unlearning.seot.words import target_tokens


def intervention(sd, run) -> Intervention:
    """What a run does while images are sampled."""
    record = read_record(run)
    settings = OmegaConf.create(recorded_settings(run, record))
    own = [request.target for request in requests(record, Path(run) / RECORD) if request.method == "seot"]
    return forgetting(sd, canvas.parse_targets(",".join(own)), settings)


def forgetting(sd, targets: list[canvas.Target], s) -> Intervention:
    """The embeddings of prompts that name a target are edited; images of others stay as they are."""

    def touched(ids) -> dict[int, tuple[list[int], int]]:
        """Row -> its target tokens, and how many tokens it has with start and end."""
        prompts = [row[: row.index(sd.tokenizer.eos_token_id) + 1] for row in ids.tolist()]
        places = (target_tokens(sd.tokenizer, prompt, targets, s.fixed_positions) for prompt in prompts)
        return {i: (found, len(prompts[i])) for i, found in enumerate(places) if found}

    def touches(ids) -> torch.Tensor:
        rows = touched(ids)
        return torch.tensor([i in rows for i in range(len(ids))])

    return Intervention(
        step=lambda ids, text, steps: editor(sd, text, touched(ids), steps, s),
        stepless=lambda ids, text: regularised(text, touched(ids), s.alpha),
        touches=touches,
    )


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


def regularised(text, touched: dict[int, tuple[list[int], int]], alpha: float):
    """Embeddings [B,L,D] after SWR of the rows `touched` (row -> its target tokens, the count of all)."""
    edited = text.clone()
    for row, (positions, count) in touched.items():
        edited[row] = swr(text[row], positions, count, alpha)
    return edited


def editor(sd, text, touched: dict[int, tuple[list[int], int]], steps: int, s):
    """-> edit(i, x, advance), the `step` of an Intervention for prompts [B,L,D], of which the rows `touched`
    name a target.

    Before share `s.begin` of the steps nothing is edited; then SWR is, and until share `s.end` ITO on top.
    """
    if not touched:
        return lambda i, x, advance: text
    rows, text = [*touched], text.float()
    swr_text = regularised(text, touched, s.alpha)
    flags = word_flags(
        [places for places, _ in touched.values()], [n for _, n in touched.values()], text.shape[1]
    )
    erase, retain = (words.to(text.device) for words in flags)
    rates = s.step_size * torch.linspace(1, 0.1, steps).sqrt()
    begin, grid = round(s.begin * steps), ddim_grid(steps)
    end = max(begin, round(s.end * steps)) if s.iterations else begin
    plain = None  # latents whose attention the edited embedding is to share

    def edit(i: int, x, advance):
        nonlocal plain
        if i < begin:
            return text
        if i >= end:
            return swr_text
        if plain is None or not s.reference_trajectory:
            plain = x[rows]
        t, level, edited = (
            grid[steps - 1 - i],
            level_of(sd.unet.config, x.shape[-1], s.map_size),
            swr_text.clone(),
        )
        # gradients are too small for the half precision that images may be drawn in
        with torch.autocast(x.device.type, enabled=False):
            reference = attention_maps(sd.unet, plain, t, text[rows], level)
            look = partial(attention_maps, sd.unet, x[rows], t, level=level)
            edited[rows] = ito(swr_text[rows], look, reference, erase, retain, rates[i].item(), s)
        if s.reference_trajectory:
            plain = advance(plain, text[rows])
        return edited

    return edit
