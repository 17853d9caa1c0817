"""Rows of `evaluation.tables` as Markdown, as LaTeX with booktabs, or as CSV

Texts come from records and settings that anyone may have written: none of them becomes markup or a formula.
"""

import csv
import itertools
import re
import sys

from tabulate import tabulate

from evaluation.canvas import PHOTO, spoken
from evaluation.core.errors import printable
from evaluation.metrics.figures import FIGURES

INK, GREY, MARK, EDGE = "#1a2233", "#6b7280", "#d6336c", "#d9dde3"  # of sheets, plots and the report
KINDS = ("style", "object", "pair", "several")  # of targets: their figures are different things
# decimals; GB, MB: powers of 1000
COSTS = {"FID": 2, "KID": 4, "seconds": 1, "memory_GB": 2, "storage_MB": 1}
STATISTICS = ("sd", "low", "high", "median", "diff")  # columns after a figure's own, as `style_UA_low`
# set left
TEXTS = "method target image asked seen counts_as figure worst grid answers protocol nearest became".split()


def shown(name: str) -> str:
    """A theme or object as readers see it."""
    return "Photo" if name == PHOTO else spoken(name)


def columns(rows: list[dict], statistics: bool = True) -> list[str]:
    """The names that occur in any row, in reading order; without `statistics` figures and costs alone."""
    figures = [*FIGURES, *(f"{kind}_{name}" for kind in KINDS for name in (*FIGURES, "targets")), *COSTS]
    return present(["method", "target", *figures], rows, statistics)


def present(names: list[str], rows: list[dict], statistics: bool) -> list[str]:
    """Those of the names, and with `statistics` of what follows them, that occur in any row."""
    suffixes = ("", *map("_{}".format, STATISTICS)) if statistics else ("",)
    names = [name + suffix for name in names for suffix in suffixes]
    return [name for name in names if any(name in row for row in rows)]


def printed(rows: list[dict]) -> list[str]:
    """The columns of a table to read: statistics, and CRA_kept of the means, are left to csv and json."""
    return [name for name in columns(rows, statistics=False) if not name.endswith("_CRA_kept")]


def cell(row: dict, name: str, intervals: bool = False) -> str:
    """`90.00 ±5.8`, or with the interval in place of the standard deviation `90.00 [84.1, 95.9]`."""
    value = row.get(name, "-")
    if isinstance(value, list):
        return ", ".join(value)
    if not isinstance(value, float):
        return str(value)
    spread = ""
    if intervals and name + "_low" in row:
        spread = f" [{row[name + '_low']:.1f}, {row[name + '_high']:.1f}]"
    elif not intervals and name + "_sd" in row and name not in COSTS:
        spread = f" ±{row[name + '_sd']:.1f}"
    return f"{value:.{COSTS.get(name, 2)}f}{spread}"


def plain(text: str) -> str:
    """On one line, without control characters."""
    return " ".join(printable(text).split())


def csv_cell(value):
    """What a spreadsheet would take for a formula begins with an apostrophe."""
    if isinstance(value, list):
        value = "; ".join(value)
    if not isinstance(value, str):
        return value
    return "'" * bool(re.match(r"[=+@-](?!\d*\.?\d+$)", text := plain(value))) + text


def markdown(rows: list[dict], names: list[str], intervals: bool = False) -> str:
    """A table that also reads well as plain text."""
    titles = [name.replace("_", " ") for name in names]
    return drawn(rows, names, titles, intervals, "pipe", lambda text: re.sub(r"[\\|`<]", r"\\\g<0>", text))


def latex(rows: list[dict], names: list[str], intervals: bool = False) -> str:
    """A tabular for booktabs; figures of one kind of target stand below its name."""
    kinds = [next((kind for kind in KINDS if name.startswith(kind + "_")), "") for name in names]
    titles = [name.removeprefix(kind + "_").replace("_", " ") for name, kind in zip(names, kinds)]
    text = drawn(rows, names, titles, intervals, "latex_booktabs")  # which escapes
    lines = text.replace("±", "$\\pm$\\,").replace(" - ", " -- ").splitlines()
    top, rules, start = [], [], 1
    for kind, own in itertools.groupby(enumerate(kinds), lambda pair: pair[1] or pair):
        width = len(list(own))
        named = kind in KINDS
        top.append(f"\\multicolumn{{{width}}}{{c}}{{{kind.capitalize()}}}" if named else "")
        rules += [f"\\cmidrule(lr){{{start}-{start + width - 1}}}"] * named
        start += width
    if rules:
        lines[2:2] = [" & ".join(top) + " \\\\", " ".join(rules)]
    return "\n".join(["% needs \\usepackage{booktabs}", *lines])


def drawn(rows, names: list[str], titles: list[str], intervals: bool, style: str, escape=str) -> str:
    texts = [[escape(plain(cell(row, name, intervals))) for name in names] for row in rows]
    titles = [escape(plain(title)) for title in titles]
    sides = ["left" if name in TEXTS else "right" for name in names]
    return tabulate(texts, titles, style, colalign=sides if rows else None, disable_numparse=True)


def print_csv(rows: list[dict], names: list[str]) -> None:
    write_csv(sys.stdout, names, rows)


def write_csv(file, names: list[str], rows) -> None:
    """`rows`: dicts, what `names` lack in them is left out."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(csv_cell, names))
    writer.writerows([csv_cell(row.get(name, "")) for name in names] for row in rows)
