"""The data set as rows: style, object, index, image, and the photo of the same object and index."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFile, UnidentifiedImageError

from evaluation import canvas, mini_canvas
from evaluation.errors import UserError

ImageFile.LOAD_TRUNCATED_IMAGES = False  # a truncated image is an error, never half grey


def open_image(path: str | Path, size: int | None = None) -> Image.Image:
    """An RGB image, cropped to its central square and resized (bilinear, antialiased) if `size` is given."""
    try:
        image = Image.open(path).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise UserError(
            f"{path}: not a readable image ({error}); remove it and make or download it again"
        ) from error
    return image if size is None else square(image, size)


def square(image: Image.Image, size: int) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # crop first: resize(box=...) would blend in pixels from outside the box
    image = image.crop((left, top, left + side, top + side))
    return image.resize((size, size), Image.Resampling.BILINEAR)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """PIL RGB -> float32 [3,H,W] in [0,1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)


class CanvasImages(torch.utils.data.Dataset):
    """Images of the data set.

    `root` is a folder `{theme}/{object}/{index}.jpg`, or `mini`, `mini:SEED`: the miniature, drawn anew.
    `cells` lists the (theme, object) pairs wanted and `indices` the images; rows run over both in order.
    An item is a dict: `theme`, `object`, `index`, and `image`, float32 [3,size,size] in [0,1].
    """

    def __init__(self, root: str | Path, cells, indices=canvas.TRAIN, size: int = 512):
        self.root, self.size = str(root), size
        self.rows = [(theme, obj, index) for theme, obj in cells for index in indices]
        if not self.rows:
            raise UserError(f"--data {root}: no images asked for")
        if not self.drawn:
            absent = [path for path in map(self.path, self.rows) if not path.exists()]
            if absent:
                raise UserError(
                    f"--data {root}: {len(absent)} of {len(self.rows)} images are missing, "
                    f"first {absent[0]}; "
                    "expected {style}/{object}/{number}.jpg, or 'mini' for the miniature"
                )

    @property
    def drawn(self) -> bool:
        return self.root.partition(":")[0] == "mini"

    def path(self, row) -> Path:
        return canvas.image_path(self.root, *row)

    def picture(self, row) -> Image.Image:
        """The PIL image of a row (theme, object, index)."""
        if self.drawn:
            return square(mini_canvas.image(*row, seed=int(self.root.partition(":")[2] or 0)), self.size)
        return open_image(self.path(row), self.size)

    def photo(self, i: int) -> torch.Tensor:
        """The photo with the object and index of row `i`, float32 [3,size,size] in [0,1]."""
        _, obj, index = self.rows[i]
        return to_tensor(self.picture((canvas.PHOTO, obj, index)))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict:
        theme, obj, index = self.rows[i]
        return {"theme": theme, "object": obj, "index": index, "image": to_tensor(self.picture(self.rows[i]))}
