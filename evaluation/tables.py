"""Tables: every method, the base model, and the published numbers beside them

A figure is computed for every target; a cell is the unweighted mean over targets and its standard deviation,
in percent. Numbers of different protocols or base models are put side by side only if asked for, and marked;
runs of other settings or training seeds have rows of their own.
csv and json also hold medians, bootstrap intervals (`metrics.bootstrap`) and differences to the paper.

    python -m evaluation.tables runs [--per-target] [--statistics] [--format markdown|latex|csv|json]
    python -m evaluation.tables runs --method esd           # its figures with intervals and worst targets
    python -m evaluation.tables runs --compare esd uce      # their differences, target by target
    python -m evaluation.tables runs --explain esd/Sketch/UA   # the images behind a figure
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

from evaluation.core.errors import UserError, closest, command, early
from evaluation.metrics.bootstrap import LEVEL

FORMATS = ("markdown", "latex", "csv", "json")


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m evaluation.tables", description="Tables of a folder of runs.")
    root = "folder with METHOD/TARGET runs and base/"
    parser.add_argument("roots", type=Path, nargs="+", metavar="ROOT", help=root)
    parser.add_argument("--format", choices=FORMATS, default="markdown")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--per-target", action="store_true", help="one row for every method and target")
    what.add_argument("--method", help="one row for every figure of this method, with its worst targets")
    what.add_argument("--explain", metavar="METHOD/TARGET/METRIC", help="the images behind a figure")
    what.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two methods' paired differences, A - B")
    statistics = f"{LEVEL} %% intervals in place of standard deviations, and differences to the paper"
    parser.add_argument("--statistics", action="store_true", help=statistics)
    mixed = "allow, and mark, different protocols or models"
    parser.add_argument("--any-protocol", action="store_true", help=mixed)
    args = parser.parse_args(argv)
    if args.explain and args.explain.count("/") != 2:
        raise UserError(f"--explain {args.explain}: expected METHOD/TARGET/METRIC, such as esd/Sketch/UA")
    return args


early(__name__, parse)

from evaluation.reporting import rows
from evaluation.reporting.collect import BASE, Result, collect, read_all
from evaluation.reporting.explain import explain
from evaluation.reporting.formats import columns, latex, markdown, plain, print_csv, printed
from evaluation.reporting.remarks import PAIRED, STATISTICS, remarks


def explained(path: str, results: list[Result]) -> tuple[list[dict], list[str]]:
    """-> rows and remarks for METHOD/TARGET/METRIC."""
    method, target, figure = path.split("/")
    runs = {result.target: result for result in rows.find(method, results, "--explain")}
    if target not in runs:
        raise UserError(f"--explain {path}: {method} has no target {target!r}; {closest(target, runs)}")
    lines, total = explain(runs[target], figure)
    where = f"Images: {runs[target].path}/answers; base model: the same name in {BASE}/answers."
    return lines, [total, where]


def table(args) -> tuple[list[dict], list[str], list[str]]:
    """-> rows, the names of their columns, and remarks."""
    results, idle = collect(args.roots, args.any_protocol)
    if args.explain:  # the predictions of one run are enough
        lines, below = explained(args.explain, results)
        return lines, list(lines[0]), below
    read_all(results)
    if args.method or args.compare:
        make, what = (rows.method_rows, args.method) if args.method else (rows.paired_rows, args.compare)
        made = make(what, results)
        return made, list(dict.fromkeys(itertools.chain(*made))), [PAIRED] * bool(args.compare)
    made = rows.target_rows(results) if args.per_target else rows.main_rows(results)
    below = [STATISTICS] * args.statistics + remarks(results, idle, made)
    if args.format in ("csv", "json"):
        return made, columns(made), below
    return rows.with_differences(made) if args.statistics else made, printed(made), below


@command
def main(argv=None):
    args = parse(argv)
    made, names, below = table(args)
    below = [plain(line) for line in below]
    if args.format == "json":
        print(json.dumps({"rows": made, "notes": below}, indent=1))
    elif args.format == "csv":
        print_csv(made, names)
        print(*below, sep="\n", file=sys.stderr)
    elif args.format == "latex":
        print(latex(made, names, args.statistics), *(f"% {line}" for line in below), sep="\n")
    else:
        print(markdown(made, names, args.statistics) if made else "No judged runs.", "", *below, sep="\n")


if __name__ == "__main__":
    main()
