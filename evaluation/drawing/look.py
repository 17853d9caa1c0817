"""How all figures look: fonts, colours and marks that colour-blind readers tell apart, and files that repeat

Same input, same bytes: no date in the files, and the identifiers inside an SVG come from a fixed salt.
"""

import os
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.core.files import atomic
from evaluation.core.pools import processes
from evaluation.reporting.formats import EDGE, GREY, INK

COLOURS = (  # Paul Tol's muted scheme and black, then of his others: https://personal.sron.nl/~pault
    "#332288 #cc6677 #117733 #88ccee #882255 #44aa99 #999933 #aa4499 #ddcc77 #000000 "
    "#ee7733 #0077bb #ee3377 #bbbbbb #bbcc33 #994455 #6699cc"
).split()
MARKERS = (*"osD^v<>phPX*Hd8", (4, 1, 0), (6, 1, 0))  # the last: stars of four and six points
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine has it
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a setting's $ is no formula
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": EDGE,
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "svg.hashsalt": "unlearncanvas",
    "savefig.dpi": 120,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.15,
}


def page(
    width: float, height: float, rows: int = 1, columns: int = 1, **options
) -> tuple[Figure, list[Axes]]:
    """A figure of that many inches, and its axes row by row; to be made and saved within `styled()`."""
    figure = Figure((width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def styled():
    return mpl.rc_context(STYLE)


def save_all(figures: dict[Path, Figure]) -> list[Path]:
    """Writes PATH.svg and PATH.png of every figure, in several processes; -> the files."""
    with processes(min(len(figures) or 1, os.cpu_count() or 1)) as pool:
        return [path for paths in pool.map(save, figures.values(), figures) for path in paths]


def save(figure: Figure, path: Path) -> list[Path]:
    paths = [path.with_name(f"{path.name}.{suffix}") for suffix in ("svg", "png")]
    with styled(), atomic(paths[0]) as temporary:
        figure.savefig(temporary, metadata={"Date": None})
    figure.set_layout_engine("none")  # the places that the first drawing found serve the second
    with styled(), atomic(paths[1]) as temporary:
        figure.savefig(temporary, metadata={"Software": None}, pil_kwargs={"optimize": True})
    return paths
