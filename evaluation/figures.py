"""Figures of a folder of runs, as SVG and PNG

interference, interference_METHOD   what forgetting a target does to everything else; with interference.csv
radar                               seven metrics of every method; the outer edge is best
tradeoff                            forgetting (UA) against keeping (mean of IRA and CRA), with intervals
became_METHOD                       what the images that should show the target are taken for
sequential                          requests in turn: UA of each, and what is kept, against their number
pairs                               of a pair, its style and its object before and after (PNG only)

python -m evaluation.figures runs --out figures [--method esd]
"""

import argparse
import re
from pathlib import Path

from evaluation.core import flags
from evaluation.core.errors import command, early


def parse(argv=None) -> argparse.Namespace:
    about = "Figures of a folder of runs."
    parser = argparse.ArgumentParser(prog="python -m evaluation.figures", description=about)
    runs = "folder with METHOD/TARGET runs and base/"
    parser.add_argument("roots", type=Path, nargs="+", metavar="ROOT", help=runs)
    parser.add_argument("--out", type=flags.new_path, required=True, help="folder for SVG and PNG files")
    parser.add_argument("--method", help="this one alone, beside the base model")
    return parser.parse_args(argv)


early(__name__, parse)

from matplotlib.figure import Figure

from evaluation.core.files import atomic, digest
from evaluation.drawing import curves, heat_map, plots
from evaluation.drawing.look import save_all, styled
from evaluation.drawing.pairs import pairs_page
from evaluation.metrics.published import spelled
from evaluation.reporting import matrices
from evaluation.reporting.collect import BASE, Result, collect, read_all, without_chains
from evaluation.reporting.rows import find, grouped

KEPT_LEGEND, SHARE_LEGEND = "accuracy after unlearning, %", "share of images, %"


def draw_all(results: list[Result]) -> dict[str, Figure]:
    """File name without suffix -> figure; what there are no runs for is left out."""
    sequential, results = curves.sequential(results), without_chains(results)
    groups = {label: group for label, group in grouped(results).items() if group[0].method != BASE}
    bases = [result for result in results if result.method == BASE]
    interference, figures = matrices.interference(results), {}
    for label, matrix in interference.items():
        figures[f"interference_{label}"] = heat_map.side_by_side([matrix], heat_map.KEPT, KEPT_LEGEND)
    if len(interference) > 1:
        pages = list(interference.values())
        figures["interference"] = heat_map.several(pages, heat_map.KEPT, KEPT_LEGEND)
    figures |= {"radar": plots.radar(groups), "tradeoff": plots.tradeoff(groups, bases)}
    figures["sequential"] = sequential
    for label, group in groups.items():
        kinds = [matrices.became(f"{spelled(label)}: {kind}s became", group, kind) for kind in plots.KINDS]
        if kinds := [matrix for matrix in kinds if matrix]:
            figures[f"became_{label}"] = heat_map.side_by_side(kinds, heat_map.SHARE, SHARE_LEGEND)
    return {name: figure for name, figure in figures.items() if figure}


def file_name(name: str) -> str:
    """Of a figure, whose label may hold any setting's text."""
    safe = re.sub(r"[^\w ().,=+-]", "_", name)[:100]
    return safe if safe == name else f"{safe}-{digest(name)[:6]}"


@command
def main(argv=None):
    args = parse(argv)
    out = Path(args.out)
    results, _ = collect(args.roots)
    if args.method:
        bases = [result for result in results if result.method == BASE]
        results = bases + find(args.method, [r for r in results if r.method != BASE], "--method")
    read_all(results)
    with styled():
        table = out / "interference.csv"
        matrices.write_csv(table, matrices.interference(without_chains(results)))
        print(table)
        figures = {out / file_name(name): figure for name, figure in draw_all(results).items()}
        print(*save_all(figures), sep="\n")
    if sheet := pairs_page(results):
        with atomic(out / "pairs.png") as temporary:
            sheet.save(temporary, optimize=True)
        print(out / "pairs.png")


if __name__ == "__main__":
    main()
