"""The published numbers, in the names and units of our tables, and how ours compare; what later papers claim

The former were measured at full size under the official protocol: they stand beside ours for orientation.
"""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from evaluation import canvas

FILE = Path(__file__).with_suffix(".csv")
SEQUENTIAL = FILE.with_name("published_sequential.csv")
ADVERSARIAL = FILE.with_name("published_adversarial.csv")
CLAIMED = FILE.with_name("claimed.csv")
MARK = "(published)"  # ends the name of a row of the paper's
CLAIM = "(claimed)"  # of a later paper's
LATER = {  # what later methods are called, where it is not the folder's name in capitals
    "diff_quickfix": "Diff-QuickFix",
    "hirm": "HiRM",
    "saeuron": "SAeUron",
    "semantic_surgery": "Semantic Surgery",
}
WORDS = ("method", "row", "differs", "source")  # columns that are no figures or costs


def published_rows() -> dict[str, dict]:
    """Lower-case method -> a row with the names and units of `reporting.rows`."""
    counts = {"style_targets": len(canvas.STYLES), "object_targets": len(canvas.OBJECTS)}
    with open(FILE, newline="") as file:
        rows = {line["method"]: _row(line["method"], MARK, line) for line in csv.DictReader(file)}
    return {name.lower(): row | counts for name, row in rows.items()}


def claims() -> dict[str, list[dict]]:
    """Folder of a later method -> rows of what papers claim for it.

    Each was measured in a way of its own, told in the file, so that no two of them compare.
    """
    rows = defaultdict(list)
    with open(CLAIMED, newline="") as file:
        for line in csv.DictReader(file):
            rows[line["method"]].append(_row(line["row"], CLAIM, line))
    return rows


def _row(name: str, mark: str, line: dict) -> dict:
    numbers = {key: float(value) for key, value in line.items() if value and key not in WORDS}
    return {"method": f"{name} {mark}"} | numbers


def sequences() -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """Lower-case method -> the name of its row, UA and SR of its six requests in turn, in percent.

    UA [requests, requests] is that of the first axis' after the second's, NaN where it was not yet asked for;
    SR [requests] is the paper's RA. Two values that look like slips are kept as they were printed.
    """
    lines = defaultdict(list)
    with open(SEQUENTIAL, newline="") as file:
        for line in csv.DictReader(file):
            after = [float(value or "nan") for key, value in line.items() if key.startswith("after_")]
            lines[line["method"]].append(after)
    tables = {name: np.array(values) for name, values in lines.items()}
    return {name.lower(): (f"{name} {MARK}", table[:-1], table[-1]) for name, table in tables.items()}


def adversarial() -> dict[str, dict]:
    """Lower-case method -> a row of UA before and after the attack, in percent. Where the figure's number is
    cut off, it is measured from the height of its bar, and the row's name says so."""
    rows = {}
    with open(ADVERSARIAL, newline="") as file:
        for line in csv.DictReader(file):
            name, row = line["method"], {}
            for kind in canvas.TASKS:
                attacked = line[f"{kind}_UA_adversarial"]
                estimate = line[f"{kind}_UA_adversarial_bar_estimate"]
                row[f"{kind}_UA"] = float(line[f"{kind}_UA_plain"])
                row[f"{kind}_UA_attacked"] = float(attacked or estimate)
                name += "" if attacked or "estimate" in name else ", attacked: estimates"
            rows[line["method"].lower()] = {"method": f"{name} {MARK}"} | row
    return rows


def spelled(label: str) -> str:
    """A row's label with the method's name as the paper writes it: `salun (mini)` -> `SalUn (mini)`."""
    name, *marks = label.split(" ", 1)
    paper = {key: row["method"].removesuffix(f" {MARK}") for key, row in published_rows().items()} | LATER
    return " ".join([paper.get(name, name.upper()) if name != "base" else "base model", *marks])


def differences(ours: dict, paper: dict) -> dict[str, float]:
    """Ours minus published, named `_diff`, of every figure and cost that both rows have."""
    shared = [name for name in ours if name in paper and isinstance(paper[name], float)]
    return {name + "_diff": round(ours[name] - paper[name], 6) for name in shared}


def agreement(pairs: list[tuple[dict, dict]]) -> dict[str, float]:
    """Spearman's rank correlation of every figure and cost that all pairs of rows (ours, published) have.

    Where all of ours are alike there is no order to compare, and no correlation.
    """
    from scipy.stats import spearmanr  # two thirds of what a table would take to import

    result = {}
    for name, value in pairs[0][1].items():
        columns = [[row.get(name) for row in rows] for rows in zip(*pairs)]
        alike = any(None in column or len(set(column)) == 1 for column in columns)
        if isinstance(value, float) and not alike:
            result[name] = float(spearmanr(*columns).statistic)
    return result
