"""Contact sheet: what unlearning does to the same prompts and the same noise

One panel for every answer set, one column for every theme, and for every object two rows: the base model, and
the unlearned model below it. The target is framed.

    python -m evaluation.contact_sheet --base runs/base/answers --answers runs/esd/*/answers --out sheet.png
"""

import argparse
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evaluation import canvas
from evaluation.answers.answer_set import forgotten, protocol_of, read_manifest
from evaluation.canvas import Target
from evaluation.core import flags
from evaluation.core.errors import UserError, command
from evaluation.core.files import atomic
from evaluation.core.record import RECORD, read_record
from evaluation.data.pictures import read_picture, thumbnail
from evaluation.protocol import Protocol
from evaluation.reporting.formats import EDGE, GREY, INK, MARK

WIDTH, MARGIN, LABELS, HEADER = 1400, 26, 128, 140  # pixels: page, border, names on the left, text on top
GAP, PAIR_GAP, OBJECT_GAP = 8, 4, 22  # between columns, between base and unlearned, between objects
COLUMNS, LARGEST = 11, 150  # themes, and pixels of an image, at most
PICTURES = (".png", ".jpg", ".jpeg", ".webp")  # suffixes of --out
font = ImageFont.load_default  # of a size in pixels


class Layout(NamedTuple):
    lefts: dict[str, int]  # theme -> x of its column
    tops: dict[str, int]  # object -> y of its two rows
    side: int  # of an image
    below: int  # from an image of the base model down to its unlearned counterpart


