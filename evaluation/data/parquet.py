"""The published parquet shards: images with captions, and no column for style, object or number

    {root}/data/train-00000-of-00153.parquet ...    columns `image` (bytes, and perhaps a path) and `text`

Style and object are read from the caption, `A {object} image in {style} style`. The number is that of the
image's file name where the shards keep it (`7.jpg`). Else it is the row's place among the 20 of its cell, as
they were written: that holds only if the 20 lie together, so rows in any other order are refused.
"""

import io
import re
from collections import Counter
from itertools import groupby
from pathlib import Path

import pyarrow
from pyarrow.parquet import ParquetFile

from evaluation import canvas
from evaluation.core.errors import UserError, brief

CAPTION = re.compile(r"An? (?P<object>\w+) image in (?P<theme>.+) style\.?")
KNOWN = (*canvas.THEMES, *canvas.UNUSED_STYLES)


def shard_files(root: str | Path) -> list[Path]:
    """The shards in `root` or its folder `data`, in order; none if it is of another form."""
    files = sorted(Path(root).glob("[!.]*.parquet")) or sorted(Path(root, "data").glob("[!.]*.parquet"))
    count = re.search(r"-of-(\d+)\.parquet$", files[0].name) if files else None
    if count and len(files) != (count := int(count[1])):
        stems = {file.name.partition("-of-")[0][-5:] for file in files}
        first = next((i for i in range(count) if f"{i:05}" not in stems), "unknown")
        raise UserError(
            f"--data {root}: {len(files)} of {count} parquet shards, the first missing is number {first}; "
            "download all of them, the numbers of the images follow from the order"
        )
    return files


def cell_of(caption: str) -> tuple[str, str]:
    """(theme, object) of a caption; raises UserError if it names neither."""
    match = CAPTION.fullmatch(caption.strip())
    theme = match["theme"].replace(" ", "_") if match else None
    theme = canvas.PHOTO if theme in ("photo", "Photo") else theme
    if theme not in KNOWN or match["object"] not in canvas.OBJECTS:
        raise UserError(f"caption {caption!r}: expected names as in 'A Cats image in Van Gogh style'")
    return theme, match["object"]


def read_rows(files: list[Path]) -> list[tuple[str, str, int]]:
    """(theme, object, index) of every row, in order; reads captions and file names, never the images."""
    captions, numbers, folder = [], [], files[0].parent
    for file in files:
        for row in read(file, ["text", "image.path"]):
            if not isinstance(row.get("text"), str):
                raise UserError(f"{file}: no column of captions called text; not the published data set")
            captions.append(row["text"])
            name = Path((row.get("image") or {}).get("path") or "")
            numbers.append(int(name.stem) if name.stem.isdecimal() else None)
    try:
        cells = [cell_of(caption) for caption in captions]
    except UserError as error:
        raise UserError(f"--data {folder}: {error}") from error
    if not set(numbers) <= set(canvas.NUMBERS):  # no names, or names that number something else
        numbers = numbers_by_place(cells, folder)
    rows = [(*cell, number) for cell, number in zip(cells, numbers)]
    if len(set(rows)) < len(rows):
        twice = "/".join(map(str, Counter(rows).most_common(1)[0][0]))
        raise UserError(f"--data {folder}: {twice} is there twice; use the folder form")
    return rows


def numbers_by_place(cells: list[tuple[str, str]], folder: Path) -> list[int]:
    """1 to 20 over and over, if every cell is one run of 20 rows."""
    runs = [(cell, len(list(run))) for cell, run in groupby(cells)]
    broken = next(((cell, count) for cell, count in runs if count != len(canvas.NUMBERS)), None)
    if broken is None and len(runs) == len({cell for cell, _ in runs}):
        return [*canvas.NUMBERS] * len(runs)
    (theme, obj), count = broken or runs[0]
    raise UserError(
        f"--data {folder}: the rows are shuffled or incomplete ({theme}/{obj}: {count} rows together, "
        f"expected {len(canvas.NUMBERS)} in one place), so no image's number can be told; use the folder form"
    )


def read(file: Path, columns: list[str], batch: int = 64):
    """Yields the rows of a shard as dicts; memory for one batch of rows and one row group."""
    try:
        for part in ParquetFile(file).iter_batches(batch, columns=columns):
            yield from part.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file}: not a readable parquet file ({brief(error)}); download it again") from error


def images_of(shard: Path):
    """Yields the encoded image of every row, b"" where there is none."""
    for row in read(shard, ["image.bytes"], batch=8):
        yield (row.get("image") or {}).get("bytes") or b""


def rows_by_shard(files: list[Path]) -> dict[Path, list]:
    """The rows of `read_rows`, those of each shard."""
    rows = iter(read_rows(files))
    return {file: [next(rows) for _ in range(ParquetFile(file).metadata.num_rows)] for file in files}


def open_rows(shards: dict[Path, list], wanted: list) -> list[io.BytesIO]:
    """The images of a few rows; reads no shard that has none of them."""
    files = {}
    for shard, rows in shards.items():
        if not set(wanted).isdisjoint(rows):
            contents = zip(rows, images_of(shard), strict=True)
            files |= {row: io.BytesIO(content) for row, content in contents if row in wanted}
    return [files[row] for row in wanted]


class Shards:
    """Encoded images by row. `datasets` writes a memory-mapped copy as large as the shards, once, into its
    cache (HF_DATASETS_CACHE); `evaluation.prepare` reads the shards without one."""

    def __init__(self, files: list[Path]):
        from datasets import Image, load_dataset  # slow to import, and needed for this form alone

        self.files = files
        self.place = {row: i for i, row in enumerate(read_rows(files))}
        table = load_dataset("parquet", data_files=[str(file) for file in files], split="train")
        self.table = table.cast_column("image", Image(decode=False))
        if len(self.table) != len(self.place):
            raise UserError(f"--data {files[0].parent}: its cache has other rows; empty HF_DATASETS_CACHE")

    def open(self, row) -> io.BytesIO:
        return io.BytesIO(self.table[self.place[row]]["image"]["bytes"])
