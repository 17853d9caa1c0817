"""The table of style transfer: what `style_transfer.evaluate` left in every folder of outputs

    python -m style_transfer.table runs/style_transfer [--format markdown|latex|csv|json]

Losses: lower is better; `std` columns are deviations of vgg_style_truth within a style, an object, a content
image. Folders that were judged in part are named below the table and are no row of it. The trivial rows come
first (`content`: left as it is; `statistics`: its colours given the style's mean and deviation);
`beats_trivial` names the style losses against the ground truth in which a method is below both. The paper's
table follows: it was measured by another protocol, so its numbers do not compare. Both are left in
ROOT/table.json, for evaluation.report.
"""

import csv
import json
import math
import sys
from pathlib import Path

from evaluation.core.errors import UserError, command, printable, refused
from evaluation.core.files import read_json, write_json
from evaluation.reporting.formats import latex, markdown, print_csv
from style_transfer.core.cli import new_parser

LOSSES = "losses.json"
FIELDS = {  # what it must hold
    **dict.fromkeys(("protocol", "judges", "made", "summary", "accuracy", "styles", "objects"), dict),
    **{"data": str, "outputs": int, "of": int},
}
UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
PUBLISHED = Path(__file__).parent / "published.csv"
TRIVIAL = ("content", "statistics")
JUDGED_BY = {"vgg": "vgg_style_truth", "vit": "vit_style_truth"}  # what a method should beat them in
PERCEPTUAL = ("LPIPS", "FID", "ArtFID", "mini-perceptual", "mini-FID", "mini-ArtFID")
DECIMALS = {"style_accuracy": 1, "object_accuracy": 1, "FID": 1, "ArtFID": 1, "mini-FID": 2, "mini-ArtFID": 2}
DECIMALS |= {"seconds_network": 4, "seconds": 4, "memory_GB": 2, "storage_MB": 1}  # others: 3
PAPER = {"storage_MB": 0}, 2  # decimals of the paper's
NOTE = (
    "The paper's table (v1, Table A3), measured by another protocol: the released networks at 512 pixels, "
    "judged by the official scripts; for orientation, not comparison."
)


def read_judged(roots: list[Path]) -> dict[str, dict]:
    """Name of a folder -> what is in its losses.json. Raises UserError for folders that do not compare."""
    paths = sorted(path for root in roots for path in root.glob(f"*/{LOSSES}"))
    run = "run python -m style_transfer.evaluate"
    if not paths:
        raise UserError(f"{roots[0]}: no folder with a {LOSSES}; {run} on them")
    judged = {path.parent.name: read_losses(path) for path in paths}
    if len(judged) < len(paths):
        raise UserError(f"{' '.join(map(str, roots))}: two folders have one name; rename one")
    judged = {name: about for name, about in judged.items() if is_whole(about, judged)}
    if not judged:
        raise UserError(f"{roots[0]}: no folder was judged in full; {run}")
    under = {name: {"protocol": its["protocol"]["hash"], "data": its["data"]} for name, its in judged.items()}
    first = next(iter(under))
    for name in under:
        if odd := [what for what, value in under[name].items() if value != under[first][what]]:
            remedy = "tables do not mix them, so keep them in different folders"
            raise UserError(f"{name}: was judged under another {odd[0]} than {first}; {remedy}")
    for judge in dict.fromkeys(judge for about in judged.values() for judge in about["judges"]):
        if len({about["judges"].get(judge) for about in judged.values()} - {None}) > 1:
            raise UserError(f"{judge}: not the same file for all folders; judge them again with one")
    return judged


def is_whole(about: dict, judged: dict[str, dict]) -> bool:
    """Whether all outputs of the protocol were judged. Older files count those of a selection alone, so that
    they are told by fewer outputs than others have."""
    return about["outputs"] == about["of"] == max(others["of"] for others in judged.values())


def judged_in_part(roots: list[Path], whole) -> list[str]:
    """Remarks on the folders that are no row for want of outputs."""
    files = {path.parent.name for root in roots for path in root.glob("*/losses*.json")}
    return [f"{name}: judged in part; not in the table." for name in sorted(files - {*whole})]


def read_losses(path: Path) -> dict:
    """What a losses.json holds; raises UserError unless all that the table shows is there, and finite."""
    about = read_json(path, **FIELDS)
    with refused(f"{path}: damaged; judge the folder again", *UNFIT):
        remarks({path.parent.name: about})
        texts = [about["protocol"]["name"], about["protocol"]["hash"]]
        texts += [text for text in (about["made"]["method"], *about["judges"].values()) if text is not None]
        if odd := [text for text in texts if not isinstance(text, str)]:
            raise TypeError(f"{odd[0]!r:.60} is no text")
        for name, value in row(path.parent.name, about).items():
            if name != "method" and not math.isfinite(value):
                raise ValueError(f"{name} is {value}")
    return about


