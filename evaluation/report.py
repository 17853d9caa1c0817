"""Report: one HTML file with tables, the interference matrix and a gallery, to look at without a network

Tables and matrix are those of `evaluation.tables` and `evaluation.figures`. The protocol, judges, base
model and record behind every number stand in the same file.

    python -m evaluation.report runs --out report        # report/report.html
    python -m evaluation.report results/mini --style-transfer results/style_transfer --out report
"""

import argparse
from pathlib import Path

from evaluation.core import flags
from evaluation.core.errors import command, early
from evaluation.core.files import atomic


def parse(argv=None) -> argparse.Namespace:
    about = "One HTML file to look at a folder of runs."
    parser = argparse.ArgumentParser(prog="python -m evaluation.report", description=about)
    parser.add_argument("roots", type=Path, nargs="+", metavar="ROOT", help="folder with METHOD/TARGET runs")
    parser.add_argument("--style-transfer", type=Path, metavar="DIR", help="folder of judged outputs to add")
    parser.add_argument("--out", type=flags.new_path, required=True, help="folder for report.html")
    parser.add_argument("--any-protocol", action="store_true", help="allow different protocols or models")
    return parser.parse_args(argv)


early(__name__, parse)

from evaluation.drawing.page import render
from evaluation.probe_sheet import SHEET
from evaluation.reporting.collect import collect, read_all
from evaluation.reporting.probes import collect_all


@command
def main(argv=None):
    args = parse(argv)
    path = Path(args.out) / "report.html"
    results, idle = collect(args.roots, args.any_protocol)
    read_all(results)
    asked = collect_all(args.roots, args.any_protocol)
    sheet = next((root / SHEET for root in args.roots if (root / SHEET).exists()), None)
    page = render(results, idle, asked, args.style_transfer, sheet)
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
