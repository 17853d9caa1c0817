"""Pictures to what a network takes, and back

Sides that are no multiple of the network's go on with the picture's mirror image; it is cut off afterwards.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from evaluation.core.errors import UserError
from evaluation.core.files import atomic
from evaluation.data.images import to_tensor
from evaluation.data.pictures import read_picture, rgb

SAVED = {  # of kinds of files: half the seconds of Pillow's defaults, a tenth more bytes, the same pixels
    ".png": {"compress_level": 1},
    ".webp": {"lossless": True, "quality": 0, "method": 0},
}
LEAST = 32  # pixels: VGG's five stages need two positions at the last, to mirror a border


def to_image(picture) -> torch.Tensor:
    """A file, a PIL image or a tensor [3,H,W] in [0,1] -> float32 [3,H,W] in [0,1]; raises UserError."""
    if not torch.is_tensor(picture):
        return to_tensor(rgb(picture) if isinstance(picture, Image.Image) else read_picture(picture))
    if picture.ndim != 3 or len(picture) != 3:
        wanted = "expected [3,H,W], red, green and blue in [0,1]"
        raise UserError(f"an image of shape {list(picture.shape)}: {wanted}")
    return picture.float()


def smaller(image: Image.Image, longest: int) -> Image.Image:
    """The picture with no side longer than `longest` pixels."""
    largest = max(image.size)
    sides = [max(1, round(side * min(longest, largest) / largest)) for side in image.size]
    return image.resize(sides, Image.Resampling.BILINEAR)


def pad(image: torch.Tensor, multiple: int) -> torch.Tensor:
    """[3,H,W] -> both sides continued by mirroring, to the next multiple and at least to `LEAST` pixels."""
    more = [(0, -(-max(side, LEAST) // multiple) * multiple - side) for side in image.shape[1:]]
    return torch.from_numpy(np.pad(image.numpy(force=True), [(0, 0), *more], mode="reflect"))


def to_bytes(images: torch.Tensor, truncate: bool = False) -> np.ndarray:
    """[...,3,H,W], clipped to [0,1] -> uint8 [...,H,W,3], rounded, or cut off if `truncate`."""
    levels = images.float().clamp(0, 1) * 255 + (0 if truncate else 0.5)
    return levels.to(torch.uint8).movedim(-3, -1).cpu().numpy()


def save(pixels: np.ndarray, path: str | Path) -> None:
    """uint8 [H,W,3] -> a file of the kind its name says, written whole or not at all."""
    with atomic(path) as temporary:
        Image.fromarray(pixels).save(temporary, **SAVED.get(Path(path).suffix, {}))


def crops(images: torch.Tensor, size: int, flip: bool, chance: torch.Generator) -> torch.Tensor:
    """uint8 [B,3,H,W] -> [B,3,size,size] in [0,1]: of each a random square, half mirrored if `flip`."""
    high, wide = (images.shape[axis] - size for axis in (2, 3))
    made = []
    for image in images:
        top, left = (int(torch.randint(room + 1, (), generator=chance)) for room in (high, wide))
        square = image[:, top : top + size, left : left + size]
        made.append(square.flip(2) if flip and torch.rand((), generator=chance) < 0.5 else square)
    return torch.stack(made).float().div(255)
