"""Protocols of style transfer: which photo is painted after which reference, and how the pixels are treated

    {style}/{object}_test{content}_ref{reference}.png        the outputs, one folder a method

A content is photo 19 or 20 of an object, a reference one of images 1 to 18 of the same object in the style;
what the data set's authors made of the content in that style is the ground truth. The YAML files are in
`style_transfer/protocols/`; the hash leaves out the name alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from evaluation import canvas, protocol
from evaluation.core.config import check_choices, check_lists, check_ranges
from evaluation.core.errors import UserError, closest

FOLDER = Path(__file__).parent / "protocols"
EVERYTHING = {"styles": sorted(canvas.STYLES + canvas.UNUSED_STYLES), "objects": canvas.OBJECTS}
CHOICES = EVERYTHING | {"pairs": ("same", "cross"), "format": ("png", "webp", "jpg")}
NUMBERS = canvas.NUMBERS[0], canvas.NUMBERS[-1]
RANGES = {"contents": NUMBERS, "references": NUMBERS, "size": (8, 4096)}


class Row(NamedTuple):
    """One image of the data set."""

    theme: str
    object: str
    index: int


@dataclass(frozen=True)
class TransferProtocol:
    name: str
    styles: tuple[str, ...]
    objects: tuple[str, ...]
    contents: tuple[int, ...]  # numbers of the photos
    references: tuple[int, ...]  # numbers of the style images
    pairs: str  # same: a reference shows the content's object; cross: another, its neighbours in turn
    size: int  # pixels: the central square of every image is resized to it, antialiased
    bicubic: tuple[str, ...]  # methods whose images are resized so; the others' bilinear
    truncated: tuple[str, ...]  # methods whose 8-bit values are cut off; the others' are rounded
    format: str  # png, webp without loss, or jpg at Pillow's default quality, 75

    def __post_init__(self):
        settings = self.__dict__
        check_choices(settings, CHOICES)
        check_ranges(settings, RANGES)
        check_lists(settings, empty=("bicubic", "truncated"))
        protocol.check_name(self.name)
        if self.pairs == "cross" and len(self.objects) < 2:
            raise UserError("pairs of different objects need two objects at least")

    @property
    def hash(self) -> str:
        return protocol.hash_of(self, without=("name",))

    def rows_of_contents(self, obj: str) -> list[Row]:
        """The photos of an object that are painted."""
        return [Row(canvas.PHOTO, obj, index) for index in self.contents]

    def rows_of_references(self, style: str, obj: str) -> list[Row]:
        """The style images for the contents of an object.

        Cross: the n-th is of the n-th next object in the list, so every style image is still used once and no
        object is paired with itself.
        """
        if self.pairs == "same":
            return [Row(style, obj, index) for index in self.references]
        place, count = self.objects.index(obj), len(self.objects)
        return [
            Row(style, self.objects[(place + 1 + n % (count - 1)) % count], index)
            for n, index in enumerate(self.references)
        ]

    def output_path(self, content: Row, reference: Row) -> Path:
        """Where the output of a pair lies in a method's folder."""
        name = f"{content.object}_test{content.index}_ref{reference.index}.{self.format}"
        return Path(reference.theme) / name


def load(name: str | Path) -> TransferProtocol:
    """The protocol of that name, or the one in that YAML file; raises UserError."""
    return protocol.load(name, FOLDER, TransferProtocol, EVERYTHING)


def chosen(names, known, flag: str) -> list[str]:
    """The names, or all that are known, in the protocol's order. Raises UserError for an unknown one."""
    for name in names or []:
        if name not in known:
            raise UserError(f"{flag} {name}: not in the protocol; {closest(name, known)}")
    return [name for name in known if names is None or name in names]
