"""The published numbers, in the names and units of our tables, and how ours compare

They were measured at full size under the official protocol, so they stand beside ours for orientation.
"""

import csv
from pathlib import Path
from statistics import StatisticsError, correlation

from evaluation import canvas

PUBLISHED = Path(__file__).parent / "published" / "mu_main.csv"


def published_rows() -> dict[str, dict]:
    """Lower-case method -> a row with the names and units of `tables.means`."""
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


def spelled(label: str) -> str:
    """A row's label with the method's name as the paper writes it: `salun (mini)` -> `SalUn (mini)`."""
    name, *marks = label.split(" ", 1)
    paper = published_rows().get(name, {"method": name.upper()})["method"].removesuffix(" (published)")
    return " ".join([paper if name != "base" else "base model", *marks])


def differences(ours: dict, paper: dict) -> dict[str, float]:
    """Ours minus published, named `_diff`, of every figure and cost that both rows have."""
    shared = [name for name in ours if name in paper and isinstance(paper[name], float)]
    return {name + "_diff": round(ours[name] - paper[name], 6) for name in shared}


def agreement(pairs: list[tuple[dict, dict]]) -> dict[str, float]:
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
