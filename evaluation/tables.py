"""Tables: every method, the base model, and the published numbers beside them

A figure is computed for every target; a cell is the unweighted mean over targets and its standard deviation,
in percent. Numbers of different protocols or base models are put side by side only if asked for, and marked.

    python -m evaluation.tables runs [--per-target] [--format markdown|csv|json]
"""

import argparse
import csv
import json
import sys
from pathlib import Path
from statistics import StatisticsError, correlation, fmean, stdev

from evaluation import canvas
from evaluation.accuracy import FIGURES
from evaluation.errors import command
from evaluation.fid import WEIGHTS
from evaluation.results import BASE, Judged, collect, next_command

PUBLISHED = Path(__file__).parent / "published" / "mu_main.csv"
KINDS = ("style", "object", "pair", "several")  # of targets: their figures are different things
COSTS = {"FID": 2, "seconds": 1, "memory_GB": 2, "storage_MB": 1}  # decimals; GB and MB are powers of 1000


def means(judged: list[Judged], split: bool = True) -> dict[str, float]:
    """Means over targets, their standard deviations (`_sd`), and the number of targets; figures in percent.

    With `split`, the names of figures begin with the kind of target.
    """
    row = {}
    for kind in KINDS:
        chosen, prefix = [one for one in judged if one.kind == kind], f"{kind}_" if split else ""
        for figure in FIGURES:
            add_mean(
                row, prefix + figure, [100 * one.figures[figure] for one in chosen if figure in one.figures]
            )
        if chosen and split:
            row[f"{kind}_targets"] = len(chosen)
    for cost in COSTS:
        add_mean(row, cost, [one.costs[cost] for one in judged if cost in one.costs])
    return row


def add_mean(row: dict, name: str, values: list[float]) -> None:
    if values:
        row[name] = round(fmean(values), 6)
    if len(values) > 1:
        row[name + "_sd"] = round(stdev(values), 6)


def main_rows(judged: list[Judged]) -> list[dict]:
    """A row for each method (variant, protocol, base model), its published row below.

    If three methods or more have both, a last row holds Spearman's rank correlation between the two.
    """
    published, groups, rows, pairs = published_rows(), {}, [], []
    for one in judged:
        groups.setdefault((one.method, one.variant, one.origin), []).append(one)
    for (method, *_), group in groups.items():
        rows.append({"method": label(group[0], judged)} | means(group))
        if paper := published.pop(method.lower(), None):
            rows.append(paper)
            pairs.append(rows[-2:])
    if len(pairs) > 2:
        rows.append({"method": f"rank correlation ({len(pairs)})"} | agreement(pairs))
    return rows


def agreement(pairs: list[list[dict]]) -> dict[str, float]:
    """Spearman's rank correlation of every figure that all pairs of rows (ours, published) have."""
    shared = [name for name in pairs[0][1] if all(name in row for pair in pairs for row in pair)]
    result = {}
    for name in shared:
        if name.endswith("_targets") or name == "method":
            continue
        try:
            result[name] = correlation(*(ranks([pair[i][name] for pair in pairs]) for i in (0, 1)))
        except StatisticsError:  # all alike: no order to compare
            continue
    return result


def ranks(values: list[float]) -> list[float]:
    """1 for the smallest; equal values share the mean of their ranks."""
    return [(sum(v < x for v in values) + sum(v <= x for v in values) + 1) / 2 for x in values]


def target_rows(judged: list[Judged]) -> list[dict]:
    return [
        {"method": label(one, judged), "target": one.target} | means([one], split=False) for one in judged
    ]


def label(one: Judged, judged: list[Judged]) -> str:
    """The method's name and whatever else sets its row apart from the others."""
    marks = []
    if len({other.variant for other in judged if other.method == one.method}) > 1:
        marks.append(one.variant)
    for i, (what, value) in enumerate(one.origin._asdict().items()):
        if len({other.origin[i] for other in judged}) > 1:
            marks.append(f"{what} {value[:6]}")
    return f"{one.method} ({', '.join(marks)})" if marks else one.method


