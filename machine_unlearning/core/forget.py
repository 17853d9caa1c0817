"""Images to forget and images to keep, as two endless streams of noised batches.

Every cell (theme, object) to forget has a substitute, what its images should be taken for: the photographs of
the same object for a style or a pair, the next object in the same theme for an object. Images and prompts are
encoded once, before the first batch.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from diffusion_model_finetuning.core.data import cached_moments, forever
from diffusion_model_finetuning.core.sd import StableDiffusion, draw_noise, eps
from evaluation import canvas
from evaluation.canvas import Target
from evaluation.core.environment import to_device
from evaluation.data.images import CanvasImages
from evaluation.protocol import Protocol
from machine_unlearning.core import concepts, embeddings
from machine_unlearning.core.concepts import Cell


class Batch(NamedTuple):
    """Images at random noise levels, with their prompts."""

    x: torch.Tensor  # noised latents [B,C,h,w]
    t: torch.Tensor  # timesteps [B]
    noise: torch.Tensor  # what was mixed in [B,C,h,w]
    text: torch.Tensor  # prompts [B,L,D]
    pseudo: torch.Tensor  # prompts of the substitutes [B,L,D]; the prompts again for images to keep


def denoising_loss(unet, batch: Batch) -> torch.Tensor:
    """SD's training loss: mean squared error of the predicted noise."""
    return F.mse_loss(eps(unet, batch.x, batch.t, batch.text), batch.noise)


def relabelling_loss(unet, batch: Batch) -> torch.Tensor:
    """mean (eps(x,t,c) - sg eps(x,t,c_pseudo))^2: a prompt should give what its substitute gives now."""
    with torch.no_grad():
        wanted = eps(unet, batch.x, batch.t, batch.pseudo)
    return F.mse_loss(eps(unet, batch.x, batch.t, batch.text), wanted)


def balanced_cells(world: Protocol, targets: list[Target], forgotten: list[Target]) -> list[Cell]:
    """Cells that show none of `forgotten`: of a pair's style, of its object, and of neither, as many each.
    Without a pair among the targets, all there are."""
    groups: dict[tuple, list[Cell]] = {}
    for cell in concepts.kept_cells(world, forgotten):
        shared = any(t.style == cell[0] for t in targets), any(t.object == cell[1] for t in targets)
        groups.setdefault(shared, []).append(cell)
    count = min(map(len, groups.values()))
    return [cell for group in groups.values() for cell in group[:: len(group) // count][:count]]


def stream(sd: StableDiffusion, args, generator, cells: list[Cell], substitutes: list[Cell], count: int):
    """Endless Batches of the first `count` images of `cells`, each image once an epoch, in random order.

    Streams of equally many images have the same order. Settings: batch, size, resize, photo, text_drop,
    first_batch.
    """
    s = args.settings
    images = CanvasImages(args.data, cells, canvas.TRAIN[:count], s.size, s.resize)
    if s.first_batch:
        images.rows = images.rows[: s.batch]
    cell_of = torch.tensor([cells.index(row[:2]) for row in images.rows])
    moments = cached_moments(sd, images, embeddings.CACHE, batch=max(1, 2048 // s.size)).to(sd.device)
    wordings = [
        [canvas.prompt(*cell, args.world.template, s.photo) for cell in side] for side in (cells, substitutes)
    ]
    prompts = ["", *sorted({*wordings[0], *wordings[1]})]
    text, pseudo = torch.tensor([[prompts.index(prompt) for prompt in side] for side in wordings])
    embedded = sd.embed(prompts)

    def dropped(numbers):
        """Numbers [B] of prompts, each with probability `text_drop` that of the empty prompt."""
        return torch.where(torch.rand(len(numbers), generator=generator) < s.text_drop, 0, numbers)

    def batches():
        for rows in forever(len(images), s.batch, args.seed):
            latents = sd.sample_moments(moments[to_device(rows, sd.device)], generator)
            t, noise = (to_device(drawn, sd.device) for drawn in draw_noise(sd, latents, generator))
            prompt_rows = (dropped(numbers[cell_of[rows]]) for numbers in (text, pseudo))
            texts = (embedded[to_device(numbers, sd.device)] for numbers in prompt_rows)
            yield Batch(sd.add_noise(latents, noise, t), t, noise, *texts)

    return batches()


def streams(sd: StableDiffusion, args, generator: torch.Generator):
    """-> endless Batches to forget, and Batches to keep.

    Images to keep are those of the substitutes, pair by pair with the images to forget; with `retain_all`,
    those of all kept cells (for a pair: balanced), in an order of their own. Neither shows a target, or what
    an earlier run forgot. Settings: `images` of a cell to
    forget, `retain_images` of a cell to keep, and those of `stream`.
    """
    s, world = args.settings, args.world
    forget = concepts.forget_cells(world, args.targets)
    substitutes = [concepts.substitute(world, args.forgotten, *cell) for cell in forget]
    retain = balanced_cells(world, args.targets, args.forgotten) if s.retain_all else substitutes
    return (
        stream(sd, args, generator, forget, substitutes, s.images),
        stream(sd, args, generator, retain, retain, s.retain_images),
    )
