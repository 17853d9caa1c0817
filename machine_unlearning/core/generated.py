"""Images the model itself makes of prompts: what CA and SA train on in place of photographs.

They lie as PNG files in `.cache/unlearncanvas/images-KEY/`, where KEY stands for model, prompts, sampler and
seed. Several processes that want the same images share the drawing of them, block by block; a run that is
stopped goes on with the first image missing, and the next run finds them all.
"""

from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from diffusion_model_finetuning.core.data import cached_moments
from diffusion_model_finetuning.core.sd import StableDiffusion, sample
from diffusion_model_finetuning.core.shared import shared
from evaluation.answers.claims import agree
from evaluation.core.files import atomic, digest
from evaluation.data.images import to_tensor
from evaluation.data.pictures import read_picture, square
from machine_unlearning.core import embeddings


def per_batch(size: int) -> int:
    """How many images of `size` pixels are drawn or encoded at once: 4 of 512 pixels, 32 of 64."""
    return max(1, 4 * 512 // size)


class Generated:
    """The images in a folder, one for each of the prompts `rows`; an item's `image` is float32 [3,size,size]
    in [0,1], brought to that size as `CanvasImages` does."""

    def __init__(self, folder: Path, prompts: list[str], size: int, resize: str):
        self.root, self.rows, self.size, self.resize = str(folder), prompts, size, resize

    def path(self, i: int) -> Path:
        return Path(self.root) / f"{i:05}.png"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict:
        image = square(read_picture(self.path(i)), self.size, Image.Resampling[self.resize.upper()])
        return {"image": to_tensor(image)}


def draw(sd: StableDiffusion, prompts: list[str], s) -> Generated:
    """Draws what is missing, at the model's own size, image i from its own noise, in fixed blocks.

    Of the settings `s`, `walk`, `guidance`, `image_seed` and `precision` are the sampler's; `size` and
    `resize` say how the images are then read.
    """
    sampler = {key: s[key] for key in ("walk", "guidance", "image_seed", "precision")}
    made_by = {"model": sd.fingerprint(), **sampler, "prompts": prompts}
    images = Generated(embeddings.CACHE / f"images-{digest(made_by)}", prompts, s.size, s.resize)
    agree(images.root, made_by, "images")
    numbers, size = range(len(prompts)), per_batch(sd.size)
    blocks = {start: numbers[start : start + size] for start in numbers[::size]}

    def drawn(block):
        return all(images.path(i).exists() for i in block)

    with tqdm(total=len(prompts), desc="draw images", unit="image", disable=None) as bar:
        bar.update(sum(len(block) for block in blocks.values() if drawn(block)))
        for claim, block in shared(images.root, blocks, drawn):
            seeds, texts = [(s.image_seed, i) for i in block], [prompts[i] for i in block]
            made = sample(sd, texts, seeds, s.walk, s.guidance, precision=s.precision)
            if claim.held():
                for i, pixels in zip(block, made, strict=True):
                    with atomic(images.path(i)) as temporary:
                        Image.fromarray(pixels).save(temporary)
            bar.update(len(block))
    return images


def generated_moments(sd: StableDiffusion, prompts: list[str], s, flip: bool = False) -> torch.Tensor:
    """VAE moments, float16 [N,2C,h,w] at `s.size` pixels, of an image for each prompt; see `draw`.

    With `flip`, N mirrored ones follow. Images are drawn and encoded once per model, prompts and settings.
    """
    images = draw(sd, prompts, s)
    return cached_moments(sd, images, embeddings.CACHE, flip, per_batch(s.size)).to(sd.device)
