"""What forgotten images became: the share of a target's images that is taken for each style, or object"""

from collections import Counter

import numpy as np
from matplotlib.figure import Figure

from evaluation import canvas
from evaluation.answers.predictions import read_predictions
from evaluation.metrics.published import spelled
from evaluation.reporting import heat_map
from evaluation.reporting.collect import Judged
from evaluation.reporting.heat_map import Matrix
from evaluation.reporting.look import GREY, page


def shares(title: str, group: list[Judged], kind: str) -> Matrix | None:
    """Row: a target of that kind; column: the percentage of its images seen as each theme, or object."""
    runs = sorted((one for one in group if one.kind == kind), key=lambda one: one.target)
    if not runs:
        return None
    domain, protocol, values = "theme" if kind == "style" else "object", runs[0].protocol, []
    columns = list(protocol.themes if kind == "style" else protocol.objects)
    for one in runs:
        (target,), (rows, _) = canvas.parse_targets(one.target), read_predictions(one.path / "answers")
        counted = [row for row in rows if row.theme in protocol.counted]
        seen = Counter(getattr(r, f"{domain}_seen") for r in counted if target.covers(r.theme, r.object))
        values.append([100 * seen[name] / seen.total() for name in columns])
    names = [one.target for one in runs]
    return Matrix(title, names, columns, np.array(values), [{name} for name in names])


def figure(label: str, group: list[Judged]) -> Figure | None:
    """A method's forgotten styles and objects side by side, what is still recognised framed; None without."""
    found = [shares(f"{spelled(label)}: {kind}s became", group, kind) for kind in ("style", "object")]
    found = [matrix for matrix in found if matrix]
    if not found:
        return None
    widths, rows = [len(matrix.columns) for matrix in found], max(len(matrix.rows) for matrix in found)
    side = heat_map.side(max(widths))
    size = side * sum(widths) + 1.7 * len(found) + 0.8, side * rows + 2
    drawn, panels = page(*size, 1, len(found), width_ratios=widths)
    for axes, matrix in zip(panels, found):
        heat_map.draw(axes, matrix, heat_map.SHARE)
    panels[0].set_ylabel("forgotten (framed)", color=GREY)
    heat_map.add_scale(drawn, panels, "share of images, %")
    return drawn
