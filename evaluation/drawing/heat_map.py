"""Heat maps of percentages with named rows and columns"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from evaluation.drawing.look import page
from evaluation.reporting.formats import GREY, INK, MARK, shown
from evaluation.reporting.matrices import Matrix

KEPT = "YlOrBr_r"  # dark is low: what was lost stands out
SHARE = "Blues"  # dark is high
NUMBERS = 30  # columns at most for a number in every cell
PANELS = 5  # side by side on a page of several


def draw(axes: Axes, matrix: Matrix, colours: str, labels: bool = True) -> None:
    """The matrix with frames around what is marked; names and, if there is room, numbers with `labels`."""
    rows, columns = matrix.values.shape
    small = columns > NUMBERS
    image = axes.imshow(matrix.values, colours, vmin=0, vmax=100, aspect="auto")
    axes.set_title(matrix.title, pad=8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=3, labelsize=6 if small else 8.5)
    if labels:
        axes.set_xticks(range(columns), map(shown, matrix.columns), rotation=90)
        axes.set_yticks(range(rows), map(shown, matrix.rows))
        draw_grid(axes, rows, columns, 0.4 if small else 1)
    else:
        axes.set(xticks=[], yticks=[])
    if labels and not small:
        write_numbers(axes, matrix, colours, lambda value: image.cmap(image.norm(value)))
    if matrix.split:
        axes.axvline(matrix.split - 0.5, color=INK, linewidth=1)
    for y, names in enumerate(matrix.marked):
        for x in (x for x, column in enumerate(matrix.columns) if column in names):
            corner = (x - 0.5, y - 0.5)
            width = 1.8 if labels and not small else 0.8
            frame = Rectangle(
                corner, 1, 1, fill=False, edgecolor=MARK, linewidth=width, clip_on=False, zorder=3
            )
            axes.add_patch(frame)


def draw_grid(axes: Axes, rows: int, columns: int, width: float) -> None:
    """White lines between cells; as ticks of their own they would take most of the drawing's time."""
    look = {"color": "white", "linewidth": width}
    axes.hlines(np.arange(rows - 1) + 0.5, -0.5, columns - 0.5, **look)
    axes.vlines(np.arange(columns - 1) + 0.5, -0.5, rows - 0.5, **look)


def write_numbers(axes: Axes, matrix: Matrix, colours: str, colour_of) -> None:
    """In every cell that is not what one hopes for (100 kept, 0 seen), and in all that are marked."""
    plain = 100 if colours == KEPT else 0
    for (y, x), value in np.ndenumerate(matrix.values):
        if round(value) != plain or matrix.columns[x] in matrix.marked[y]:
            red, green, blue, _ = colour_of(value)
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            axes.text(
                x, y, f"{value:.0f}", ha="center", va="center", fontsize=7, color="white" if dark else INK
            )


def side(columns: int) -> float:
    """Inches of a cell."""
    return 0.16 if columns > NUMBERS else 0.34


def side_by_side(matrices: list[Matrix], colours: str, legend: str) -> Figure:
    """A page with a few matrices in full, in one row."""
    widths, rows = [len(matrix.columns) for matrix in matrices], max(len(matrix.rows) for matrix in matrices)
    inches = side(max(widths))
    size = inches * sum(widths) + 1.7 * len(matrices) + 0.8, inches * rows + 2
    figure, panels = page(*size, 1, len(matrices), width_ratios=widths)
    for axes, matrix in zip(panels, matrices):
        draw(axes, matrix, colours)
    panels[0].set_ylabel("forgotten (framed)", color=GREY)
    add_scale(figure, panels, legend)
    return figure


def several(matrices: list[Matrix], colours: str, legend: str) -> Figure:
    """Small multiples: the shape of the damage; names of rows and columns at the page's edge only."""
    across = min(PANELS, len(matrices))
    down = -(-len(matrices) // across)
    figure, panels = page(2.5 * across + 1, 1.9 * down + 0.9, down, across)
    for axes, matrix in zip(panels, matrices):
        draw(axes, matrix, colours, labels=False)
        if matrix.split:
            axes.set_xticks([matrix.split / 2 - 0.5, (matrix.split + len(matrix.columns)) / 2 - 0.5])
            axes.set_xticklabels(["styles", "objects"], rotation=0)
    for axes in panels[len(matrices) :]:
        axes.set_visible(False)
    for axes in panels[::across]:
        axes.set_ylabel("forgotten (framed)", color=GREY)
    add_scale(figure, panels, legend)
    return figure


def add_scale(figure: Figure, panels: list[Axes], legend: str) -> None:
    image = panels[0].images[0]
    aspect = 4 * figure.get_figheight()  # as broad on a large page as on a small one
    bar = figure.colorbar(image, ax=panels, pad=0.015, aspect=aspect, ticks=[0, 25, 50, 75, 100])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8)
    bar.set_label(legend, color=INK)
