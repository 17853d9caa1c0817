"""What is missing, truncated or misplaced in a copy of the data set, told in seconds

    python -m evaluation.check DATA [--decode]
    python -m evaluation.check --files [DIR] [--hash]

Of every image the first and the last bytes are looked at, of one object the paintings beside their photos.
`--decode` decodes all images too, in several processes (hours of one core at full size). `--files` says
which of the files that others publish (`checkpoints/checkpoints.csv`) are there.
"""

import argparse
import difflib
import itertools
from collections import defaultdict
from functools import partial
from pathlib import Path

from tqdm import tqdm

from evaluation import canvas
from evaluation.core.errors import UserError, command, printable
from evaluation.core.pools import processes, threads
from evaluation.data import external, parquet
from evaluation.data.damage import check_pairs, damage
from evaluation.data.folder import IMAGE, names_in, numbered
from evaluation.mini import dataset

SHOWN = 10  # problems of one kind that are printed
NOT_MINI = {*canvas.OBJECTS} - {*dataset.OBJECTS}


def check(root: str | Path, decode: bool = False) -> tuple[str, dict[str, list[str]]]:
    """-> what the copy holds, in words, and its problems by kind. UserError if it is no data set at all."""
    if not Path(root).is_dir():
        raise UserError(f"{root}: no such folder")
    files = parquet.shard_files(root)
    return check_shards(files, decode) if files else check_folder(Path(root), decode)


def subfolders(folder: Path) -> list[str]:
    return [name for name in names_in(folder) if (folder / name).is_dir()]


def themes_in(folder: Path) -> list[str]:
    return [name for name in subfolders(folder) if name in parquet.KNOWN]


def elsewhere(root: Path) -> str:
    """The end of the sentence that says that `root` holds no folder of a theme."""
    below = [root / name for name in subfolders(root)]
    if any(folder.name in canvas.OBJECTS for folder in below):
        if any(map(themes_in, below)):
            return "its folders are {object}/{style}, expected {style}/{object}"
        return f"it is the folder of one style; give its parent, {root.resolve().parent}"
    deeper = [folder / name for folder in below for name in subfolders(folder)]
    for folder in [*below, *deeper]:
        if themes_in(folder):
            return f"the data set lies in {folder}; give that"
        if parquet.shard_files(folder):
            return f"the parquet shards lie in {folder}; give that"
    return "expected folders {style}/{object} with 1.jpg to 20.jpg, or parquet shards"


def check_folder(root: Path, decode: bool) -> tuple[str, dict[str, list[str]]]:
    present, problems = themes_in(root), defaultdict(list)
    if not present:
        raise UserError(f"{root}: no data set; {elsewhere(root)}")
    inside = {name for theme in present for name in subfolders(root / theme)}
    mini = set(present) <= set(dataset.NEAR_THEMES) and inside.isdisjoint(NOT_MINI)
    themes = dataset.themes_beside(present) if mini else sorted({*canvas.THEMES, *present})
    objects = dataset.OBJECTS if mini else canvas.OBJECTS
    paths = []
    for theme in folders(root, themes, problems):
        for obj in folders(root / theme, objects, problems):
            paths += check_cell(root / theme / obj, problems)
    with processes() if decode else threads(16) as pool:
        faults = pool.map(partial(damage, decode=decode), paths, chunksize=64)
        for path, fault in zip(paths, tqdm(faults, "check images", len(paths), disable=None)):
            if fault:
                problems["damaged image, get it again"].append(f"{path.relative_to(root)}: {fault}")
    there = {(*path.parts[-3:-1], int(path.stem)): path for path in paths}
    check_pairs(there, lambda rows: map(there.get, rows), problems)
    world = "the miniature's" if mini else "the benchmark's"
    return f"{len(paths)} images of {world} {len(themes)} themes x {len(objects)} objects", problems