def choose(names, must, count: int) -> list[str]:
    """At most `count` of the names, in their order: those of `must`, and others evenly spread."""
    chosen = {*[name for name in names if name in must][:count]}
    others = [name for name in names if name not in chosen]
    room = min(count - len(chosen), len(others))
    chosen |= {others[i * len(others) // room] for i in range(room)}
    return [name for name in names if name in chosen]


def arrange(protocol: Protocol, targets: list[Target], objects: int) -> Layout:
    """Photographs first, then styles; every target has its place, as far as there is room."""
    themes = choose(protocol.themes, [canvas.PHOTO, *(target.style for target in targets)], COLUMNS)
    themes.sort(key=lambda theme: theme != canvas.PHOTO)
    side = min((WIDTH - 2 * MARGIN - LABELS + GAP) // len(themes) - GAP, LARGEST)
    step = 2 * side + PAIR_GAP + OBJECT_GAP
    chosen = choose(protocol.objects, [target.object for target in targets], objects)
    lefts = {theme: MARGIN + LABELS + i * (side + GAP) for i, theme in enumerate(themes)}
    return Layout(lefts, {obj: HEADER + i * step for i, obj in enumerate(chosen)}, side, side + PAIR_GAP)


def panel(base: Path, answers: Path, seed: int | None = None, objects: int = 3) -> Image.Image:
    """The picture of one answer set, RGB, WIDTH pixels wide; `seed` None is the protocol's first."""
    protocol, record = protocol_of(answers), read_record(answers.resolve().parent)
    check_base(base, answers)
    seed = protocol.seeds[0] if seed is None else seed
    if seed not in protocol.seeds:
        raise UserError(f"--seed {seed}: the seeds of {answers} are {', '.join(map(str, protocol.seeds))}")
    targets = forgotten(record, answers.resolve().parent / RECORD)
    layout = arrange(protocol, targets, objects)
    height = max(layout.tops.values()) + layout.below + layout.side + MARGIN
    page = Image.new("RGB", (WIDTH, height), "white")
    names = " and ".join(" in ".join(map(canvas.spoken, filter(None, (t.object, t.style)))) for t in targets)
    write_labels(ImageDraw.Draw(page), f"{record['method'].upper()}: {names} forgotten", layout, targets)
    for (theme, left), (obj, top) in product(layout.lefts.items(), layout.tops.items()):
        name = canvas.answer_name(theme, obj, seed, suffix="." + protocol.format)
        for folder, y in ((base, top), (answers, top + layout.below)):
            page.paste(edged(thumbnail(read_picture(folder / name), layout.side)), (left, y))
    for target in targets:
        draw_frame(ImageDraw.Draw(page), layout, target)
    return page


def check_base(base: Path, answers: Path) -> None:
    above, below = read_manifest(base), read_manifest(answers)
    if above["run"] is not None:
        raise UserError(f"--base {base}: answers of an unlearned model; name the base model's answer set")
    if (protocol_of(base).hash, above["model"]) != (protocol_of(answers).hash, below["model"]):
        raise UserError(f"--base {base}: another protocol or model than {answers}, so noise is not the same")


def edged(image: Image.Image) -> Image.Image:
    """The image itself, with an edge drawn inside it: white images end somewhere, too."""
    ImageDraw.Draw(image).rectangle((0, 0, image.width - 1, image.height - 1), outline=EDGE)
    return image


def write_labels(draw: ImageDraw.ImageDraw, title: str, layout: Layout, targets: list[Target]) -> None:
    marked = {name for target in targets for name in target}
    draw.text((MARGIN, MARGIN + 26), title, INK, font(34), "ls", stroke_width=0.6)
    draw.text((MARGIN, MARGIN + 58), "same prompts, same noise; the target is framed", GREY, font(20), "ls")
    for theme, left in layout.lefts.items():
        name = "Photo" if theme == canvas.PHOTO else canvas.spoken(theme)
        where = (left + layout.side / 2, HEADER - 12)
        write_fitting(draw, where, name, layout.side + GAP - 2, "md", MARK if theme in marked else INK)
    right = MARGIN + LABELS - 12
    for obj, top in layout.tops.items():
        middle = top + layout.side / 2
        write_fitting(draw, (right, middle - 12), obj, LABELS - 12, "rm", MARK if obj in marked else INK)
        draw.text((right, middle + 12), "base", GREY, font(17), "rm")
        draw.text((right, middle + layout.below), "unlearned", GREY, font(17), "rm")


def write_fitting(draw, where, text: str, width: int, anchor: str, colour: str) -> None:
    """One line of text in the largest size, up to 20 pixels, that is no wider than `width`."""
    size = next((size for size in range(20, 9, -1) if font(size).getlength(text) <= width), 9)
    draw.text(where, text, colour, font(size), anchor, stroke_width=0.3 if colour == MARK else 0)


def draw_frame(draw: ImageDraw.ImageDraw, layout: Layout, target: Target) -> None:
    """A frame around the target's images on the page: a column, two rows, or one image of each model."""
    lefts = [x for theme, x in layout.lefts.items() if target.style in (None, theme)]
    tops = [y for obj, y in layout.tops.items() if target.object in (None, obj)]
    if lefts and tops:
        corner = max(lefts) + layout.side + 4, max(tops) + layout.below + layout.side + 4
        draw.rectangle((min(lefts) - 5, min(tops) - 5, *corner), outline=MARK, width=3)


@command
def main(argv=None):
    parser = argparse.ArgumentParser("python -m evaluation.contact_sheet", description="Before and after.")
    parser.add_argument("--base", type=Path, required=True, help="answer set of the base model")
    parser.add_argument("--answers", type=Path, required=True, nargs="+", help="those of unlearned models")
    parser.add_argument("--out", type=flags.new_path, required=True, metavar="FILE.png")
    parser.add_argument("--seed", type=flags.whole(0), help="of the answer sets (default: their first)")
    objects = flags.whole(1, len(canvas.OBJECTS))
    parser.add_argument("--objects", type=objects, default=3, help="rows of objects in a panel (default 3)")
    args = parser.parse_args(argv)
    if Path(args.out).suffix.lower() not in PICTURES:
        raise UserError(f"--out {args.out}: expected a name that ends in {' or '.join(PICTURES)}")
    panels = [panel(args.base, answers, args.seed, args.objects) for answers in args.answers]
    with atomic(args.out) as temporary:
        Image.fromarray(np.vstack(panels)).save(temporary, optimize=True)


if __name__ == "__main__":
    main()
