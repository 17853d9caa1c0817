"""The miniature dataset: ten objects, photographed and painted in ten styles, drawn by code

    {root}/{theme}/{object}/{1..n}.jpg      a theme is a style or Seed_Images, the photographs

Image n of a style repaints photograph n of the same object. Every image has its own random stream, named by
(seed, theme, object, n), so it is the same alone, in a batch, resumed, or in another process. Four more, the
`NEAR_STYLES`, each resemble one of the ten: protocol `mini-near` has them, too. Two, the `UNUSED_STYLES`, are
drawn for whoever names them; no training, judge or protocol of unlearning does.
"""

import hashlib
import os
from itertools import product

import numpy as np
from PIL import Image
from tqdm import tqdm

from evaluation.canvas import PHOTO, image_path
from evaluation.core.errors import UserError
from evaluation.core.files import atomic
from evaluation.core.pools import processes
from evaluation.mini.objects import DRAWINGS, SIZE, draw
from evaluation.mini.styles import NEAR, OPERATORS, UNUSED, stylise

STYLES = sorted(OPERATORS)
NEAR_STYLES = sorted(NEAR)
UNUSED_STYLES = sorted(UNUSED)
OBJECTS = sorted(DRAWINGS)
THEMES = sorted([*STYLES, PHOTO])
NEAR_THEMES = sorted([*THEMES, *NEAR_STYLES])


def themes_beside(present):
    """The themes of a folder of the miniature that has those `present`: the near styles go together."""
    return THEMES if {*present}.isdisjoint(NEAR_STYLES) else NEAR_THEMES


def stream(*key):
    """A random generator that depends on nothing but the key."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def image(theme, obj, index, seed=0):
    """One image, 64 x 64 RGB."""
    photo = draw(obj, stream(seed, obj, index))
    return photo if theme == PHOTO else stylise(photo, theme, stream(seed, theme, obj, index))


def drawn_seed(data):
    """The seed of `mini` or `mini:SEED`, None for any other source. Raises UserError if it is no number."""
    world, colon, seed = str(data).partition(":")
    if world != "mini":
        return None
    if colon and not (seed.isdecimal() and len(seed) < 10):
        raise UserError(f"--data {data}: expected mini, or mini:SEED with a whole number, such as mini:1")
    return int(seed or 0)


def check_drawn(data, protocol):
    """UserError if `data` is `mini` and a protocol wants real images that the miniature cannot draw."""
    if drawn_seed(data) is None:
        return
    unknown = [name for name in (*protocol.themes, *protocol.objects) if name not in (*NEAR_THEMES, *OBJECTS)]
    if unknown:
        lack = f"the miniature has no {unknown[0]}, which protocol {protocol.name} compares with real images"
    elif protocol.size > SIZE:
        sizes = f"drawings of {SIZE} pixels are no real images for the {protocol.size} pixels"
        lack = f"{sizes} of protocol {protocol.name}"
    else:
        return
    raise UserError(f"--data {data}: {lack}; name the folder of the data set")


def write_cell(root, theme, obj, per_object, seed):
    """Writes the missing images of one theme and object; a file that exists is complete."""
    for index in range(1, per_object + 1):
        path = image_path(root, theme, obj, index)
        if not path.exists():
            with atomic(path) as temporary:
                image(theme, obj, index, seed).save(temporary, quality=95, subsampling=0)


def write(root, per_object=20, seed=0, themes=THEMES):
    """Writes the dataset under `root`, in several processes."""
    with processes(min(8, os.cpu_count() or 1)) as pool:
        jobs = [pool.submit(write_cell, root, *cell, per_object, seed) for cell in product(themes, OBJECTS)]
        for job in tqdm(jobs, desc="drawing", disable=None):
            job.result()


def sheet(index=1, seed=0, scale=1, themes=THEMES):
    """A contact sheet: one row per object, the photograph first, then every style."""
    columns = sorted(themes, key=lambda theme: theme != PHOTO)
    page = Image.new("RGB", (SIZE * len(columns), SIZE * len(OBJECTS)))
    for (row, obj), (column, theme) in product(enumerate(OBJECTS), enumerate(columns)):
        page.paste(image(theme, obj, index, seed), (column * SIZE, row * SIZE))
    return page.resize((page.width * scale, page.height * scale), Image.Resampling.NEAREST)