def published_rows() -> dict[str, dict]:
    """Lower-case method -> a row with the names and units of `means`."""
    rows = {}
    with open(PUBLISHED, newline="") as file:
        for line in csv.DictReader(file):
            name, _ = line.pop("method"), line.pop("source")
            row = {"method": f"{name} (published)"} | {
                key: float(value) for key, value in line.items() if value
            }
            row["seconds"], row["storage_MB"] = row.pop("time_s"), 1000 * row.pop("storage_GB")
            row |= {"style_targets": len(canvas.STYLES), "object_targets": len(canvas.OBJECTS)}
            rows[name.lower()] = row
    return rows


def notes(judged: list[Judged], idle: list[Path], rows: list[dict]) -> list[str]:
    """What must be known to read the table."""
    lines = []
    for name, origin in dict.fromkeys((one.protocol.name, one.origin) for one in judged):
        lines.append(
            f"Protocol {name} ({origin.protocol}), base model {origin.model}, judges {origin.judges}."
        )
        if not any(one.method == BASE and one.origin == origin for one in judged):
            lines.append(f"No row of the base model: ROOT/{BASE}/answers has no such predictions.")
    if any(row["method"].endswith("(published)") for row in rows):
        lines.append(
            "(published): the paper's numbers. Protocol and model differ: for orientation, not comparison."
        )
    if extractors := sorted({one.extractor for one in judged if one.extractor}):
        lines.append(
            f"FID is that of the {' and the '.join(extractors)} extractor; other extractors' do not compare."
        )
    for name in sorted({one.protocol.fid_extractor for one in judged if not one.extractor}):
        without = {one.path for one in judged if not one.extractor and one.protocol.fid_extractor == name}
        some = f" for {len(without)} answer sets" if extractors else ""
        needed = [file for file in WEIGHTS[name] if not Path(file).exists()]
        remedy = f"needs {' and '.join(needed)}" if needed else "run python -m evaluation.fid"
        lines.append(f"FID not measured{some} ({remedy})")
    return lines + [f"not judged: {path}; {next_command(path)}" for path in idle]


def columns(rows: list[dict]) -> list[str]:
    """The names that occur in any row, in reading order."""
    groups = [
        list(FIGURES),
        *([f"{kind}_{name}" for name in (*FIGURES, "targets")] for kind in KINDS),
        list(COSTS),
    ]
    names = [
        "method",
        "target",
        *(each for group in groups for name in group for each in (name, name + "_sd")),
    ]
    return [name for name in names if any(name in row for row in rows)]


def markdown(rows: list[dict]) -> str:
    """A table that also reads well as plain text; CRA_kept of the means is left to csv and json."""
    names = [name for name in columns(rows) if not name.endswith(("_sd", "_CRA_kept"))]
    table = [
        [name.replace("_", " ") for name in names],
        *([cell(row, name) for name in names] for row in rows),
    ]
    widths = [max(len(line[i]) for line in table) for i in range(len(names))]
    left = ("method", "target")
    table.insert(1, ["-" * w if name in left else "-" * (w - 1) + ":" for name, w in zip(names, widths)])
    aligned = [
        [x.ljust(w) if n in left else x.rjust(w) for n, x, w in zip(names, line, widths)] for line in table
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in aligned)


def cell(row: dict, name: str) -> str:
    value = row.get(name, "-")
    if not isinstance(value, float):
        return str(value)
    spread = f" ±{row[name + '_sd']:.1f}" if name + "_sd" in row and name not in COSTS else ""
    return f"{value:.{COSTS.get(name, 2)}f}{spread}"


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.tables", description="Tables of a folder of runs."
    )
    parser.add_argument(
        "roots", type=Path, nargs="+", metavar="ROOT", help="folder with METHOD/TARGET runs and base/"
    )
    parser.add_argument("--format", choices=["markdown", "csv", "json"], default="markdown")
    parser.add_argument("--per-target", action="store_true", help="one row for every method and target")
    parser.add_argument(
        "--any-protocol", action="store_true", help="allow, and mark, different protocols or models"
    )
    args = parser.parse_args(argv)
    judged, idle = collect(args.roots, args.any_protocol)
    rows = target_rows(judged) if args.per_target else main_rows(judged)
    below = notes(judged, idle, rows)
    if args.format == "json":
        print(json.dumps({"rows": rows, "notes": below}, indent=1))
    elif args.format == "csv":
        writer = csv.DictWriter(sys.stdout, columns(rows), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        print(*below, sep="\n", file=sys.stderr)
    else:
        print(markdown(rows) if rows else "No judged runs.", "", *below, sep="\n")


if __name__ == "__main__":
    main()
