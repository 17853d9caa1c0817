"""Contact sheet: the same pairs painted by every method, between what they were made of and the ground truth

    python -m style_transfer.sheet runs/style_transfer --out sheet.png [--data mini] [--styles Sketch Rust]

A row is one pair of a style, each of another object, as far as there are enough. What a folder lacks is left
white.
"""

import argparse
from pathlib import Path

from evaluation.core import flags
from evaluation.core.errors import UserError, command, early
from style_transfer.core.cli import new_parser
from style_transfer.core.outputs import add_flags, read_outputs
from style_transfer.table import TRIVIAL


def parse(argv=None) -> argparse.Namespace:
    """The flags, and `opened`: folder of outputs -> its Outputs, the trivial ones first."""
    parser = new_parser("sheet", __doc__)
    parser.add_argument("root", type=Path, help="folder of folders of outputs")
    add_flags(parser)
    parser.add_argument("--side", type=flags.whole(8, 1024), default=128, help="pixels of an image (128)")
    parser.add_argument("--out", type=flags.new_path, required=True, metavar="FILE.png")
    args = parser.parse_args(argv)
    if Path(args.out).suffix.lower() != ".png" or Path(args.out).is_dir():
        raise UserError(f"--out {args.out}: expected the name of a .png file")
    folders = [path for path in args.root.glob("*") if any(path.glob("*/*_test*_ref*.*"))]
    folders.sort(key=lambda path: (path.name not in TRIVIAL, path.name))
    if not folders:
        raise UserError(f"{args.root}: no folder of outputs {{style}}/{{object}}_test19_ref1.png in it")
    args.opened = {folder: read_outputs(folder, args) for folder in folders}
    for folder, outputs in args.opened.items():
        first = args.opened[folders[0]]
        if (outputs.protocol.hash, outputs.data) != (first.protocol.hash, first.data):
            raise UserError(f"{folder}: other pairs than {folders[0]}; keep them in different folders")
    return args


early(__name__, parse)

from PIL import Image, ImageDraw

from evaluation import canvas
from evaluation.core.files import atomic
from evaluation.data.pictures import read_picture, thumbnail
from evaluation.drawing.sheets import GAP, LABELS, MARGIN, edged, write_fitting
from evaluation.reporting.formats import GREY, INK
from style_transfer.core.pairs import Benchmark
from style_transfer.protocol import Row

HEADER = 40  # pixels for the names of the columns


def chosen(pairs: Benchmark) -> list[tuple[Row, Row]]:
    """(content, reference) of every style: objects, contents and references in turn."""
    rows = []
    for i, style in enumerate(pairs.styles):
        obj = pairs.objects[i % len(pairs.objects)]
        contents = pairs.protocol.rows_of_contents(obj)
        references = pairs.protocol.rows_of_references(style, obj)
        rows.append((contents[i % len(contents)], references[i % len(references)]))
    return rows


def sheet(pairs: Benchmark, folders: list[Path], side: int) -> Image.Image:
    """The page, RGB; `side`: pixels of an image."""
    names = ["photo", "reference", *(folder.name for folder in folders), "ground truth"]
    rows = chosen(pairs)
    size = (2 * MARGIN + LABELS + len(names) * (side + GAP), 2 * MARGIN + HEADER + len(rows) * (side + GAP))
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    for column, name in enumerate(names):
        where = (MARGIN + LABELS + column * (side + GAP) + side / 2, MARGIN + HEADER - 10)
        write_fitting(draw, where, name.replace("_", " "), side + GAP - 4, "md", INK)
    for number, (content, reference) in enumerate(rows):
        top, right = MARGIN + HEADER + number * (side + GAP), MARGIN + LABELS - 12
        write_fitting(draw, (right, top + side / 2 - 11), canvas.spoken(reference.theme), LABELS, "rm", INK)
        write_fitting(draw, (right, top + side / 2 + 11), content.object, LABELS, "rm", GREY)
        outputs = (folder / pairs.path(content, reference) for folder in folders)
        truth = content._replace(theme=reference.theme)
        for column, name in enumerate((content, reference, *outputs, truth)):
            if isinstance(name, Row) or name.exists():
                image = pairs.read(name) if isinstance(name, Row) else read_picture(name)
                enlarged = image.resize((side, side), Image.Resampling.NEAREST)
                small = thumbnail(image, side) if min(image.size) > side else enlarged
                page.paste(edged(small), (MARGIN + LABELS + column * (side + GAP), top))
    return page


@command
def main(argv=None):
    args = parse(argv)
    folders = list(args.opened)
    protocol, data, _ = args.opened[folders[0]]
    pairs = Benchmark(protocol, data, "", args.styles, args.objects)
    with atomic(args.out) as temporary:
        sheet(pairs, folders, args.side).save(temporary, optimize=True)


if __name__ == "__main__":
    main()
