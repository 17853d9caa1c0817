"""What is trained on: photos and paintings 1 to 18 of the data set, or any two folders of pictures

A style that is held out is not looked at. Of folders, all pictures count, also in folders within; one held
out is left out with all that is in it.
"""

import itertools
from pathlib import Path

import torch
from torch.utils.data import Dataset

from evaluation import canvas
from evaluation.core.errors import UserError
from evaluation.data.images import CanvasImages
from evaluation.data.pictures import read_picture
from evaluation.judges.classifier import preprocess
from evaluation.judges.training_data import Labelled, batches, in_memory, order
from style_transfer.core.cli import pictures

GIGABYTES = 4  # of decoded images, each of the two, that are kept in memory


class Pictures(Dataset):
    """Files as uint8 [3,size,size] and a label that means nothing, as `Labelled` has one."""

    def __init__(self, paths: list[Path], size: int):
        self.paths, self.size, self.labels = paths, size, torch.zeros(len(paths), 2)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int):
        return preprocess(read_picture(self.paths[i]), self.size), self.labels[i]


def streams(args, start: int) -> list:
    """Of contents and of styles: endless uint8 batches [B,3,load,load], from batch `start` on."""
    batch, out = args.settings.batch, args.hold_out or []
    if args.data:
        styles = [style for style in args.world.styles if style not in out]
        sources, seeds = [_of_canvas(args, themes) for themes in ([canvas.PHOTO], styles)], (1, len(styles))
    else:
        out = [Path(args.styles, name) for name in out]
        photos, paintings = (
            pictures(args.contents, "--contents", True),
            pictures(args.styles, "--styles", True),
        )
        left = [path for path in paintings if not any(folder in path.parents for folder in out)]
        sources, seeds = [Pictures(paths, args.settings.load) for paths in (photos, left)], (1, 2)
    for kind, data in zip(("contents", "styles"), sources):
        if len(data) < batch:
            raise UserError(f"batch={batch}: there are {len(data)} {kind} to train on")
    return [
        _endless(data, batch, args.seed + seed, start, args.workers) for data, seed in zip(sources, seeds)
    ]


def _of_canvas(args, themes: list[str]) -> Labelled:
    objects, size = list(args.world.objects), args.settings.load
    images = CanvasImages(args.data, itertools.product(themes, objects), canvas.TRAIN, size)
    return Labelled(images, themes, objects, size)


def _endless(data: Labelled | Pictures, batch: int, seed: int, start: int, workers: int):
    numbers = order(len(data), batch, seed, start)
    return (images for images, _ in batches(in_memory(data, GIGABYTES, workers), numbers, workers))
