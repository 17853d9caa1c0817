"""Draws the miniature dataset to files

python -m evaluation.mini_canvas data/mini --per-object 20 --sheet sheet.png
"""

import argparse
from pathlib import Path

from evaluation.core.errors import command
from evaluation.mini import dataset


@command
def main(argv=None):
    parser = argparse.ArgumentParser("python -m evaluation.mini_canvas", description="Draws the miniature.")
    parser.add_argument("out", type=Path, help="folder that receives {theme}/{object}/{n}.jpg")
    parser.add_argument("--per-object", type=int, default=20, help="images in each folder (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws another dataset (default 0)")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="also writes a contact sheet")
    args = parser.parse_args(argv)
    dataset.write(args.out, args.per_object, args.seed)
    if args.sheet:
        dataset.sheet(seed=args.seed, scale=3).save(args.sheet)


if __name__ == "__main__":
    main()
