"""What a block of the UNet gives while images are drawn, kept once per base model and block

    .cache/unlearncanvas/activations-KEY/00000.npy        float16 [images, steps, patches, channels] of some

Only the conditional half of guidance. The files are memory-mapped, so that training reads from more than the
memory holds; several processes that want the same share the drawing, and a stopped one goes on.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from diffusion_model_finetuning.core.sd import StableDiffusion, ddim, ddim_grid, starting_noise
from diffusion_model_finetuning.core.shared import shared
from evaluation.answers.claims import agree
from evaluation.core.errors import UserError
from evaluation.core.files import atomic, digest
from machine_unlearning.core import embeddings
from machine_unlearning.core.generated import per_batch

BUFFER = 1 << 18  # patches mixed with each other in training


@contextmanager
def watched(unet, block: str):
    """Within, the list it yields holds what the block gave last: [R,m,h,w]."""
    seen = []

    def keep(module, inputs, output):
        seen[:] = [output[0]]

    handle = unet.get_submodule(block).register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


@torch.no_grad()
def walk(sd: StableDiffusion, prompts: list[str], seeds: list, block: str, steps: int, guidance: float):
    """Draws the prompts by DDIM and yields at each step what the block gives of the conditional half, [B,P,m]
    in float32, P being its h w places."""
    text, null = sd.embed(prompts), sd.embed([""])
    x, grid = starting_noise(sd, seeds), ddim_grid(steps)
    with watched(sd.unet, block) as seen:
        for i in reversed(range(steps)):
            x = ddim(sd.unet, x, text, null, guidance, grid, sd.abar, i)
            yield seen[0][-len(x) :].flatten(2).mT.float()


def whole(path: Path) -> bool:
    """Whether a file of an array is there and not cut short."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        np.load(path, mmap_mode="r")
        return True
    return False


def by_blocks(
    kind: str, made_by: dict, images: int, size: int, image_bytes: int, make: Callable
) -> list[Path]:
    """The files of a folder of the cache that stands for `made_by`, in the order of its images; those missing
    or damaged are made by `make(rows)`, an array of the images `rows`, a range of up to `size`.

    UserError, before the first is made, if the disk cannot hold `image_bytes` of each.
    """
    folder = embeddings.CACHE / f"{kind}-{digest(made_by)}"
    agree(folder, made_by, kind)
    blocks = {start: folder / f"{start:05}.npy" for start in range(0, images, size)}
    missing = sum(min(size, images - start) for start, path in blocks.items() if not whole(path))
    needed, free = missing * image_bytes, shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: the {kind} take {needed / 1e9:.1f} GB more and {free / 1e9:.1f} GB are free; "
            "draw fewer images or steps (images, walk, lookup_images, lookup_walk), or free some space"
        )
    with tqdm(total=missing, desc=kind, unit="image", disable=None) as bar:
        for claim, path in shared(folder, blocks, whole):
            rows = range(images)[int(path.stem) :][:size]
            array = make(rows)
            if claim.held():
                with atomic(path) as temporary:
                    np.save(temporary, array)
            bar.update(len(rows))
    return [*blocks.values()]


def made_by(sd: StableDiffusion, prompts: list[str], s, steps: int) -> dict:
    """All that a block's activations depend on, JSON-like."""
    settings = {name: s[name] for name in ("block", "guidance", "image_seed", "precision")}
    return {"model": sd.fingerprint(), "prompts": prompts, "walk": steps} | settings


def collected(sd: StableDiffusion, prompts: list[str], shape: tuple[int, int], s) -> list[Path]:
    """Files of the activations, float16 [B,T,P,m], of an image for each prompt; `shape` is m and the side."""
    channels, side = shape

    def make(rows):
        seeds = [(s.image_seed, i) for i in rows]
        maps = walk(sd, [prompts[i] for i in rows], seeds, s.block, s.walk, s.guidance)
        return torch.stack([x.half().cpu() for x in maps], 1).numpy()

    image_bytes = 2 * s.walk * side**2 * channels
    about = made_by(sd, prompts, s, s.walk)
    return by_blocks("activations", about, len(prompts), per_batch(sd.size), image_bytes, make)


def read(files: list[Path], numbers: np.ndarray) -> torch.Tensor:
    """[E,P,m] of maps with these ascending numbers; map i is of image i // T at its step i % T."""
    images, steps, *shape = np.load(files[0], mmap_mode="r").shape  # the last file may hold fewer images
    file, row = np.divmod(numbers, images * steps)
    parts = [np.load(files[n], mmap_mode="r").reshape(-1, *shape)[row[file == n]] for n in np.unique(file)]
    return torch.from_numpy(np.concatenate(parts))


class Patches:
    """The activations in `files` as patches for training: `batch` of them at once, `epochs` times.

    Maps are shuffled among all images and steps, then the patches of a buffer of maps among each other. What
    does not fill a batch at a buffer's end waits for the next epoch.
    """

    def __init__(self, files: list[Path], batch: int, epochs: int, seed: int):
        shapes = [np.load(file, mmap_mode="r").shape for file in files]
        self.files, self.epochs, self.seed = files, epochs, seed
        self.maps, self.places = sum(images * steps for images, steps, *_ in shapes), shapes[0][2]
        self.batch = min(batch, self.maps * self.places)
        self.at_once = max(1, -(-max(BUFFER, self.batch) // self.places))  # maps of a buffer

    @property
    def steps(self) -> int:
        parts = torch.arange(self.maps).split(self.at_once)
        return self.epochs * sum(len(part) * self.places // self.batch for part in parts)

    def batches(self, start: int, device) -> Iterator[torch.Tensor]:
        """Yields patches [batch,m], float32, from step `start` on, which changes no later one's."""
        step = 0
        for epoch in range(self.epochs):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            for part in torch.randperm(self.maps, generator=generator).split(self.at_once):
                count = len(part) * self.places // self.batch
                mixed = torch.randperm(len(part) * self.places, generator=generator).split(self.batch)[:count]
                if step + count > start:
                    patches = read(self.files, part.sort().values.numpy()).flatten(0, 1)
                    for rows in mixed[max(0, start - step) :]:
                        yield patches[rows].to(device).float()
                step += count
