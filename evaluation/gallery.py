"""Gallery of a report: images of the base and the unlearned model, of the same prompt and noise

Images are embedded as WebP sprites, one for each answer set; where there are too many, evenly spread cells of
the grid.
"""

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from math import gcd
from pathlib import Path

from PIL import Image

from evaluation import canvas
from evaluation.answers import Cell, grid
from evaluation.protocol import Protocol
from evaluation.records import read_predictions, read_record
from evaluation.results import BASE, Judged
from evaluation.table_rows import grouped

SIDE, ACROSS, QUALITY = 64, 20, 65  # pixels of a thumbnail, thumbnails in a row, WebP quality
IMAGES = 40_000  # thumbnails in a report, at about 0.7 kB each


def gallery(judged: list[Judged]) -> dict:
    """Runs whose images, and the base model's, are there; and the commands that draw what is not.

    `data`: `runs` with the numbers of their `grid` and of both answer sets, `grids` of cells, and for every
    answer set what is `seen` in each cell; `sprites`: for every answer set a WebP file in base64.
    """
    bases = {one.origin: one for one in judged if one.method == BASE}
    cells = {one.origin: spread(one.protocol, len(judged)) for one in judged}
    unique = {one.path: one for one in judged}
    there = {path for path, one in unique.items() if all(map(Path.exists, files(one, cells[one.origin])))}
    sets, runs = [], []  # paths of answer sets in use
    for label, one in ((label, one) for label, group in grouped(judged).items() for one in group):
        base = bases.get(one.origin)
        if one.method == BASE or not base or not {base.path, one.path} <= there:
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
    used = [(unique[path], cells[unique[path].origin]) for path in sets]
    with ThreadPoolExecutor() as pool:
        sprites = list(pool.map(sprite, [files(*each) for each in used]))
    return {
        "data": {"runs": runs, "grids": list(cells.values()), "seen": [seen(*each) for each in used]}
        | {"across": ACROSS},
        "sprites": sprites,
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


def sprite(paths: list[Path]) -> str:
    """Thumbnails in rows of ACROSS."""
    page = Image.new("RGB", (SIDE * ACROSS, SIDE * -(-len(paths) // ACROSS)))
    for i, path in enumerate(paths):
        with Image.open(path) as image:
            small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        page.paste(small, (i % ACROSS * SIDE, i // ACROSS * SIDE))
    file = io.BytesIO()
    page.save(file, "WEBP", quality=QUALITY)
    return base64.b64encode(file.getvalue()).decode()


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
