"""Pictures from anywhere as a viewer shows them: upright, transparency on white, every mode made 8-bit RGB"""

import contextlib
import io
import math

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from evaluation.core.errors import UserError

ImageFile.LOAD_TRUNCATED_IMAGES = False  # a truncated image is an error, never half grey


def read_picture(source, name=None) -> Image.Image:
    """The RGB picture in a path, in bytes or in a binary file; `name` is what an error calls it.

    Raises UserError for whatever cannot be read, and for more pixels than PIL holds to be safe.
    """
    name = source if name is None else name
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            image.load()
            with contextlib.suppress(Exception):  # broken EXIF data, beside sound pixels
                ImageOps.exif_transpose(image, in_place=True)
            return rgb(image)
    except FileNotFoundError as error:
        raise UserError(f"{name}: no such file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise UserError(f"{name}: has too many pixels to open; save it smaller") from error
    except Exception as error:  # a decoder may end in any way
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "of no kind that is known" if unknown else " ".join(str(error).split())
        raise UserError(
            f"{name}: not a readable image ({reason}); make or download it again, or save it as PNG or JPEG"
        ) from error


def rgb(image: Image.Image) -> Image.Image:
    """ValueError for numbers that are neither of 8 nor of 16 bits, nor in [0,1]."""
    if image.mode == "F" or image.mode.startswith("I"):
        numbers = np.asarray(image)
        largest = 1 if numbers.dtype.kind == "f" else 65535
        if not (numbers.min() >= 0 and numbers.max() <= largest):
            raise ValueError(f"its values are not within 0 and {largest}")
        return Image.fromarray((numbers * (255 / largest)).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def square(image: Image.Image, size: int, resample=Image.Resampling.BILINEAR) -> Image.Image:
    """The central square at `size` pixels, antialiased."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # crop first: resize(box=...) would blend in pixels from outside the box
    image = image.crop((left, top, left + side, top + side))
    return image.resize((size, size), resample)


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """`side` pixels wide and high."""
    return image.resize((side, side), Image.Resampling.LANCZOS)
