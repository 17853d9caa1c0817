"""Which content is painted after which style: the benchmark's pairs, or every pair of two folders

Both kinds say in which blocks of at most `batch` pairs the work is done (`blocks`), how an image is read
(`read`), where a pair's output lies (`path`) and what the manifest must say (`identity`). Blocks depend on
the batch alone, so an interrupted run goes on with the very batches an uninterrupted one would have. They
come in chunks of contents, so that no content is encoded twice and no style more often than there are
chunks.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from evaluation import canvas
from evaluation.core.errors import UserError
from evaluation.data.images import CanvasImages
from evaluation.data.pictures import read_picture, square
from style_transfer.core.cli import pictures
from style_transfer.core.images import smaller
from style_transfer.protocol import Row, TransferProtocol, chosen

CHUNK = 8  # contents whose features are kept in memory


class Block(NamedTuple):
    """Every content with every style; images are named by a Row of the data set or by their Path."""

    contents: tuple
    styles: tuple

    @property
    def size(self) -> int:
        return len(self.contents) * len(self.styles)


def tiles(contents: list, styles: list, batch: int) -> list[Block]:
    """All pairs in blocks of at most `batch`, the contents of a chunk with all styles before the next
    chunk's."""
    height = min(len(contents), batch, CHUNK)
    width = max(1, batch // height)
    rows = [tuple(contents[i : i + height]) for i in range(0, len(contents), height)]
    columns = [tuple(styles[j : j + width]) for j in range(0, len(styles), width)]
    chunk = max(1, CHUNK // height)
    return [
        Block(row, column)
        for i in range(0, len(rows), chunk)
        for column in columns
        for row in rows[i : i + chunk]
    ]


class Benchmark:
    """The pairs of a protocol, of the styles and objects named (default: all), for a method, which may have
    a filter and a rounding of its own."""

    def __init__(self, protocol: TransferProtocol, data: str, method: str, styles=None, objects=None):
        self.protocol, self.data, self.size = protocol, data, protocol.size
        self.styles = chosen(styles, protocol.styles, "--styles")
        self.objects = chosen(objects, protocol.objects, "--objects")
        first = [(canvas.PHOTO, self.objects[0])]  # a data set without this is none; others may be missing
        self.images = CanvasImages(data, first, protocol.contents[:1], protocol.size)
        self.filter = Image.Resampling.BICUBIC if method in protocol.bicubic else Image.Resampling.BILINEAR
        self.truncate, self.path = method in protocol.truncated, protocol.output_path
        self.identity = {"protocol": protocol.__dict__ | {"hash": protocol.hash}, "data": data}

    def blocks(self, batch: int):
        """Yields (key, Block): all styles of an object before the next object, whose contents are kept."""
        for obj in self.objects:
            for style in self.styles:
                p = self.protocol
                pairs = tiles(p.rows_of_contents(obj), p.rows_of_references(style, obj), batch)
                yield from ((f"{style}_{obj}_{n}", block) for n, block in enumerate(pairs))

    def read(self, row: Row) -> Image.Image:
        if not self.images.has(row):
            raise UserError(f"{self.name(row)}: is missing; repair --data {self.data} and run this again")
        return square(self.images.original(row), self.protocol.size, self.filter)

    def name(self, row: Row) -> str:
        return str(canvas.image_path(self.data, *row))


class Folders:
    """Every content picture with every style picture, at their own sizes up to `longest` pixels a side."""

    truncate, size = False, 512  # pixels that the default batch reckons with

    def __init__(self, content: str, style: str, longest: int):
        self.contents = pictures(content, "--content")
        self.styles = pictures(style, "--style")
        self.longest = longest
        self.named = _names(self.contents) | _names(self.styles)
        self.identity = {"protocol": None, "content": content, "style": style, "max_side": longest}

    def blocks(self, batch: int):
        """Yields (number, Block)."""
        return enumerate(tiles(self.contents, self.styles, batch))

    def read(self, path: Path) -> Image.Image:
        return smaller(read_picture(path), self.longest)

    def path(self, content: Path, style: Path) -> Path:
        return Path(self.named[style]) / f"{self.named[content]}.png"

    def name(self, path: Path) -> str:
        return str(path)


def _names(paths: list[Path]) -> dict[Path, str]:
    """What to call each picture: its name without suffix, or with it if others are called the same."""
    count = Counter(path.stem for path in paths)
    return {path: path.stem if count[path.stem] == 1 else path.name for path in paths}
