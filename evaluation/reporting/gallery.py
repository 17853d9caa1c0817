"""Gallery of a report: images of the base and the unlearned model, of the same prompt and noise

Images are embedded as WebP sprites, one for each answer set; where there are too many, evenly spread cells of
the grid. `answers/sprite.webp` stands for images that are absent, so that a gallery can be made without them.
It names the predictions it belongs to, and is passed over beside any others.

    python -m evaluation.gallery runs --out results      # the sprites of runs, beside results' predictions
"""

import argparse
import base64
import io
from concurrent.futures import ThreadPoolExecutor
from math import gcd
from pathlib import Path

from PIL import Image

from evaluation import canvas
from evaluation.answers.answer_set import Cell, grid
from evaluation.answers.predictions import PREDICTIONS, read_predictions
from evaluation.core.errors import UserError, command
from evaluation.core.files import atomic, digest
from evaluation.core.record import read_record
from evaluation.protocol import Protocol
from evaluation.reporting.collect import BASE, Judged, collect
from evaluation.reporting.rows import grouped

SPRITE = "sprite.webp"
SIDE, ACROSS, QUALITY = 64, 20, 50  # pixels of a thumbnail, thumbnails in a row, WebP quality
IMAGES = 40_000  # thumbnails in a report, at about 0.7 kB each
DESCRIPTION = 0x010E  # Exif's ImageDescription


def gallery(judged: list[Judged]) -> dict:
    """Runs whose images, and the base model's, are there; and the commands that draw what is not.

    `data`: `runs` with the numbers of their `grid` and of both answer sets, `grids` of cells, and for every
    answer set what is `seen` in each cell; `sprites`: for every answer set a WebP file in base64.
    """
    bases = {one.origin: one for one in judged if one.method == BASE}
    unique = {one.path: one for one in judged}
    cells = {one.origin: spread(one.protocol, len(unique)) for one in judged}
    there = sprites(unique, cells)
    sets, runs = [], []  # paths of answer sets in use
    for label, one in ((label, one) for label, group in grouped(judged).items() for one in group):
        base = bases.get(one.origin)
        if one.method == BASE or not base or not {base.path, one.path} <= there.keys():
            continue
        sets += [path for path in (base.path, one.path) if path not in sets]
        targets = canvas.parse_targets(one.target)
        runs.append(
            {
                "method": label,
                "target": one.target,
                "grid": list(cells).index(one.origin),
                "base": sets.index(base.path),
                "own": sets.index(one.path),
                "covers": [any(t.covers(c.theme, c.object) for t in targets) for c in cells[one.origin]],
            }
        )
    found = [seen(unique[path], cells[unique[path].origin]) for path in sets]
    return {
        "data": {"runs": runs, "grids": list(cells.values()), "seen": found, "across": ACROSS},
        "sprites": [base64.b64encode(there[path]).decode() for path in sets],
        "commands": [sampling(one, judged) for path, one in unique.items() if path not in there],
    }


def spread(protocol: Protocol, sets: int) -> list[Cell]:
    """Cells to embed of each of `sets` answer sets: all, or every n-th such that each object occurs."""
    cells = grid(protocol)
    step = -(-sets * len(cells) // IMAGES)
    while gcd(step, len(protocol.objects)) > 1:
        step += 1
    return cells[::step]


def files(one: Judged, cells: list[Cell]) -> list[Path]:
    suffix = "." + one.protocol.format
    return [one.path / "answers" / canvas.answer_name(*each, suffix=suffix) for each in cells]


def sprites(unique: dict[Path, Judged], cells: dict) -> dict[Path, bytes]:
    """Answer set -> its sprite, made of its images or as shipped; without either it is left out."""
    with ThreadPoolExecutor() as pool:
        made = pool.map(lambda one: sprite(one, cells[one.origin]), unique.values())
        return {path: content for path, content in zip(unique, made) if content}


def sprite(one: Judged, cells: list[Cell]) -> bytes | None:
    paths, shipped = files(one, cells), one.path / "answers" / SPRITE
    if all(map(Path.exists, paths)):
        return drawn(paths, key(one.path, cells))
    if shipped.exists():
        with Image.open(shipped) as page:
            if page.getexif().get(DESCRIPTION) == key(one.path, cells):
                return shipped.read_bytes()
    return None


def drawn(paths: list[Path], description: str) -> bytes:
    """Thumbnails in rows of ACROSS, as WebP."""
    page = Image.new("RGB", (SIDE * ACROSS, SIDE * -(-len(paths) // ACROSS)))
    for i, path in enumerate(paths):
        with Image.open(path) as image:
            small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        page.paste(small, (i % ACROSS * SIDE, i // ACROSS * SIDE))
    exif, file = Image.Exif(), io.BytesIO()
    exif[DESCRIPTION] = description
    page.save(file, "WEBP", quality=QUALITY, exif=exif)
    return file.getvalue()


def key(path: Path, cells: list[Cell]) -> str:
    """Stands for the images judged in these cells, and for their places in a sprite."""
    files = {row[:3]: row.sha256 for row in read_predictions(path / "answers")[0]}
    return digest([ACROSS, *([*cell, files.get(cell)] for cell in cells)])


def seen(one: Judged, cells: list[Cell]) -> list[tuple[str, str, float, float]]:
    """For every cell the theme and the object seen, and their probabilities."""
    rows = {Cell(*row[:3]): row for row in read_predictions(one.path / "answers")[0]}
    found = [rows[each] for each in cells]
    return [
        (r.theme_seen, r.object_seen, round(r.theme_seen_prob, 2), round(r.object_seen_prob, 2))
        for r in found
    ]


def sampling(one: Judged, judged: list[Judged]) -> str:
    """The command that draws an answer set's images; its base model is that of any run of the same origin."""
    run = next(other for other in judged if other.origin == one.origin and other.method != BASE)
    model = read_record(run.path)["model_path"]
    unlearned = "" if one.method == BASE else f"--run {one.path} "
    return (
        f"python -m machine_unlearning.sample --model {model} {unlearned}--protocol {one.protocol.name} "
        f"--out {one.path}/answers"
    )


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.gallery", description="Small images to keep with the predictions of runs."
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder with METHOD/TARGET runs and images")
    parser.add_argument("--out", type=Path, required=True, help="folder with the same predictions, or ROOT")
    args = parser.parse_args(argv)
    unique = {one.path: one for one in collect([args.root])[0]}
    cells = {one.origin: spread(one.protocol, len(unique)) for one in unique.values()}
    made = sprites(unique, cells)
    if not made:
        raise UserError(f"{args.root}: no judged answer set has all of its images; draw them first")
    places = {path: args.out / path.relative_to(args.root) for path in made}
    for path, place in places.items():
        here = cells[unique[path].origin]
        if not (place / "answers" / PREDICTIONS).exists() or key(place, here) != key(path, here):
            raise UserError(f"--out {place}: lacks the predictions of {path}; copy them there first")
    for path, place in places.items():
        with atomic(place / "answers" / SPRITE) as temporary:
            temporary.write_bytes(made[path])
    size = sum(map(len, made.values())) / 1e6
    print(f"{len(made)} sprites of {len(unique)} answer sets in {args.out} ({size:.1f} MB)")


if __name__ == "__main__":
    main()
