"""What training reads: images encoded once, endless shuffled batches, captions in varied wordings."""

import hashlib
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from diffusion_model_finetuning.core.fingerprint import tensor_bytes
from diffusion_model_finetuning.core.shared import cached_once
from evaluation import canvas
from evaluation.core.files import digest
from evaluation.core.pools import loaded
from evaluation.data.images import CanvasImages


def forever(count: int, batch: int, seed: int, start: int = 0):
    """Yields index batches [batch] of `count` items: each item once an epoch, reshuffled, from batch `start`.

    Batch n is a function of (count, batch, seed, n), so a resumed run sees what an uninterrupted one would.
    """
    position = start * batch
    while True:
        epoch, offset = divmod(position, count)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        picked = order[offset : offset + batch]
        while len(picked) < batch:
            epoch += 1
            order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
            picked = torch.cat([picked, order[: batch - len(picked)]])
        yield picked
        position += batch


def cached_moments(
    sd, images: CanvasImages, folder: str | Path, flip: bool = False, batch=64, workers=0
) -> torch.Tensor:
    """VAE moments of every image, float16 [N,2C,h,w] (with `flip`, N mirrored ones follow), computed once.

    They are kept in `folder` under a key of everything that changes them but rounding, which the batch does.
    """
    weights = hashlib.sha256(tensor_bytes(sd.vae)).hexdigest()
    key = digest([images.root, images.size, images.resize, images.rows, flip, weights])

    def encode() -> dict:
        parts, mirrored = [], []
        loader = DataLoader(images, batch, num_workers=workers)
        for rows in tqdm(loaded(loader), "encode", len(loader), disable=None):
            parts.append(sd.moments(rows["image"]).half().cpu())
            if flip:
                mirrored.append(sd.moments(rows["image"].flip(-1)).half().cpu())
        return {"moments": torch.cat(parts + mirrored)}

    return cached_once(Path(folder) / f"moments-{key}.safetensors", encode)["moments"]


class Captions:
    """Prompts of (theme, object) cells in several wordings.

    `wordings` maps a template with {theme} or {object} to its share. Drawing a caption gives an index into
    `texts`, the list of all distinct captions, so that each is tokenised or embedded once.
    """

    def __init__(self, wordings: dict[str, float], rows, photo: str = "Photo"):
        cells = sorted({(theme, obj) for theme, obj, *_ in rows})
        captions = [[canvas.prompt(*cell, template, photo) for template in wordings] for cell in cells]
        self.texts = ["", *sorted({text for wording in captions for text in wording})]
        number = {text: i for i, text in enumerate(self.texts)}
        self.table = torch.tensor([[number[text] for text in wording] for wording in captions])
        self.cell = torch.tensor([cells.index((theme, obj)) for theme, obj, *_ in rows])
        self.shares = torch.tensor(list(wordings.values()), dtype=torch.float)

    def draw(self, rows: torch.Tensor, dropout: float, generator: torch.Generator) -> torch.Tensor:
        """Rows [B] -> caption numbers [B]; number 0, the empty caption, with probability `dropout`."""
        wording = torch.multinomial(self.shares, len(rows), replacement=True, generator=generator)
        kept = torch.rand(len(rows), generator=generator) >= dropout
        return torch.where(kept, self.table[self.cell[rows], wording], 0)
