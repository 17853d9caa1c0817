"""Gallery of a report: images of the base and the unlearned model, of the same prompt and noise

A run shows a sample of its own: images of its target first, evenly spread, then those of the worst damage
beside it. It depends on this run and the base model alone. A small grid is shown whole, and the base model's
always. Images are kept as one WebP sprite in the answer set, which then stands for them; it names the
predictions it belongs to, and is made anew beside any others.
"""

import base64
import contextlib
import io
import math
import shlex
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from evaluation import canvas
from evaluation.answers.answer_set import Cell, grid
from evaluation.core.files import atomic, digest
from evaluation.core.pools import threads
from evaluation.core.record import read_record
from evaluation.data.pictures import read_picture, thumbnail
from evaluation.metrics.figures import shows
from evaluation.reporting.collect import BASE, Result
from evaluation.reporting.matrices import accuracies
from evaluation.reporting.rows import labels

SPRITE = "sprite.webp"
SIDE, ACROSS = 64, 20  # pixels of a thumbnail; thumbnails in a row, at least
WHOLE = 250  # images of a grid that is shown whole
TARGET, COLLATERAL, CLASSES = 40, 20, 5  # of a larger one: images of the target, of what lost most beside it
QUALITIES, BYTES = (50, 35, 20, 10), 700  # WebP: the first that needs at most so many bytes a thumbnail
DESCRIPTION = 0x010E  # Exif's ImageDescription


class Sheet(NamedTuple):
    """The images of an answer set that a gallery shows."""

    result: Result
    places: list[int]  # in the grid
    key: str  # stands for the images judged in these places, and for their order

    @property
    def path(self) -> Path:
        return self.result.answers.folder / SPRITE

    @property
    def cells(self) -> list[Cell]:
        cells = grid(self.result.protocol)
        return [cells[place] for place in self.places]


def gallery(results: list[Result]) -> dict:
    """Runs whose images, and the base model's, are there; and the commands that draw what is not.

    `data`: `runs` with the numbers of both answer sets and of their `grid`; `sets`, for every answer set the
    places of its images in the grid and what is seen in each; `grids` of cells. `sprites`: WebP, base64.
    """
    made, sheets_of = {}, sheets(results)
    with threads() as pool:
        for sheet, content in zip(sheets_of, pool.map(sprite, sheets_of)):
            if content:
                made[sheet.path] = sheet, content
    bases = {result.origin: result for result in results if result.method == BASE}
    origins, used, runs = list(bases), {}, []
    for result, label in zip(results, labels(results)):
        base = bases.get(result.origin)
        paths = [r.answers.folder / SPRITE for r in (base, result) if r]
        if result.method == BASE or not base or not {*paths} <= made.keys():
            continue
        numbers = [used.setdefault(path, len(used)) for path in paths]
        sheet = made[paths[1]][0]
        covers = [any(t.covers(cell.theme, cell.object) for t in result.targets) for cell in sheet.cells]
        runs.append(
            {"method": label, "target": result.target, "base": numbers[0], "own": numbers[1]}
            | {"grid": origins.index(result.origin), "covers": [int(covered) for covered in covers]}
        )
    shown = [made[path] for path in used]
    return {
        "data": {
            "runs": runs,
            "sets": [described(sheet) for sheet, _ in shown],
            "grids": [grid(base.protocol) for base in bases.values()],
        },
        "sprites": [base64.b64encode(content).decode() for _, content in shown],
        "commands": [sampling(s.result, results) for s in sheets_of if s.path not in made],
    }


def sheets(results: list[Result]) -> list[Sheet]:
    """One for every answer set."""
    bases = {result.origin: result for result in results if result.method == BASE}
    unique = {result.answers.folder: result for result in results}
    return [sheet_of(result, bases.get(result.origin)) for result in unique.values()]


def sheet_of(result: Result, base: Result | None) -> Sheet:
    places = sample(result, base)
    cells, files = grid(result.protocol), result.predictions.sha256.ravel()
    key = digest([across(len(places)), *([*cells[place], files[place].decode()] for place in places)])
    return Sheet(result, places, key)


def sample(result: Result, base: Result | None) -> list[int]:
    """Places in the grid: of the target first, then of the worst damage beside it."""
    size = result.predictions.sha256.size
    if size <= WHOLE or result.method == BASE:
        return list(range(size))
    covered = np.any([shows(target, result.protocol) for target in result.targets], 0)
    covered = np.broadcast_to(covered, result.predictions.sha256.shape).ravel()
    shown = spread(np.flatnonzero(covered), TARGET)
    others = np.flatnonzero(~covered)
    beside = worst(result, base, others) if base else spread(others, COLLATERAL)
    return [int(place) for place in (*shown, *beside)]


def spread(places: np.ndarray, count: int) -> np.ndarray:
    """At most so many of them, in steps of the golden section: all themes, objects and seeds."""
    step = round(0.618 * len(places)) or 1
    while math.gcd(step, len(places)) > 1:
        step += 1
    return places[np.sort(np.arange(min(count, len(places))) * step % len(places))]


