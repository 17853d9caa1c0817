"""What is trained on: photos and paintings 1 to 18 of the data set, or any two folders of pictures

A style that is held out is not looked at. Of folders, all pictures count, also in folders within; one held
out is left out with all that is in it.
"""

import itertools
from pathlib import Path

from evaluation import canvas
from evaluation.core.errors import UserError
from evaluation.data.images import CanvasImages
from evaluation.data.pictures import read_picture
from evaluation.judges.training_data import Labelled, batches, in_memory, order
from style_transfer.core.cli import pictures

GIGABYTES = 4  # of decoded images, each of the two, that are kept in memory


class Pictures:
    """Files as `Labelled` takes the data set's; of themes and objects that mean nothing."""

    def __init__(self, paths: list[Path]):
        self.rows = [("", "", path) for path in paths]

    def original(self, row):
        return read_picture(row[2])


def streams(args, start: int) -> list:
    """Of contents and of styles: endless uint8 batches [B,3,load,load], from batch `start` on."""
    batch, size, out = args.settings.batch, args.settings.load, args.hold_out or []
    if args.data:
        styles = [style for style in args.world.styles if style not in out]
        objects, sources, seeds = list(args.world.objects), [], (1, len(styles))
        for themes in ([canvas.PHOTO], styles):
            images = CanvasImages(args.data, itertools.product(themes, objects), canvas.TRAIN, size)
            sources.append(Labelled(images, themes, objects, size))
    else:
        out = [Path(args.styles, name) for name in out]
        photos = pictures(args.contents, "--contents", True)
        paintings = pictures(args.styles, "--styles", True)
        left = [path for path in paintings if not any(folder in path.parents for folder in out)]
        sources, seeds = [Labelled(Pictures(paths), [""], [""], size) for paths in (photos, left)], (1, 2)
    for kind, data in zip(("contents", "styles"), sources):
        if len(data) < batch:
            raise UserError(f"batch={batch}: there are {len(data)} {kind} to train on")

    def endless(data, seed: int):
        numbers, data = order(len(data), batch, seed, start), in_memory(data, GIGABYTES, args.workers)
        return (images for images, _ in batches(data, numbers, args.workers))

    return [endless(data, args.seed + seed) for data, seed in zip(sources, seeds)]
