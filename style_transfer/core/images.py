"""Pictures from anywhere to what a network takes, and back

Any picture becomes RGB as a viewer shows it: upright, transparency over white, 16 bits and CMYK converted.
Sides that are no multiple of the network's go on with the picture's mirror image; it is cut off afterwards.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from evaluation.core.errors import UserError
from evaluation.core.files import atomic

LEAST = 32  # pixels: VGG's five stages need two positions at the last, to mirror a border
DAMAGED = (OSError, EOFError, SyntaxError, ValueError, TypeError, KeyError, struct.error, zlib.error)


def read(path: str | Path, longest: int | None = None) -> Image.Image:
    """RGB, upright, no side longer than `longest` pixels. Raises UserError for what cannot be read."""
    try:
        with Image.open(path) as image:
            image.load()
            return _smaller(_rgb(ImageOps.exif_transpose(image), path), longest)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (Image.DecompressionBombError, MemoryError) as error:
        raise UserError(f"{path}: has too many pixels to open; save it smaller") from error
    except DAMAGED as error:
        raise UserError(
            f"{path}: not a readable picture ({error}); save it again as PNG or JPEG, or make it anew"
        ) from error


def _rgb(image: Image.Image, path) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_numbers(np.asarray(image), path)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _from_numbers(grey: np.ndarray, path) -> Image.Image:
    """16-bit grey values, whatever they are stored in, scaled to 8 bits."""
    if grey.dtype.kind == "f" or grey.min() < 0 or grey.max() > 65535:
        raise UserError(f"{path}: its values are neither 8 nor 16 bits; save it as an 8-bit picture")
    return Image.fromarray((grey / 257).round().astype(np.uint8)).convert("RGB")


def _smaller(image: Image.Image, longest: int | None) -> Image.Image:
    if longest is None or max(image.size) <= longest:
        return image
    sides = (max(1, round(side * longest / max(image.size))) for side in image.size)
    return image.resize(tuple(sides), Image.Resampling.BILINEAR)


def pad(image: torch.Tensor, multiple: int) -> torch.Tensor:
    """[3,H,W] -> both sides continued by mirroring, to the next multiple and at least to `LEAST` pixels."""
    for axis in (1, 2):
        side = image.shape[axis]
        wanted = -(-max(side, LEAST) // multiple) * multiple
        place = torch.arange(wanted) % max(1, 2 * side - 2)  # forth and back, the ends once
        image = image.index_select(axis, torch.minimum(place, (2 * side - 2 - place).clamp(min=0)))
    return image


def to_bytes(image: torch.Tensor, truncate: bool = False) -> np.ndarray:
    """[3,H,W], clipped to [0,1] -> uint8 [H,W,3], rounded, or cut off if `truncate`."""
    levels = image.clamp(0, 1) * 255 + (0 if truncate else 0.5)
    return levels.permute(1, 2, 0).to(torch.uint8).cpu().numpy()


def save(pixels: np.ndarray, path: str | Path) -> None:
    """uint8 [H,W,3] -> a file of the kind its name says, written whole or not at all."""
    with atomic(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def in_folder(path: str | Path, flag: str) -> list[Path]:
    """A picture, or those in a folder by name; files of other kinds are passed over. Raises UserError."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{flag} {path}: no such file or folder")
    if not path.is_dir():
        return [path]
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in known and not p.name.startswith("."))
    if not found:
        raise UserError(f"{flag} {path}: no pictures in this folder")
    return found


def crops(images: torch.Tensor, size: int, flip: bool, chance: torch.Generator) -> torch.Tensor:
    """uint8 [B,3,H,W] -> [B,3,size,size] in [0,1]: of each a random square, half mirrored if `flip`."""
    high, wide = (images.shape[axis] - size for axis in (2, 3))
    made = []
    for image in images:
        top, left = (int(torch.randint(room + 1, (), generator=chance)) for room in (high, wide))
        square = image[:, top : top + size, left : left + size]
        made.append(square.flip(2) if flip and torch.rand((), generator=chance) < 0.5 else square)
    return torch.stack(made).float().div(255)
