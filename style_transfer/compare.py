"""Which metric ranks methods as the ground truth does? And which method is better, how surely, at what?

    python -m style_transfer.compare runs/style_transfer [--by COLUMN] [--strengths runs/strengths]

Reads what style_transfer.evaluate left in every folder (`losses.csv.gz`). Folders that were judged in part
are left out, and the two trivial transfers are no methods. Printed are

    rank correlations of every metric that needs no ground truth with the distances from the ground truth,
    over methods and over the outputs of one photo and reference;
    leaderboards by one distance (--by), of all styles and objects and of every single one;
    differences of every two methods on the same photos and references;
    with --strengths, which holds folders of the same methods at other strengths: the trade-off

with 95 % bootstrap intervals (core/agreement.py); all is left in ROOT/compare.json.
"""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation import canvas
from evaluation.core.errors import UserError, closest, command, refused
from evaluation.core.files import write_json
from evaluation.reporting.formats import markdown
from style_transfer.core import agreement
from style_transfer.core.cli import new_parser
from style_transfer.core.statistics import NAMES
from style_transfer.table import TRIVIAL, UNFIT, judged_in_part, read_judged, rounded

IDENTITY = ["style", "object", "content", "reference"]
WHOLE = ("LPIPS_truth", "mini-perceptual_truth", "rmse_truth")  # distances of the whole image
SHOWN = (*WHOLE, "vgg_style_truth", "vit_style_truth", "vgg_content_truth")  # truths that are printed
OVER = ("methods", "outputs")
FIGURES = ("FID", "ArtFID", "mini-FID", "mini-ArtFID")  # of all outputs of a method


def read_rows(path: Path) -> pd.DataFrame:
    """The rows of a folder, and as columns what its classifiers, where they know all the styles, did not see
    as asked."""
    with refused(f"{path}: damaged; judge the folder again", *UNFIT, OSError, EOFError, gzip.BadGzipFile):
        rows = pd.read_csv(path)
        for task in ("style", "object"):
            if f"{task}_seen" in rows and rows["style"].isin(canvas.STYLES).all():
                rows[f"{task}_missed"] = (rows[task] != rows[f"{task}_seen"]).astype(float)
        return rows.set_index(IDENTITY).sort_index()


def read_values(folders: dict[str, Path]) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
    """-> column -> [methods, styles, objects, pairs], styles, objects. Raises UserError for unequal rows."""
    tables = {name: read_rows(folder / "losses.csv.gz") for name, folder in folders.items()}
    first = next(iter(tables.values()))
    for name, table in tables.items():
        if not table.index.equals(first.index):
            raise UserError(f"{name}: has rows of other outputs than {next(iter(tables))}; judge both again")
    styles, objects = (first.index.unique(grain).tolist() for grain in ("style", "object"))
    columns = [c for c in first if c not in NAMES and all(c in table for table in tables.values())]
    values = {column: np.stack([table[column] for table in tables.values()]) for column in columns}
    shape = len(tables), len(styles), len(objects), -1
    return {column: array.reshape(shape) for column, array in values.items()}, styles, objects


def correlations(values: dict[str, np.ndarray], figures: dict[str, np.ndarray]) -> list[dict]:
    """A row for every metric and truth. `figures`: [methods]."""
    rows, truths = [], [column for column in values if column.endswith("_truth")]
    for metric, ours in ({c: v for c, v in values.items() if c not in truths} | figures).items():
        for truth in truths:
            row = {"metric": metric, "truth": truth}
            row["methods"] = agreement.over_methods(ours, values[truth])
            if ours.ndim > 1:
                row["outputs"] = agreement.over_outputs(ours, values[truth])
            rows.append(row)
    return rows


def leaderboards(values: np.ndarray, names: list[str], styles: list[str], objects: list[str]) -> dict:
    """Of all, and of every style and object: `agreement.leaderboard`."""
    boards = {"all": agreement.leaderboard(values, names)}
    for axis, labels in ((1, styles), (2, objects)):
        for place, label in enumerate(labels):
            boards[label] = agreement.leaderboard(values.take([place], axis), names)
    return boards


