"""What the images of a data set themselves tell: files cut short, and numbers that do not belong together."""

import io
import os

import numpy as np
from PIL import Image

from evaluation import canvas
from evaluation.core.errors import UserError
from evaluation.data.pictures import read_picture

ENDS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG\r\n\x1a\n": b"IEND"}  # first bytes -> end marker
LIKE_PHOTOS = ("Warm_Love", "Rust", "Pastel", "Cartoon")  # styles that keep light and dark where they are
TAIL = 1024  # where the marker is looked for: some programs write on after it


def damage(file, decode: bool = False) -> str | None:
    """What is wrong with an image, a path or its bytes; None if nothing is."""
    if not isinstance(file, bytes) and not file.is_file():
        return "no file"
    with io.BytesIO(file) if isinstance(file, bytes) else open(file, "rb") as stream:
        head, length = stream.read(16), stream.seek(0, os.SEEK_END)
        stream.seek(max(0, length - TAIL))
        tail = stream.read()
        if not length:
            return "empty"
        ends = [end for start, end in ENDS.items() if head.startswith(start)]
        if not ends:
            return "a web page, not an image" if head.lstrip().startswith(b"<") else "not a JPEG or PNG image"
        if ends[0] not in tail:
            return "truncated (no end marker)"
        if decode:
            try:
                read_picture(stream, file)
            except UserError as error:
                return f"does not decode ({error.__cause__})"
    return None


def check_pairs(there, files_of, problems) -> None:
    """Adds to `problems` if paintings are not of the photos of their numbers: unlike in all of a few styles.

    `there`: the rows that exist; `files_of(rows)` yields their images, as paths or binary files.
    """
    for obj in canvas.OBJECTS:
        photos = [(canvas.PHOTO, obj, number) for number in canvas.NUMBERS]
        styles = [s for s in LIKE_PHOTOS if all((s, *row[1:]) in there for row in photos)][:2]
        if not styles or not all(row in there for row in photos):
            continue
        rows = [(theme, *row[1:]) for theme in (canvas.PHOTO, *styles) for row in photos]
        try:
            looks = np.stack([grey_vector(file) for file in files_of(rows)])
        except Exception:  # a damaged file, listed as such, may end in any way
            continue
        looks = looks.reshape(1 + len(styles), len(photos), -1)
        likeness = looks[1:] @ looks[0].T  # [style, painting, photo]
        own = np.diagonal(likeness, axis1=1, axis2=2)
        if ((own >= likeness.max(2) - 1e-6).mean(1)).max() < 0.4:  # by chance: 0.05
            text = f"{' and '.join(styles)}: {obj}"
            problems["numbers of photos and paintings seem to disagree, look at some"].append(text)
        return


def grey_vector(file) -> np.ndarray:
    """16 x 16 grey levels as a unit vector without mean."""
    with Image.open(file) as image:
        image.draft("L", (64, 64))  # a JPEG is decoded at an eighth of its size
        grey = np.asarray(image.convert("L").resize((16, 16)), np.float32).ravel()
    grey -= grey.mean()
    return grey / max(np.linalg.norm(grey), 1e-6)