def folders(parent: Path, wanted, problems) -> list[str]:
    """Those wanted that are there. Problems: the absent, with the name that may be meant, and the unknown."""
    there = subfolders(parent)
    unknown = [name for name in there if name not in wanted]
    for name in wanted:
        if name not in there:
            like = [other for other in unknown if name in near(other, wanted)]
            hint = f": rename {like[0]!r}?" if like else ""
            problems["missing folder"].append(f"{parent.name}/{name}{hint}")
            unknown = [other for other in unknown if other not in like[:1]]
    problems["unknown folder"] += [f"{parent.name}/{name}" for name in unknown]
    loose = [name for name in names_in(parent) if IMAGE.fullmatch(name)]
    problems["misplaced image, none belongs here"] += [f"{parent.name}/{name}" for name in loose]
    return [name for name in wanted if name in there]


def near(name: str, known) -> list[str]:
    lower = {other.lower(): other for other in known}
    matches = difflib.get_close_matches(name.lower().replace(" ", "_"), lower, 1, 0.7)
    return [lower[match] for match in matches]


def check_cell(folder: Path, problems) -> list[Path]:
    """The images of a style and object. Numbers of 1 to 20 that are not there are problems."""
    images, place = numbered(folder), f"{folder.parent.name}/{folder.name}"
    if missing := [str(number) for number in canvas.NUMBERS if number not in images]:
        problems["missing images"].append(f"{place}: {', '.join(missing)}")
    problems["images of one number"] += [
        f"{place}/{' and '.join(path.name for path in paths)}" for paths in images.values() if len(paths) > 1
    ]
    known = {path.name for paths in images.values() for path in paths}
    problems["unknown file"] += [f"{place}/{name}" for name in names_in(folder) if name not in known]
    return [paths[0] for paths in images.values()]


def check_shards(files: list[Path], decode: bool) -> tuple[str, dict[str, list[str]]]:
    shards, problems = parquet.rows_by_shard(files), defaultdict(list)
    rows = list(itertools.chain(*shards.values()))
    there = set(rows)
    for cell in itertools.product(canvas.THEMES, canvas.OBJECTS):
        if missing := [str(number) for number in canvas.NUMBERS if (*cell, number) not in there]:
            problems["missing images"].append(f"{'/'.join(cell)}: {', '.join(missing)}")
    check_pairs(there, lambda wanted: parquet.open_rows(shards, wanted), problems)
    if decode:
        images = itertools.chain(*map(parquet.images_of, files))
        for row, image in zip(rows, tqdm(images, "check images", len(rows), disable=None)):
            if fault := damage(image, decode=True):
                problems["damaged image, get its shard again"].append(f"{'/'.join(map(str, row))}: {fault}")
    return f"{len(rows)} images in {len(files)} parquet shards", problems


def report(root: str | Path, decode: bool = False) -> None:
    """Prints what `check` finds; raises UserError if there are problems."""
    if dataset.drawn_seed(root) is not None:
        return print(f"{root}: drawn by code, nothing to check")
    holds, problems = check(root, decode)
    print(f"{root}: {holds}")
    for kind, places in problems.items():
        if places:
            more = [f"... and {len(places) - SHOWN} more"] if len(places) > SHOWN else []
            print(printable("\n  ".join([f"{kind} ({len(places)})", *places[:SHOWN], *more])))
    if count := sum(map(len, problems.values())):
        raise UserError(f"{root}: {count} problems, listed above")
    print("nothing is missing or damaged" if decode else "nothing is missing or truncated")


@command
def main(argv=None):
    parser = argparse.ArgumentParser("python -m evaluation.check", description=__doc__.partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("data", nargs="?", help="folder of the data set, or of its parquet shards")
    listed = "which files of checkpoints/checkpoints.csv are in DIR (default checkpoints)"
    what.add_argument("--files", nargs="?", const="checkpoints", metavar="DIR", help=listed)
    parser.add_argument("--decode", action="store_true", help="decode every image (slow)")
    parser.add_argument("--hash", action="store_true", help="print the SHA-256 of every file (slow)")
    args = parser.parse_args(argv)
    if args.files is None:
        return report(args.data, args.decode)
    return external.report(args.files, args.hash)


if __name__ == "__main__":
    main()
