"""Means and deviations of the rows that judges made of outputs, over styles, objects and content images

    style    deviation within a style (all objects, contents, references), averaged over the styles
    object   within an object, averaged over the objects
    content  within a content image painted in one style, averaged: how much the choice of a reference matters

Deviations are those of the population, divided by the count.
"""

import pandas as pd

from evaluation import canvas

GRAINS = {"style": ["style"], "object": ["object"], "content": ["style", "object", "content"]}
NAMES = ("style", "object", "content", "reference", "style_seen", "object_seen")  # columns that are no losses


def spread(rows: pd.DataFrame, column: str, names: list[str]) -> pd.DataFrame:
    """Columns `mean` and `std` of every group of rows that agree in `names`, in the order of the rows."""
    groups = rows.groupby(names, sort=False)[column]
    return pd.DataFrame({"mean": groups.mean(), "std": groups.std(ddof=0)})


def summary(rows: pd.DataFrame, column: str) -> dict[str, float]:
    """The mean of a column, and the mean over each grain's groups of the deviation within."""
    figures = {"mean": float(rows[column].mean())}
    for grain, names in GRAINS.items():
        figures[f"std_{grain}"] = float(spread(rows, column, names)["std"].mean())
    return figures


def accuracy(rows: pd.DataFrame) -> dict[str, float]:
    """Shares of outputs whose style and object are seen; of the styles that the benchmark's judges know."""
    taught = rows[rows["style"].isin(canvas.STYLES)]
    tasks = [task for task in ("style", "object") if len(taught) and f"{task}_seen" in rows]
    shares = {task: float((taught[task] == taught[f"{task}_seen"]).mean()) for task in tasks}
    return {"outputs": len(taught)} | shares if shares else {}


def results(rows: pd.DataFrame) -> dict:
    """All figures of the rows, and means and deviations of every style and object."""
    columns = [name for name in rows if name not in NAMES]
    figures = {"summary": {column: summary(rows, column) for column in columns}, "accuracy": accuracy(rows)}
    for grain in ("style", "object"):
        of_column = {column: spread(rows, column, GRAINS[grain]).to_dict("index") for column in columns}
        names = rows[grain].drop_duplicates() if columns else []
        figures[f"{grain}s"] = {name: {c: of_column[c][name] for c in columns} for name in names}
    return figures
