"""Tables: every method, the base model, and the published numbers beside them

A figure is computed for every target; a cell is the unweighted mean over targets and its standard deviation,
in percent. Numbers of different protocols or base models are put side by side only if asked for, and marked.
csv and json also hold medians, bootstrap intervals (`evaluation.intervals`) and differences to the paper.

    python -m evaluation.tables runs [--per-target] [--statistics] [--format markdown|latex|csv|json]
    python -m evaluation.tables runs --method esd           # its figures with intervals and worst targets
    python -m evaluation.tables runs --explain esd/Sketch/UA   # the images behind a figure
"""

import argparse
import json
import sys
from pathlib import Path

from evaluation.answers.predictions import read_predictions
from evaluation.canvas import parse_targets
from evaluation.core.errors import UserError, closest, command
from evaluation.metrics.bootstrap import LEVEL
from evaluation.metrics.distances import WEIGHTS
from evaluation.metrics.explain import explain
from evaluation.metrics.figures import score
from evaluation.metrics.suspicions import suspicions, weak_base
from evaluation.reporting.collect import BASE, Judged, collect, next_command
from evaluation.reporting.formats import columns, latex, markdown, print_csv, printed
from evaluation.reporting.rows import find, label, main_rows, method_rows, target_rows, with_differences

FORMATS = ("markdown", "latex", "csv", "json")
STATISTICS_NOTE = (
    f"[low, high]: {LEVEL} % bootstrap interval over targets and seeds; difference: ours - published."
)


def explained(path: str, judged: list[Judged]) -> tuple[list[dict], list[str]]:
    """-> rows and notes for METHOD/TARGET/METRIC."""
    if path.count("/") != 2:
        raise UserError(f"--explain {path}: expected METHOD/TARGET/METRIC, such as esd/Sketch/UA")
    method, target, figure = path.split("/")
    runs = {one.target: one for one in find(method, judged, "--explain")}
    if target not in runs:
        raise UserError(f"--explain {path}: {method} has no target {target!r}; {closest(target, runs)}")
    rows, total = explain(runs[target], figure)
    return rows, [total, f"Images: {runs[target].path}/answers; base model: the same name in {BASE}/answers."]


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
    lines += [f"not judged: {path}; {next_command(path)}" for path in idle]
    return lines + suspicious(judged)


def suspicious(judged: list[Judged]) -> list[str]:
    """What looks like a fault rather than a finding, run by run; of the base model it is said once."""
    rows = {one.path: read_predictions(one.path / "answers")[0] for one in judged}
    bases = {one.origin: one for one in judged if one.method == BASE}
    scores = {  # of the base model, which is judged for every target
        (one.origin, one.target): score(rows[one.path], one.protocol, parse_targets(one.target))
        for one in judged
        if one.method == BASE
    }
    found = {
        label(one, judged): suspicions(rows[one.path], score(rows[one.path], one.protocol, []))
        for one in bases.values()
    }
    for one in (one for one in judged if one.method != BASE):
        result = score(rows[one.path], one.protocol, parse_targets(one.target))
        base_rows, known = None, []
        if base := bases.get(one.origin):
            base_rows, result["base"] = rows[base.path], scores[one.origin, one.target]
            known = weak_base(result["base"]["accuracy"])
        said = suspicions(rows[one.path], result, base_rows)
        found[f"{label(one, judged)}/{one.target}"] = [each for each in said if each not in known]
    return [f"suspicious: {name}: {sentence}" for name, each in found.items() for sentence in each]


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.tables", description="Tables of a folder of runs."
    )
    parser.add_argument(
        "roots", type=Path, nargs="+", metavar="ROOT", help="folder with METHOD/TARGET runs and base/"
    )
    parser.add_argument("--format", choices=FORMATS, default="markdown")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--per-target", action="store_true", help="one row for every method and target")
    what.add_argument("--method", help="one row for every figure of this method, with its worst targets")
    what.add_argument("--explain", metavar="METHOD/TARGET/METRIC", help="the images behind a figure")
    parser.add_argument(
        "--statistics",
        action="store_true",
        help=f"{LEVEL} %% intervals in place of standard deviations, and differences to the paper",
    )
    parser.add_argument(
        "--any-protocol", action="store_true", help="allow, and mark, different protocols or models"
    )
    args = parser.parse_args(argv)
    judged, idle = collect(args.roots, args.any_protocol)
    if args.explain:
        rows, below = explained(args.explain, judged)
        names = list(rows[0])
    elif args.method:
        rows, below = method_rows(args.method, judged), []
        names = list(dict.fromkeys(name for row in rows for name in row))
    else:
        rows = target_rows(judged) if args.per_target else main_rows(judged)
        below = notes(judged, idle, rows)
        if args.statistics:
            below.insert(0, STATISTICS_NOTE)
        names = columns(rows)
        if args.format in ("markdown", "latex"):
            names, rows = printed(rows), with_differences(rows) if args.statistics else rows
    if args.format == "json":
        print(json.dumps({"rows": rows, "notes": below}, indent=1))
    elif args.format == "csv":
        print_csv(rows, names)
        print(*below, sep="\n", file=sys.stderr)
    elif args.format == "latex":
        print(latex(rows, names, args.statistics), *(f"% {line}" for line in below), sep="\n")
    else:
        print(markdown(rows, names, args.statistics) if rows else "No judged runs.", "", *below, sep="\n")


if __name__ == "__main__":
    main()
