"""The sections of a report that not every folder of runs has: tables, what must be known, and a picture

A function makes each, or None where there is nothing to show; `page.render` lists them, and the page shows
all alike. One more is one more function and its line there.
"""

import base64
import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from evaluation.core.errors import UserError, refused
from evaluation.core.files import check_keys, read_json
from evaluation.data.pictures import read_picture
from evaluation.drawing import curves
from evaluation.drawing.look import styled
from evaluation.drawing.pairs import pairs_page
from evaluation.reporting import side_effects as effects
from evaluation.reporting.adversarial import (
    attack_columns,
    attack_remarks,
    attack_rows,
    attack_target_rows,
)
from evaluation.reporting.asked import Asked
from evaluation.reporting.collect import Result
from evaluation.reporting.formats import TEXTS, cell, present, printed
from evaluation.reporting.probes import (
    ABOUT,
    SUMMARY,
    probe_columns,
    probe_remarks,
    probe_rows,
    summary_columns,
    summary_rows,
)
from evaluation.reporting.remarks import sequence_remarks
from evaluation.reporting.rows import by_setting, main_rows, target_rows
from evaluation.reporting.sequences import sequence_rows, triangle_rows

PAIRS = (
    "UA: the share of the pair's images that not both judges still recognise; UA_both: neither does.",
    "SC: the style on other objects; OC: the object in other styles; UP: both, where neither is asked for; "
    "UP_both: both right at once; FR: the mean of SC, OC and UP.",
)


class Tab(NamedTuple):
    anchor: str  # of the page
    title: str
    tables: list[tuple[str, dict]]  # caption, and what `table` makes
    notes: list[str]
    picture: str = ""  # WebP, base64
    shows: str = ""  # what is in the picture, for who does not see it


def table(rows: list[dict], names: list[str], intervals: bool = False) -> dict:
    """Heads, and for every row its cells: the text, and the value to sort by."""
    lines = [[(cell(row, name, intervals), row.get(name, "")) for name in names] for row in rows]
    return {"names": names, "texts": TEXTS, "rows": lines}


def embedded(image: Image.Image) -> str:
    """As base64 of a WebP file."""
    image.save(file := io.BytesIO(), "WEBP", quality=80)
    return base64.b64encode(file.getvalue()).decode()


def sequential(results: list[Result], idle: list[Path]) -> Tab | None:
    """Of runs that went on from others."""
    with styled():
        figure = curves.sequential(results)
        if figure is None:
            return None
        figure.savefig(file := io.BytesIO(), format="png")
    parts = (
        ("After the last request, in percent", *sequence_rows(results)),
        ("After every request, in percent", *triangle_rows(results)),
    )
    tables = [(caption, table(rows, present(names, rows, False))) for caption, rows, names in parts]
    notes = sequence_remarks(results, idle, [row for _, rows, _ in parts for row in rows])
    shows = "UA of every request, and SR, against the number of requests"
    return Tab("sequential", "Sequential", tables, notes, embedded(read_picture(file)), shows)


def means_and_targets(results: list, means, targets) -> list[tuple[str, list[dict]]]:
    """Captions and rows of `means`, then of `targets`: a table for every kind of target."""
    captions = {"Means over targets ± standard deviation, in percent": means}
    captions |= {"Every target, in percent": targets}
    return [(caption, make(part)) for caption, make in captions.items() for part in by_setting(results)]


def adversarial(attacks: list[Asked]) -> Tab | None:
    """Of adversarial prompts against runs, and against the base model."""
    if not attacks:
        return None
    made = means_and_targets(attacks, attack_rows, attack_target_rows)
    tables = [(caption, table(rows, present(attack_columns(), rows, False))) for caption, rows in made]
    notes = attack_remarks(attacks, [], [row for _, rows in made for row in rows])
    return Tab("adversarial", "Adversarial prompts", tables, notes)


def probes(every: dict[str, list[Asked]], sheet: Path | None) -> Tab | None:
    """What attacks and probes brought back; `sheet` is of `evaluation.probe_sheet`, if there is one."""
    if not (kinds := [kind for kind in every if kind in ABOUT]):
        return None
    rows = summary_rows(every)
    tables = [(SUMMARY, table(rows, present(summary_columns(every), rows, False)))]
    for kind in kinds:
        for part in by_setting(every[kind]):
            rows, caption = probe_rows(part), f"{kind}: means over targets ± standard deviation, in percent"
            tables.append((caption, table(rows, present(probe_columns(part), rows, False))))
    notes = [line for kind in kinds for line in probe_remarks(kind, every[kind], [])]
    picture = embedded(read_picture(sheet)) if sheet else ""
    return Tab("probes", "Probes", tables, notes, picture, "A forgotten prompt under every probe, by method")


def side_effects(results: list[Result], idle: list[Path]) -> Tab | None:
    """Of forgetting styles and objects: on their neighbours, and on their own images."""
    if not (shown := effects.compared(results)):
        return None
    made = means_and_targets(shown, effects.effect_rows, effects.effect_target_rows)
    names = effects.effect_columns()
    tables = [(caption, table(rows, present(names, rows, False))) for caption, rows in made]
    return Tab("side-effects", "Side effects", tables, effects.effect_remarks(results, idle, shown))


def finer_scale(pairs: list[Result]) -> Tab | None:
    """Of runs that forgot one object in one style, and the base model's results for these."""
    if not pairs:
        return None
    parts = (
        ("Means over pairs ± standard deviation, in percent", main_rows(pairs)),
        ("Every pair, in percent", target_rows(pairs)),
    )
    tables = [(caption, table(rows, printed(rows))) for caption, rows in parts]
    sheet = pairs_page(pairs)
    shows = "A pair's style with every object and its object in every style, base model above unlearned"
    return Tab("finer", "Finer scale", tables, list(PAIRS), embedded(sheet) if sheet else "", shows)


def style_transfer(root: Path | None) -> Tab | None:
    """What `style_transfer.table` and `style_transfer.sheet` left in `root`; None without one."""
    if root is None:
        return None
    if not (root / "table.json").exists():
        raise UserError(f"--style-transfer {root}: no table.json; run python -m style_transfer.table on it")
    content = read_json(root / "table.json", tables=list, notes=list)
    check_keys(root / "table.json", dict(enumerate(content["tables"])), {0: dict, 1: dict})
    with refused(f"{root}/table.json: damaged; make it again", TypeError, ValueError, LookupError):
        for drawn in content["tables"]:
            drawn["rows"] = [[(str(text), value) for text, value in row] for row in drawn["rows"]]
            drawn |= {key: list(drawn[key]) for key in ("names", "texts")}
    captions = ("Losses, accuracies and costs of outputs", "The paper's table, another protocol")
    sheet = root / "sheet.png"
    picture = embedded(read_picture(sheet)) if sheet.exists() else ""
    tables = list(zip(captions, content["tables"]))
    shows = "Photo, reference, every method's output, ground truth"
    return Tab("transfer", "Style transfer", tables, content["notes"], picture, shows)
