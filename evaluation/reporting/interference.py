"""The interference matrix: what forgetting one target does to everything else

    rows: the base model, and the target of every run       columns: all themes, then all objects
    cell: accuracy of that theme or object after unlearning, in percent, over all images asked to show it

The accuracy of an object leaves out themes that do not count, as in CRA. The target's own cell is framed in
the heat map: it should be low, and all others as high as the base model's.

    python -m evaluation.interference runs --out figures [--method esd]
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from evaluation import canvas
from evaluation.answers.predictions import read_predictions
from evaluation.core.errors import command
from evaluation.core.files import atomic
from evaluation.metrics.figures import accuracy_by
from evaluation.metrics.published import spelled
from evaluation.reporting import heat_map
from evaluation.reporting.collect import BASE, Judged, collect
from evaluation.reporting.heat_map import Matrix
from evaluation.reporting.look import save, styled
from evaluation.reporting.rows import find, grouped

LEGEND = "accuracy after unlearning, %"


def accuracies(one: Judged) -> dict[str, float]:
    """Theme or object -> accuracy in percent."""
    rows, _ = read_predictions(one.path / "answers")
    counted = [row for row in rows if row.theme in one.protocol.counted]
    each = accuracy_by(rows, "theme") | accuracy_by(counted, "object")
    return {name: 100 * figure["value"] for name, figure in each.items()}


def names_of(one: Judged) -> list[str]:
    """The styles and objects that were unlearned."""
    return [name for target in canvas.parse_targets(one.target) for name in target if name]


def matrices(judged: list[Judged]) -> dict[str, Matrix]:
    """Label of a method -> its matrix: the base model's row, then targets in the order of the columns."""
    bases = {one.origin: one for one in judged if one.method == BASE}
    result = {}
    for label, group in grouped(judged).items():
        if group[0].method == BASE:
            continue
        protocol = group[0].protocol
        columns = [*protocol.themes, *protocol.objects]
        runs = sorted(group, key=lambda one: (len(names_of(one)), [*map(columns.index, names_of(one))]))
        base = [bases[group[0].origin]] if group[0].origin in bases else []
        cells = [accuracies(one) for one in [*base, *runs]]
        result[label] = Matrix(
            spelled(label),
            [BASE for _ in base] + [one.target for one in runs],
            columns,
            np.array([[each[name] for name in columns] for each in cells]),
            [set() for _ in base] + [set(names_of(one)) for one in runs],
            split=len(protocol.themes),
        )
    return result


def write_csv(path: Path, matrices: dict[str, Matrix]) -> None:
    """One line for every method and target; the base model's comes once for each method."""
    names = list(dict.fromkeys(name for matrix in matrices.values() for name in matrix.columns))
    with atomic(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, ["method", "target", *names], lineterminator="\n")
        writer.writeheader()
        for label, matrix in matrices.items():
            for target, values in zip(matrix.rows, matrix.values):
                cells = {name: f"{value:.2f}" for name, value in zip(matrix.columns, values)}
                writer.writerow({"method": label, "target": target} | cells)


def write(folder: Path, judged: list[Judged]) -> list[Path]:
    """The CSV, a heat map for every method and, if there are several, a page of all; -> the files."""
    each, path = matrices(judged), folder / "interference.csv"
    write_csv(path, each)
    pages = {
        f"interference_{label}": heat_map.one(matrix, heat_map.KEPT, LEGEND) for label, matrix in each.items()
    }
    if len(each) > 1:
        pages["interference"] = heat_map.several(list(each.values()), heat_map.KEPT, LEGEND)
    return [path, *(file for name, figure in pages.items() for file in save(figure, folder / name))]


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.interference", description="What forgetting does to everything else."
    )
    parser.add_argument("roots", type=Path, nargs="+", metavar="ROOT", help="folder with METHOD/TARGET runs")
    parser.add_argument("--out", type=Path, required=True, help="folder for the CSV and the heat maps")
    parser.add_argument("--method", help="this one alone")
    args = parser.parse_args(argv)
    judged, _ = collect(args.roots)
    if args.method:
        bases = [one for one in judged if one.method == BASE]
        judged = bases + find(args.method, [one for one in judged if one not in bases], "--method")
    with styled():
        print(*write(args.out, judged), sep="\n")


if __name__ == "__main__":
    main()