def trade_off(judged: dict[str, dict], by: str) -> list[dict]:
    """A row for every folder of a method that has several strengths: the losses' means."""
    curves = {}
    for about in judged.values():
        made = about["made"]
        if "strength" in (options := made.get("options") or {}):
            rest = {key: value for key, value in options.items() if key != "strength"}
            name = " ".join([made["method"], *(str(rest[key]) for key in ("operator",) if key in rest)])
            curves.setdefault((name, str(rest)), {})[options["strength"]] = about["summary"]
    columns = dict.fromkeys(("vgg_style_truth", "vgg_style_reference", "vgg_content_photo", by))
    return [
        {"method": name, "strength": float(strength)}
        | {column: curve[strength][column]["mean"] for column in columns if column in curve[strength]}
        for (name, _), curve in sorted(curves.items())
        if len(curve) > 1
        for strength in sorted(curve)
    ]


def shown(figure: dict, decimals: int = 2) -> str:
    text = "{value:.{d}f}" if figure["low"] is None else "{value:.{d}f} [{low:.{d}f}, {high:.{d}f}]"
    return text.format(**figure, d=decimals)


def correlation_table(rows: list[dict], over: str) -> str:
    truths = [truth for truth in SHOWN if any(row["truth"] == truth for row in rows)]
    table = {}
    for row in rows:
        if row["truth"] in truths and over in row:
            table.setdefault(row["metric"], {"metric": row["metric"]})[row["truth"]] = shown(row[over])
    return markdown([*table.values()], ["metric", *truths])


def board_table(boards: dict) -> str:
    """Methods by rows: the mean over all, in every style and object; * where none is better for sure."""
    table = {row["method"]: {"method": row["method"]} for row in boards["all"]}
    for label, board in boards.items():
        for place, row in enumerate(board):
            mark = "*" if place == 0 or row["tied"] else ""
            text = shown(row | {"value": row["mean"]}, 3) if label == "all" else f"{row['mean']:.3f}"
            table[row["method"]][label] = text + mark
    return markdown([*table.values()], ["method", *boards])


def difference_table(rows: list[dict]) -> str:
    table = [
        {key: row[key] for key in ("first", "second")}
        | {"difference": shown(row | {"value": row["difference"]}, 4)}
        | {"wins, %": f"{100 * row['wins']:.0f}", "q": f"{row['q']:.3f}"}
        for row in rows
    ]
    return markdown(table, list(table[0]))


@command
def main(argv=None):
    parser = new_parser("compare", __doc__)
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of folders of outputs")
    parser.add_argument("--by", help="distance of the leaderboards (LPIPS_truth, mini-perceptual_truth)")
    parser.add_argument("--strengths", type=Path, metavar="ROOT", help="the same at other strengths")
    args = parser.parse_args(argv)
    judged = {n: a for n, a in read_judged([args.root]).items() if a["made"]["method"] not in TRIVIAL}
    if len(judged) < agreement.FEWEST:
        raise UserError(f"{args.root}: {len(judged)} methods; at least {agreement.FEWEST} can be ranked")
    values, styles, objects = read_values({name: args.root / name for name in judged})
    by = args.by or next((column for column in WHOLE if column in values), None)
    if by not in values:
        raise UserError(f"--by {by}: no column of all folders; {closest(str(by), values)}")
    perceptual = [about.get("perceptual", {}) for about in judged.values()]
    figures = {f: np.array([p[f] for p in perceptual]) for f in FIGURES if all(f in p for p in perceptual)}
    names = list(judged)
    content = {"protocol": next(iter(judged.values()))["protocol"], "methods": names, "by": by}
    content["correlations"] = correlations(values, figures)
    content["leaderboards"] = leaderboards(values[by], names, styles, objects)
    content["differences"] = agreement.differences(values[by], names)
    parts = {f"Rank correlation over {o}": correlation_table(content["correlations"], o) for o in OVER}
    parts[f"Leaderboards by {by}; * none is better for sure"] = board_table(content["leaderboards"])
    parts["Differences, first - second"] = difference_table(content["differences"])
    if args.strengths:
        content["strengths"] = rows = trade_off(judged | read_judged([args.strengths]), by)
        if rows:
            parts["Trade-off over strength"] = markdown(rounded(rows, {"strength": 1}), list(rows[0]))
    write_json(args.root / "compare.json", content)
    for title, text in parts.items():
        print(f"{title}\n\n{text}\n")
    print(*judged_in_part([args.root], [*judged, *TRIVIAL]), sep="\n", end="")


if __name__ == "__main__":
    main()
