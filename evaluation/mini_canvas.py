"""Draws the miniature dataset to files

python -m evaluation.mini_canvas data/mini --per-object 20 --sheet sheet.png
"""

import argparse
from pathlib import Path

from evaluation.core import flags
from evaluation.core.errors import UserError, command
from evaluation.core.files import atomic
from evaluation.mini import dataset


@command
def main(argv=None):
    parser = argparse.ArgumentParser("python -m evaluation.mini_canvas", description="Draws the miniature.")
    parser.add_argument("out", type=flags.new_path, help="folder that receives {theme}/{object}/{n}.jpg")
    count = flags.whole(1, 100_000)
    parser.add_argument("--per-object", type=count, default=20, help="images in each folder (default 20)")
    flags.add_seed(parser)
    near = ", ".join(dataset.NEAR_STYLES)
    parser.add_argument("--near", action="store_true", help=f"also the styles of mini-near: {near}")
    parser.add_argument("--sheet", type=flags.new_path, metavar="FILE.png", help="a contact sheet, too")
    args = parser.parse_args(argv)
    if args.sheet and Path(args.sheet).suffix != ".png":
        raise UserError(f"--sheet {args.sheet}: expected a name that ends in .png")
    themes = dataset.NEAR_THEMES if args.near else dataset.THEMES
    dataset.write(args.out, args.per_object, args.seed, themes)
    if args.sheet:
        with atomic(args.sheet) as temporary:
            dataset.sheet(seed=args.seed, scale=3, themes=themes).save(temporary)


if __name__ == "__main__":
    main()
