"""What forgetting does: to everything else, and to the forgotten images themselves

interference    rows: the base model, and the target of every run; columns: all themes, then all objects;
                cell: accuracy of that theme or object after unlearning, over all images asked to show it
became          rows: targets of one kind; columns: all themes, or objects, and everything else;
                cell: share of the images that should show the target and are taken for that

All in percent. The accuracy of an object leaves out themes that do not count, as in CRA. The target's own
cell is marked.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from evaluation.core.files import atomic
from evaluation.metrics.figures import OTHER, class_accuracies, counted, shows
from evaluation.metrics.published import spelled
from evaluation.reporting import formats
from evaluation.reporting.collect import BASE, Result
from evaluation.reporting.rows import grouped


class Matrix(NamedTuple):
    title: str
    rows: list[str]
    columns: list[str]
    values: np.ndarray  # [rows, columns], percent
    marked: list[set[str]]  # for every row, the columns to frame
    split: int = 0  # columns before the second domain; 0: there is one only


def accuracies(result: Result) -> np.ndarray:
    """[themes + objects], percent."""
    return 100 * np.concatenate([*class_accuracies(result.predictions, result.protocol).values()])


def names_of(result: Result) -> list[str]:
    """The styles and objects that were unlearned."""
    return [name for target in result.targets for name in target if name]


def interference(results: list[Result]) -> dict[str, Matrix]:
    """Label of a method -> its matrix: the base model's row, then targets in the order of the columns."""
    bases = {result.origin: result for result in results if result.method == BASE}
    matrices = {}
    for label, group in grouped(results).items():
        if group[0].method == BASE:
            continue
        protocol, base = group[0].protocol, bases.get(group[0].origin)
        columns = [*protocol.themes, *protocol.objects]
        runs = sorted(group, key=lambda run: (len(names_of(run)), [*map(columns.index, names_of(run))]))
        matrices[label] = Matrix(
            spelled(label),
            [BASE] * bool(base) + [run.target for run in runs],
            columns,
            np.array([accuracies(result) for result in ([base] if base else []) + runs]),
            [set()] * bool(base) + [set(names_of(run)) for run in runs],
            split=len(protocol.themes),
        )
    return matrices


def became(title: str, results: list[Result], kind: str) -> Matrix | None:
    """Of the runs whose target is of that kind, style or object; None without any."""
    runs = sorted((result for result in results if result.kind == kind), key=lambda run: run.target)
    if not runs:
        return None
    domain, protocol, values = "theme" if kind == "style" else "object", runs[0].protocol, []
    columns = list(protocol.themes if kind == "style" else protocol.objects)
    for run in runs:
        labels = run.predictions.labels(domain)
        shown = shows(run.targets[0], protocol) & counted(protocol)
        seen = np.minimum(labels.seen[:, shown], len(columns))  # labels that the protocol lacks come last
        values.append(100 * np.bincount(seen.ravel(), minlength=len(columns) + 1) / seen.size)
    names = [run.target for run in runs]
    return Matrix(title, names, [*columns, OTHER], np.array(values), [{name} for name in names])


def write_csv(path: Path, matrices: dict[str, Matrix]) -> None:
    """One line for every method and target; the base model's comes once for each method."""
    names = list(dict.fromkeys(name for matrix in matrices.values() for name in matrix.columns))
    with atomic(path) as temporary, open(temporary, "w", newline="") as file:
        rows = [
            {"method": label, "target": target} | {n: f"{v:.2f}" for n, v in zip(matrix.columns, values)}
            for label, matrix in matrices.items()
            for target, values in zip(matrix.rows, matrix.values)
        ]
        formats.write_csv(file, ["method", "target", *names], rows)
