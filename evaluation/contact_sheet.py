"""Contact sheet: what unlearning does to the same prompts and the same noise

One panel for every answer set, one column for every theme, and for every object two rows: the base model, and
the unlearned model below it. The target is framed. The panel of a pair has its style with every object, and
its object in every style.

    python -m evaluation.contact_sheet --base runs/base/answers --answers runs/esd/*/answers --out sheet.png
"""

import argparse
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from evaluation import canvas
from evaluation.answers.answer_set import forgotten, protocol_of, read_manifest
from evaluation.canvas import Target
from evaluation.core import flags
from evaluation.core.errors import UserError, command
from evaluation.core.files import atomic
from evaluation.core.record import RECORD, read_record
from evaluation.data.pictures import read_picture, thumbnail
from evaluation.drawing.sheets import (
    COLUMNS,
    GAP,
    HEADER,
    LABELS,
    MARGIN,
    OBJECT_GAP,
    PAIR_GAP,
    WIDTH,
    edged,
    pair_lines,
    pair_sheet,
    side_of,
    write_fitting,
    write_row_names,
    write_title,
)
from evaluation.metrics.published import spelled
from evaluation.protocol import Protocol
from evaluation.reporting.formats import INK, MARK, shown

PICTURES = (".png", ".jpg", ".jpeg", ".webp")  # suffixes of --out


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
    side = side_of(len(themes))
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
    method = spelled(record["method"])
    if [target.kind for target in targets] == ["pair"]:
        lines = pair_lines(targets[0], protocol, seed)
        names = {cell: canvas.answer_name(*cell, "." + protocol.format) for line in lines for cell in line}
        above, own = ({c: read_picture(folder / n) for c, n in names.items()} for folder in (base, answers))
        return pair_sheet(method, targets[0], lines, above, own)
    layout = arrange(protocol, targets, objects)
    height = max(layout.tops.values()) + layout.below + layout.side + MARGIN
    page = Image.new("RGB", (WIDTH, height), "white")
    draw = ImageDraw.Draw(page)
    write_title(draw, method, targets)
    write_names(draw, layout, targets)
    for (theme, left), (obj, top) in product(layout.lefts.items(), layout.tops.items()):
        name = canvas.answer_name(theme, obj, seed, suffix="." + protocol.format)
        for folder, y in ((base, top), (answers, top + layout.below)):
            page.paste(edged(thumbnail(read_picture(folder / name), layout.side)), (left, y))
    for target in targets:
        draw_frame(draw, layout, target)
    return page


def check_base(base: Path, answers: Path) -> None:
    above, below = read_manifest(base), read_manifest(answers)
    if above["run"] is not None:
        raise UserError(f"--base {base}: answers of an unlearned model; name the base model's answer set")
    if (protocol_of(base).hash, above["model"]) != (protocol_of(answers).hash, below["model"]):
        raise UserError(f"--base {base}: another protocol or model than {answers}, so noise is not the same")


def write_names(draw: ImageDraw.ImageDraw, layout: Layout, targets: list[Target]) -> None:
    """Those of columns and rows; a target's in colour."""
    marked = {name for target in targets for name in target}
    for theme, left in layout.lefts.items():
        where = (left + layout.side / 2, HEADER - 12)
        write_fitting(
            draw, where, shown(theme), layout.side + GAP - 2, "md", MARK if theme in marked else INK
        )
    for obj, top in layout.tops.items():
        write_row_names(draw, obj, top, layout.side, MARK if obj in marked else INK)


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
