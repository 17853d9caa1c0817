"""The folder form of the data set, `{theme}/{object}/{number}.jpg`, as people have it

Any suffix of an image in any case and leading zeros are read: `1.JPG`, `01.png`. What file managers leave
beside the images is passed over.
"""

import os
import re
from collections import defaultdict
from pathlib import Path

from evaluation.core.errors import UserError
from evaluation.core.files import read_json

PREPARED = "prepared.json"  # what evaluation.prepare says of a folder that it wrote
LEFT_BEHIND = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "icon\r")  # and names with a dot first
IMAGE = re.compile(r"(?P<stem>.*)\.(jpe?g|jfif|png|webp|bmp|gif|tiff?)", re.IGNORECASE)


def names_in(folder: str | Path) -> list[str]:
    """Sorted, [] without the folder; without what file managers leave."""
    names = [entry.name for entry in os.scandir(folder)] if Path(folder).is_dir() else []
    return sorted(name for name in names if name[0] != "." and name.lower() not in LEFT_BEHIND)


def numbered(folder: str | Path) -> dict[int, list[Path]]:
    """Number -> the images of that number, which should be one."""
    images = defaultdict(list)
    for name in names_in(folder):
        if (match := IMAGE.fullmatch(name)) and re.fullmatch("[0-9]{1,9}", match["stem"]):
            images[int(match["stem"])].append(Path(folder, name))
    return images


def images_in(folder: str | Path) -> dict[int, Path]:
    """Number -> image. Raises UserError for two of one number."""
    images = numbered(folder)
    for paths in images.values():
        if len(paths) > 1:
            raise UserError(f"{paths[0]}: has the number of {paths[1].name}, too; remove one of them")
    return {number: path for number, (path,) in images.items()}


def prepared_size(root: str | Path, size: int) -> int | None:
    """Pixels of the copies in `root`, if evaluation.prepare made them; UserError if they are below `size`."""
    card = Path(root) / PREPARED
    prepared = read_json(card, size=int)["size"] if card.exists() else None
    if prepared and prepared < size:
        wrong = f"was prepared with {prepared} pixels and {size} are asked for"
        raise UserError(f"--data {root}: {wrong}; prepare another with --size {size}")
    return prepared
