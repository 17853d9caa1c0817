"""Means and deviations of the rows that a judge made of outputs, over styles, objects and content images

    style    deviation within a style (all objects, contents, references), averaged over the styles
    object   within an object, averaged over the objects
    content  within a content image painted in one style, averaged: how much the choice of a reference matters

Deviations are those of the population, divided by the count.
"""

import csv
import gzip
import io
from pathlib import Path

import numpy as np

from evaluation import canvas
from evaluation.core.files import atomic

GRAINS = {"style": ["style"], "object": ["object"], "content": ["style", "object", "content"]}
NAMES = ("style", "object", "content", "reference", "style_seen", "object_seen")  # columns that are no losses


def spread(rows: list[dict], column: str, names: list[str]) -> dict[tuple, tuple[float, float]]:
    """Mean and deviation of a column, for every group of rows that agree in `names`."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row[column])
    return {key: (float(np.mean(values)), float(np.std(values))) for key, values in groups.items()}


def summary(rows: list[dict], column: str) -> dict[str, float]:
    """The mean of a column, and the mean over each grain's groups of the deviation within."""
    figures = {"mean": float(np.mean([row[column] for row in rows]))}
    for grain, names in GRAINS.items():
        figures[f"std_{grain}"] = float(np.mean([std for _, std in spread(rows, column, names).values()]))
    return figures


def accuracy(rows: list[dict]) -> dict[str, float]:
    """Shares of outputs whose style and object are seen; of the styles that the benchmark's judges know."""
    taught = [row for row in rows if row["style"] in canvas.STYLES]
    seen = [task for task in ("style", "object") if taught and f"{task}_seen" in rows[0]]
    shares = {task: float(np.mean([row[task] == row[f"{task}_seen"] for row in taught])) for task in seen}
    return {"outputs": len(taught)} | shares if shares else {}


def results(rows: list[dict]) -> dict:
    """All figures of the rows, and means and deviations of every style and object."""
    columns = [name for name in rows[0] if name not in NAMES]
    figures = {"summary": {column: summary(rows, column) for column in columns}, "accuracy": accuracy(rows)}
    for grain in ("style", "object"):
        of_column = {column: spread(rows, column, GRAINS[grain]) for column in columns}
        figures[f"{grain}s"] = {
            key[0]: {c: dict(zip(("mean", "std"), of_column[c][key])) for c in columns}
            for key in (of_column[columns[0]] if columns else ())
        }
    return figures


def write_rows(path: Path, rows: list[dict]) -> None:
    """A compressed CSV file: same rows, same bytes."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    with atomic(path) as temporary:
        temporary.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