def worst(result: Result, base: Result, others: np.ndarray) -> list[int]:
    """Of the themes and objects that lost most, in turn, those `others` whose images lost most labels."""
    lost = sum(b.right.astype(int) - r.right for b, r in zip(base.predictions[:2], result.predictions[:2]))
    others, chosen = others[np.argsort(-lost.ravel()[others], kind="stable")], []
    _, themes, objects = np.unravel_index(others, lost.shape)
    for number in np.argsort(accuracies(result) - accuracies(base), kind="stable"):  # themes, then objects
        of_class = others[(themes == number) | (len(result.protocol.themes) + objects == number)]
        room = min(COLLATERAL // CLASSES, COLLATERAL - len(chosen))
        chosen += [place for place in of_class.tolist() if place not in chosen][:room]
    return chosen


def across(count: int) -> int:
    """Thumbnails in a row, such that a sprite of many is no longer than WebP's 16,383 pixels."""
    return max(ACROSS, math.ceil(math.sqrt(count)))


class Album:
    """The images of an answer set that are here, by cell: its files, else what its sprite keeps of them."""

    def __init__(self, sheet: Sheet):
        self.sheet, self.content = sheet, kept_sprite(sheet)
        self.sprite = Image.open(io.BytesIO(self.content)).convert("RGB") if self.content else None
        self.places = {cell: number for number, cell in enumerate(sheet.cells)} if self.content else {}

    def path(self, cell: Cell) -> Path:
        return self.sheet.path.with_name(image_name(self.sheet, cell))

    def __contains__(self, cell: Cell) -> bool:
        return cell in self.places or self.path(cell).exists()

    def __getitem__(self, cell: Cell) -> Image.Image:
        if self.path(cell).exists():
            return read_picture(self.path(cell))
        y, x = divmod(self.places[cell], across(len(self.places)))
        return self.sprite.crop((SIDE * x, SIDE * y, SIDE * (x + 1), SIDE * (y + 1)))


def sprite(sheet: Sheet) -> bytes | None:
    """The one that is kept, or made of the images and kept; None without either."""
    if content := kept_sprite(sheet):
        return content
    paths = [sheet.path.with_name(image_name(sheet, cell)) for cell in sheet.cells]
    if not all(map(Path.exists, paths)):
        return None
    content = drawn((thumbnail(read_picture(path), SIDE) for path in paths), sheet)
    with contextlib.suppress(OSError), atomic(sheet.path) as temporary:  # a folder that one may only read
        temporary.write_bytes(content)
    return content


def image_name(sheet: Sheet, cell: Cell) -> str:
    return canvas.answer_name(*cell, suffix="." + sheet.result.protocol.format)


def kept_sprite(sheet: Sheet) -> bytes | None:
    """That of these images, whole; None without one."""
    with contextlib.suppress(Exception), Image.open(sheet.path) as page:  # none, or a damaged one: made again
        content = sheet.path.read_bytes()
        whole = len(content) == 8 + int.from_bytes(content[4:8], "little")
        if whole and page.getexif().get(DESCRIPTION) == sheet.key:
            return content
    return None


def drawn(pictures, sheet: Sheet) -> bytes:
    """Pictures of SIDE pixels in rows, as WebP."""
    count = len(sheet.places)
    page = Image.new("RGB", (SIDE * across(count), SIDE * -(-count // across(count))))
    for i, picture in enumerate(pictures):
        page.paste(picture, (i % across(count) * SIDE, i // across(count) * SIDE))
    exif = Image.Exif()
    exif[DESCRIPTION] = sheet.key
    for quality in QUALITIES:
        file = io.BytesIO()
        page.save(file, "WEBP", quality=quality, exif=exif)
        if file.tell() <= BYTES * count:
            break
    return file.getvalue()


def described(sheet: Sheet) -> dict:
    """Places of the images, `across`, and for each the theme and the object seen, and their probabilities."""
    seen = []
    for labels_of in sheet.result.predictions[:2]:
        codes, probs = (values.ravel()[sheet.places] for values in (labels_of.seen, labels_of.seen_prob))
        seen.append([labels_of.names[code] for code in codes])
        seen.append([round(float(prob), 2) for prob in probs])
    return {"places": sheet.places, "across": across(len(sheet.places)), "seen": list(zip(*seen))}


def sampling(result: Result, results: list[Result]) -> str:
    """The command that draws an answer set's images; its base model is that of any run of the same origin."""
    run = next(other for other in results if other.origin == result.origin and other.method != BASE)
    words = ["--model", read_record(run.path).get("model_path")]
    words += [] if result.method == BASE else ["--run", result.path]
    words += ["--protocol", result.protocol.name, "--out", result.answers.folder]
    return shlex.join(["python", "-m", "machine_unlearning.sample", *map(str, words)])
