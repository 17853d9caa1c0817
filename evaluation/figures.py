"""Figures of a folder of runs, as SVG and PNG

interference, interference_METHOD   what forgetting a target does to everything else; with interference.csv
radar                               seven metrics of every method; the outer edge is best
tradeoff                            forgetting (UA) against keeping (mean of IRA and CRA), with intervals
became_METHOD                       what the images that should show the target are taken for

python -m evaluation.figures runs --out figures [--method esd]
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from evaluation.core.errors import command
from evaluation.metrics.published import spelled
from evaluation.reporting import heat_map, matrices, plots
from evaluation.reporting.collect import BASE, Result, collect, read_all
from evaluation.reporting.look import save_all, styled
from evaluation.reporting.rows import find, grouped

KEPT_LEGEND, SHARE_LEGEND = "accuracy after unlearning, %", "share of images, %"


def draw_all(results: list[Result]) -> dict[str, Figure]:
    """File name without suffix -> figure; what there are no runs for is left out."""
    groups = {label: group for label, group in grouped(results).items() if group[0].method != BASE}
    bases = [result for result in results if result.method == BASE]
    interference, figures = matrices.interference(results), {}
    for label, matrix in interference.items():
        figures[f"interference_{label}"] = heat_map.side_by_side([matrix], heat_map.KEPT, KEPT_LEGEND)
    if len(interference) > 1:
        pages = list(interference.values())
        figures["interference"] = heat_map.several(pages, heat_map.KEPT, KEPT_LEGEND)
    figures |= {"radar": plots.radar(groups), "tradeoff": plots.tradeoff(groups, bases)}
    for label, group in groups.items():
        kinds = [matrices.became(f"{spelled(label)}: {kind}s became", group, kind) for kind in plots.KINDS]
        if kinds := [matrix for matrix in kinds if matrix]:
            figures[f"became_{label}"] = heat_map.side_by_side(kinds, heat_map.SHARE, SHARE_LEGEND)
    return {name: figure for name, figure in figures.items() if figure}


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.figures", description="Figures of a folder of runs."
    )
    parser.add_argument(
        "roots", type=Path, nargs="+", metavar="ROOT", help="folder with METHOD/TARGET runs and base/"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for SVG and PNG files")
    parser.add_argument("--method", help="this one alone, beside the base model")
    args = parser.parse_args(argv)
    results, _ = collect(args.roots)
    if args.method:
        bases = [result for result in results if result.method == BASE]
        results = bases + find(args.method, [r for r in results if r.method != BASE], "--method")
    read_all(results)
    with styled():
        table = args.out / "interference.csv"
        matrices.write_csv(table, matrices.interference(results))
        print(table)
        figures = {args.out / name: figure for name, figure in draw_all(results).items()}
        print(*save_all(figures), sep="\n")


if __name__ == "__main__":
    main()
