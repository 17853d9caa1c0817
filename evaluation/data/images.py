"""The data set as rows: style, object, index, image, and the photo of the same object and index."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from evaluation import canvas
from evaluation.core.errors import UserError
from evaluation.data import parquet
from evaluation.data.folder import images_in, prepared_size
from evaluation.data.pictures import read_picture, square
from evaluation.mini import dataset as mini


def to_tensor(image: Image.Image) -> torch.Tensor:
    """PIL RGB -> float32 [3,H,W] in [0,1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)


class CanvasImages(torch.utils.data.Dataset):
    """Images of the data set.

    `root` is a folder `{theme}/{object}/{index}.jpg`, a folder of the published parquet shards, or `mini`,
    `mini:SEED`: the miniature, drawn anew. `cells` lists the (theme, object) pairs wanted and `indices` the
    images; rows run over both in order, whatever the source. Train on `canvas.TRAIN`, test on `canvas.TEST`.
    `resize` to `size` pixels is bilinear or bicubic; copies made by `evaluation.prepare` were resized before.
    An item is a dict: `theme`, `object`, `index`, and `image`, float32 [3,size,size] in [0,1].

    Images are turned upright where a file says how. The published training did not look at that; its JPEGs
    carry no orientation as far as is known, so both see the same pixels.
    """

    def __init__(self, root: str | Path, cells, indices=canvas.TRAIN, size: int = 512, resize="bilinear"):
        self.root, self.size, self.resize = str(root), size, resize
        self.seed = mini.drawn_seed(root)
        self.drawn = self.seed is not None
        self.rows = [(theme, obj, index) for theme, obj in cells for index in indices]
        if not self.rows:
            raise UserError(f"--data {root}: no images asked for")
        files = [] if self.drawn else parquet.shard_files(root)
        self.shards = parquet.Shards(files) if files else None
        self.prepared = prepared_size(root, size)
        self.numbers = {}  # (theme, object) -> images by number
        if absent := [row for row in self.rows if not self.has(row)]:
            raise UserError(
                f"--data {root}: {len(absent)} of {len(self.rows)} images are missing, first "
                f"{self.path(absent[0])}; expected {{style}}/{{object}}/{{number}}.jpg, or "
                f"'mini' for the miniature; see python -m evaluation.check {root}"
            )

    @property
    def files(self) -> list[Path]:
        """The files that the rows are read from, unless they are drawn."""
        return self.shards.files if self.shards else list(map(self.path, self.rows))

    def path(self, row) -> Path:
        """Where a row lies in a folder, or would be expected."""
        cell = row[:2]
        if cell not in self.numbers:
            self.numbers[cell] = images_in(Path(self.root, *cell))
        return self.numbers[cell].get(row[2]) or canvas.image_path(self.root, *row)

    def file(self, row) -> Path | bytes:
        """The file of a row that is not drawn, or the bytes of it that a shard holds."""
        return self.shards.open(row).read() if self.shards else self.path(row)

    def has(self, row) -> bool:
        if self.shards:
            return row in self.shards.place
        return self.drawn or self.path(row).exists()

    def original(self, row) -> Image.Image:
        """The PIL RGB image of a row (theme, object, index) in its own size."""
        if self.drawn:
            return mini.image(*row, seed=self.seed)
        return read_picture(self.file(row), self.path(row))

    def picture(self, row) -> Image.Image:
        """The same, cropped to its central square and resized."""
        return square(self.original(row), self.size, Image.Resampling[self.resize.upper()])

    def photo(self, i: int) -> torch.Tensor:
        """The photo with the object and index of row `i`, float32 [3,size,size] in [0,1]."""
        _, obj, index = self.rows[i]
        return to_tensor(self.picture((canvas.PHOTO, obj, index)))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict:
        theme, obj, index = self.rows[i]
        return {"theme": theme, "object": obj, "index": index, "image": to_tensor(self.picture(self.rows[i]))}