def row(name: str, about: dict) -> dict:
    """The row of a folder: losses, accuracies in percent, costs of an output."""
    summary, cost = about["summary"], about.get("cost")
    made = {"method": name}
    if style := summary.get("vgg_style_truth"):
        made["vgg_style_truth"] = style["mean"]
        made |= {f"std_{grain}": style[f"std_{grain}"] for grain in ("style", "object", "content")}
    for column in ("vgg_content_photo", "vit_style_truth", "vit_content_photo"):
        if column in summary:
            made[column] = summary[column]["mean"]
    for task in ("style", "object"):
        if task in about["accuracy"]:
            made[f"{task}_accuracy"] = 100 * about["accuracy"][task]
    made |= {key: value for key, value in about.get("perceptual", {}).items() if key in PERCEPTUAL}
    if cost:
        made |= {key: cost[key] for key in ("seconds_network", "seconds")}
        made |= {"memory_GB": cost["peak_memory"] / 1e9, "storage_MB": cost["stored_bytes"] / 1e6}
    return made


def rows(judged: dict[str, dict]) -> list[dict]:
    """One for every folder, the trivial ones first; the others say whether they beat both."""
    methods = {name: about["made"]["method"] for name, about in judged.items()}
    floor = {methods[name]: row(name, about) for name, about in judged.items() if methods[name] in TRIVIAL}
    table = [floor[method] for method in TRIVIAL if method in floor]
    for name, about in judged.items():
        if methods[name] in TRIVIAL:
            continue
        table.append(row(name, about))
        if len(floor) == len(TRIVIAL):
            table[-1]["beats_trivial"] = beaten(table[-1], list(floor.values()))
    return table


def beaten(method: dict, trivial: list[dict]) -> str:
    """`vgg, vit`, one of them, or `neither`: the losses in which a row is below all trivial ones."""
    known = {judge: column for judge, column in JUDGED_BY.items() if column in method}
    below = [judge for judge, c in known.items() if all(c in row and method[c] < row[c] for row in trivial)]
    return ", ".join(below) or "neither"


def published_rows() -> list[dict]:
    """The paper's, in the units of ours."""
    table = []
    with open(PUBLISHED, newline="") as file:
        for line in csv.DictReader(file):
            name, _ = line.pop("method"), line.pop("source")
            made = {key.replace("_over", ""): float(value) for key, value in line.items()}
            made["seconds"], memory = made.pop("time_s_per_image"), made.pop("memory_GB")
            made |= {"memory_GB": memory, "storage_MB": 1000 * made.pop("storage_GB")}
            table.append({"method": f"{name} (published)"} | made)
    return table


def remarks(judged: dict[str, dict]) -> list[str]:
    """What must be known to read the table."""
    about = next(iter(judged.values()))
    lines = [f"Protocol {about['protocol']['name']} ({about['protocol']['hash']}), data {about['data']}."]
    for name, its in judged.items():
        if its["made"]["method"] and not its.get("cost"):
            lines.append(f"{name}: no record of its costs.")
    if len({its.get("dtype", "float32") for its in judged.values()}) > 1:
        lines.append("Not all were judged in the same precision; see dtype in losses.json.")
    if missing := set(TRIVIAL) - {its["made"]["method"] for its in judged.values()}:
        lines.append(f"Trivial rows missing: {', '.join(sorted(missing))}; beats_trivial needs both.")
    devices = {device for its in judged.values() for device in its.get("cost", {}).get("devices", [])}
    if devices:
        names = ", ".join(sorted(devices))
        lines.append(f"Seconds an output on {names}; network: encoding and decoding alone.")
    return lines


def columns(table: list[dict]) -> list[str]:
    """In reading order: those of the fullest row first."""
    return list(dict.fromkeys(name for row in sorted(table, key=len)[::-1] for name in row))


def rounded(table: list[dict], decimals: dict[str, int] = DECIMALS, otherwise: int = 3) -> list[dict]:
    """Figures as texts; by default ours."""
    return [
        {k: f"{v:.{decimals.get(k, otherwise)}f}" if isinstance(v, float) else v for k, v in row.items()}
        for row in table
    ]


def texts(table: list[dict], *decimals) -> dict:
    """A table as evaluation.report shows it: for every cell its text, and the value to sort by."""
    names = columns(table)
    lines = [
        [(text.get(name, "-"), row.get(name, "")) for name in names]
        for row, text in zip(table, rounded(table, *decimals))
    ]
    return {"names": names, "texts": ["method", "beats_trivial"], "rows": lines}


@command
def main(argv=None):
    parser = new_parser("table", __doc__)
    parser.add_argument("roots", type=Path, nargs="+", metavar="ROOT", help="folder of folders of outputs")
    parser.add_argument("--format", choices=("markdown", "latex", "csv", "json"), default="markdown")
    args = parser.parse_args(argv)
    judged = read_judged(args.roots)
    table, paper = rows(judged), published_rows()
    below = remarks(judged) + judged_in_part(args.roots, judged)
    left = {"tables": [texts(table), texts(paper, *PAPER)], "notes": [*below, NOTE]}
    write_json(args.roots[0] / "table.json", left)
    if args.format == "json":
        print(json.dumps({"rows": table, "published": paper, "notes": [*below, NOTE]}, indent=1))
    elif args.format == "csv":
        print_csv(table + paper, list(dict.fromkeys(columns(table) + columns(paper))))
        print(printable("\n".join(below)), NOTE, sep="\n", file=sys.stderr)
    else:
        draw, mark = (latex, "% ") if args.format == "latex" else (markdown, "")
        notes = [mark + printable(line) for line in below]
        print(draw(rounded(table), columns(table)), "", *notes, "", sep="\n")
        print(mark + NOTE, "", draw(rounded(paper, *PAPER), columns(paper)), sep="\n")


if __name__ == "__main__":
    main()
