"""Batches of the CompVis trainer: number n is a function of (seed, n), drawn for all processes together

    latents, noise [B,C,h,w]    a posterior draw, scaled, and the noise to add
    t [B]                       timesteps
    caption                     B texts, some of them dropped: ""
    photo [B,C,h,w]             of an edit: the posterior's mode, unscaled, some dropped: 0

So a resumed run goes on where the interrupted one was, and N processes train what one with N times the batch
does. Held-out images, numbers 19 and 20, are drawn without mirroring and dropout, the same ones every time.
"""

from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from diffusion_model_finetuning.compvis.config import instantiate
from diffusion_model_finetuning.core import ip2p, training
from diffusion_model_finetuning.core.data import Captions, cached_moments, forever
from diffusion_model_finetuning.core.sd import draw_noise
from diffusion_model_finetuning.train_ip2p import Pairs
from evaluation import canvas
from evaluation.data.images import CanvasImages


class Captioned:
    """Images and their captions: `captions` maps a wording to its share. Without the photos, if not `photos`.

    `moments` [N or 2N,2C,h,w] are those of the N `rows`; the second half, if any, is mirrored.
    """

    def __init__(self, sd, rows, moments, captions: dict, photos: bool):
        self.sd, self.moments, self.captions = sd, moments, Captions(captions, rows)
        self.images = torch.tensor([i for i, row in enumerate(rows) if photos or row[0] != canvas.PHOTO])
        self.mirrored = len(rows)  # added to an image's number, gives its mirror image's
        self.count = len(self.images) * (len(moments) // len(rows))

    def draw(self, items, dropout: float, generator) -> dict:
        """Items [B] below `count` -> a batch, noise and timesteps apart."""
        image, mirrored = self.images[items % len(self.images)], items // len(self.images) * self.mirrored
        latents = self.sd.sample_moments(self.moments[image + mirrored], generator)
        drawn = self.captions.draw(image, dropout, generator)
        return {"latents": latents, "caption": [self.captions.texts[i] for i in drawn]}


class Edits:
    """Stylised images, their photos, mirrored together, and the `instruction`. Else as `Captioned`."""

    def __init__(self, sd, rows, moments, instruction: str):
        self.sd, self.moments, self.pairs = sd, moments, Pairs(rows)
        self.texts = [ip2p.instruction(style, instruction) for style in self.pairs.styles]
        self.mirrored = len(rows)
        self.count = len(self.pairs.image) * (len(moments) // len(rows))

    def draw(self, items, dropout: float, generator) -> dict:
        pairs = self.pairs
        pair, mirrored = items % len(pairs.image), items // len(pairs.image) * self.mirrored
        latents = self.sd.sample_moments(self.moments[pairs.image[pair] + mirrored], generator)
        photo = ip2p.photo_latents(self.moments[pairs.photo[pair] + mirrored])
        no_text, no_photo = ip2p.dropped(torch.rand(len(items), generator=generator), dropout)
        photo[no_photo] = 0
        said = [self.texts[style] for style in pairs.style[pair]]
        caption = ["" if dropped else text for text, dropped in zip(said, no_text)]
        return {"latents": latents, "caption": caption, "photo": photo}


class Batches:
    """What `make()` yields, of which Lightning is told the number; those of an earlier run count as well."""

    def __init__(self, number: int, make):
        self.number, self.make = number, make

    def __len__(self) -> int:
        return self.number

    def __iter__(self):
        return self.make()


class CanvasData(pl.LightningDataModule):
    """`batch_size` is that of one process; `examples` names `Captioned` or `Edits` and their settings."""

    def __init__(
        self, root, size, per_object, batch_size, examples: dict, dropout, flip=True, seed=0, workers=0
    ):
        super().__init__()
        self.root, self.size, self.per_object, self.workers = root, size, per_object, workers
        self.batch_size, self.flip, self.dropout, self.seed = batch_size, flip, dropout, seed
        self.kind = OmegaConf.create(examples)

    def prepare_data(self) -> None:
        """Encodes the images, in one process while the others wait."""
        self.setup("fit")

    def setup(self, stage: str) -> None:
        model = self.trainer.lightning_module.to(self.trainer.strategy.root_device)
        self.sd = model.sd
        held_out = CanvasImages(self.root, training.cells_of(self.root), canvas.TEST, self.size)
        self.held_out = self._examples(held_out, False)
        self.train = self._examples(training.images(self.root, self.per_object, self.size), self.flip)

    def _examples(self, images: CanvasImages, flip: bool):
        folder = Path(self.trainer.default_root_dir)
        moments = cached_moments(self.sd, images, folder, flip, workers=self.workers)
        return instantiate(self.kind, "data.params.examples", sd=self.sd, rows=images.rows, moments=moments)

    def batch(self, examples, items: torch.Tensor, dropout: float, generator: torch.Generator) -> dict:
        """This process's part of the batch of these items [B]."""
        batch = examples.draw(items, dropout, generator)
        batch["t"], batch["noise"] = draw_noise(self.sd, batch["latents"], generator)
        share = len(items) // self.trainer.world_size
        mine = slice(self.trainer.global_rank * share, (self.trainer.global_rank + 1) * share)
        return {name: values[mine] for name, values in batch.items()}

    def train_dataloader(self) -> Batches:
        accumulate, size = self.trainer.accumulate_grad_batches, self.batch_size * self.trainer.world_size
        start, end = (step * accumulate for step in (self.trainer.global_step, self.trainer.max_steps))

        def batches():
            stream = forever(self.train.count, size, self.seed, start)
            for n, items in zip(range(start, end), stream):
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + n)
                yield self.batch(self.train, items, self.dropout, generator)

        return Batches(end, batches)

    def val_dataloader(self) -> Batches:
        world = self.trainer.world_size
        items = torch.arange(self.held_out.count // world * world)  # as many for every process
        parts = items.split(self.batch_size * world)

        def batches():
            generator = torch.Generator().manual_seed(self.seed)
            for part in parts:
                yield self.batch(self.held_out, part, 0.0, generator)

        return Batches(len(parts), batches)
