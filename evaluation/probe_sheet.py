"""Probe sheet: forgotten prompts drawn plain and under every probe, a line a method

The first noise is the same in all of them. Frames tell in which pictures the target is recognised. Of the
pictures of the noise probe the most convincing is shown, of relearning those after its longest tunings.

    python -m evaluation.probe_sheet runs --targets Sketch Cats --out runs/probes.webp   # the report shows it
"""

import argparse
from itertools import accumulate
from pathlib import Path

from evaluation import canvas
from evaluation.core import flags
from evaluation.core.errors import UserError, command, early

PICTURES = (".png", ".webp")
SHEET = "probes.webp"


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m evaluation.probe_sheet", description="What probes bring back, to look at."
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder with METHOD/TARGET runs and base/")
    parser.add_argument(
        "--targets", nargs="+", required=True, help="of the runs to show, one below the other"
    )
    out = f"a picture; the report shows ROOT/{SHEET}"
    parser.add_argument("--out", type=flags.new_path, required=True, metavar="FILE.webp", help=out)
    args = parser.parse_args(argv)
    for target in args.targets:
        canvas.parse_targets(target.replace(canvas.CHAIN, ","), "--targets")
    if Path(args.out).suffix.lower() not in PICTURES:
        raise UserError(f"--out {args.out}: expected a name that ends in {' or '.join(PICTURES)}")
    return args


early(__name__, parse)

from PIL import Image, ImageDraw

from evaluation import probes
from evaluation.answers.probed import PLAIN, TABLE, Probed, picture_path
from evaluation.core.files import atomic
from evaluation.data.pictures import read_picture, thumbnail
from evaluation.drawing.sheets import GAP, GREY, INK, LABELS, MARGIN, MARK, edged, font, write_fitting
from evaluation.metrics.published import spelled
from evaluation.reporting.asked import read_rows
from evaluation.reporting.collect import BASE

SIDE, STEP, HEADER = 84, 96, 188  # pixels: of a picture, from line to line, above the first
Shown = dict[tuple[str, str], tuple[Path, bool]]  # probe, condition -> picture, is the target recognised


def chosen(plan: probes.Prompted, rows: list[Probed]) -> dict[str, Probed]:
    """Name -> row of a prompt's pictures that are shown."""
    plain, *others = rows
    if isinstance(plan, probes.Noise):
        return {PLAIN: plain, "best": max(others, key=lambda row: (row.shown, likeness(row)))}
    if isinstance(plan, probes.Relearning):
        last = [name for name, (*_, steps) in plan.conditions.items() if steps == plan.budgets[-1]]
        others = [row for row in others if row.condition in last]
    return {row.condition: row for row in rows if row in (plain, *others)}


def likeness(row: Probed) -> float:
    """The judges' probability of the target."""
    (target,) = canvas.parse_targets(row.target)
    return (row.seen.theme_prob if target.style else 1) * (row.seen.object_prob if target.object else 1)


def shown_of(folder: Path, kind: str) -> Shown:
    """What a probe's folder shows of its first prompt; UserError if it is damaged or lacks a picture."""
    plan, _, rows = read_rows(folder, TABLE, probes.KINDS[kind])
    first, pictures = (rows[0].target, rows[0].seen[:3]), {}
    several = any(row.target != first[0] for row in rows)
    for name, row in chosen(plan, [row for row in rows if (row.target, row.seen[:3]) == first]).items():
        path = picture_path(folder, first[0], several, first[1], row.condition, f".{plan.world.format}")
        if not path.exists():
            raise UserError(f"{path}: not there; remove {folder} and probe again")
        pictures["" if name == PLAIN else kind, name] = path, row.shown
    return pictures


def lines(root: Path, target: str) -> dict[str, Shown]:
    """Method -> its pictures, the base model first; UserError if nothing was probed."""
    made = {}
    for kind in probes.KINDS:
        folders = {BASE: root / BASE / kind / target}
        folders |= {path.parts[-3]: path for path in sorted(root.glob(f"*/{target}/{kind}"))}
        for method, folder in folders.items():
            if (folder / TABLE.file).exists():
                made.setdefault(method, {}).update(shown_of(folder, kind))
    if not made:
        raise UserError(
            f"--targets {target}: no probe of it in {root}; make some with machine_unlearning.probe"
        )
    return made


def sheet(target: str, made: dict[str, Shown]) -> Image.Image:
    """The page, RGB: a line a method, a column a condition, the probes' names above theirs."""
    columns = list(
        dict.fromkeys(
            key for kind in ("", *probes.KINDS) for s in made.values() for key in s if key[0] == kind
        )
    )
    width, height = MARGIN + LABELS + len(columns) * (SIDE + GAP) + MARGIN, HEADER + len(made) * STEP + MARGIN
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    title = f"{canvas.spoken(target)} asked for again"
    draw.text((MARGIN, MARGIN + 26), title, INK, font(34), "ls", stroke_width=0.6)
    draw.text((MARGIN, MARGIN + 58), "same noise; framed where the judge sees it", GREY, font(20), "ls")
    for place, (kind, name) in enumerate(columns):
        left = MARGIN + LABELS + place * (SIDE + GAP)
        if place == 0 or columns[place - 1][0] != kind:
            draw.text((left, HEADER - 72), kind, INK, font(18), "ls", stroke_width=0.4)
        for line, word in enumerate(name.split(" ")):
            draw.text((left, HEADER - 50 + 17 * line), word, GREY, font(14), "ls")
    for number, (method, pictures) in enumerate(made.items()):
        top = HEADER + number * STEP + 8
        write_fitting(draw, (MARGIN + LABELS - 12, top + SIDE / 2), spelled(method), LABELS - 12, "rm", INK)
        for place, key in enumerate(columns):
            if key in pictures:
                path, shown = pictures[key]
                left = MARGIN + LABELS + place * (SIDE + GAP)
                page.paste(edged(thumbnail(read_picture(path), SIDE)), (left, top))
                if shown:
                    corners = (left - 3, top - 3, left + SIDE + 2, top + SIDE + 2)
                    draw.rectangle(corners, outline=MARK, width=3)
    return page


@command
def main(argv=None):
    args = parse(argv)
    sheets = [sheet(target, lines(args.root, target)) for target in dict.fromkeys(args.targets)]
    page = Image.new(
        "RGB", (max(part.width for part in sheets), sum(part.height for part in sheets)), "white"
    )
    for top, part in zip(accumulate([0, *(part.height for part in sheets)]), sheets):
        page.paste(part, (0, top))
    with atomic(args.out) as temporary:
        page.save(temporary, Path(args.out).suffix[1:], quality=85)


if __name__ == "__main__":
    main()
