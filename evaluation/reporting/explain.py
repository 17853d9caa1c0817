"""Which images are behind a figure: `python -m evaluation.tables ROOT --explain METHOD/TARGET/METRIC`

A figure is the share of flags that are raised, one for each image and label that it counts. For UA a flag is
raised where the target is not recognised, for the others where the label seen is the one asked for. FR is the
mean of three such shares, whose images are listed in turn.
"""

from itertools import product

import numpy as np

from evaluation import canvas
from evaluation.answers.answer_set import grid
from evaluation.core.errors import UserError
from evaluation.metrics.figures import FIGURES, PARTS, WHOLE_IMAGES, Selection, flags, select
from evaluation.reporting.collect import Result


def explain(result: Result, figure: str) -> tuple[list[dict], str]:
    """-> a line for every image behind the figure, and how they add up. Raises UserError."""
    if figure not in result.figures:
        known = ", ".join(name for name in FIGURES if name in result.figures)
        raise UserError(
            f"--explain {figure}: {result.target} has no such figure of single images; it has {known}"
        )
    lines, sums = [], []
    for target, part in product(result.targets, PARTS.get(figure, (figure,))):
        selection = select(part, target, result.targets, result.protocol)
        if selection:
            raised = flags(part, selection.domains, result.predictions)[:, selection.images]
            labels = 1 if part in WHOLE_IMAGES else len(selection.domains)
            lines += lines_of(result, part, selection)
            name = f"{target} {part}" if part != figure else target
            sums.append(f"{name} {round(labels * raised.sum())} of {labels * raised.size}")
    total = f"{figure} = {100 * result.figures[figure]:.2f} %"
    return lines, f"{total}: {', '.join(sums)}{'; their mean' * (len(sums) > 1)}"


def lines_of(result: Result, figure: str, selection: Selection) -> list[dict]:
    labels = [result.predictions.labels(domain) for domain in selection.domains]
    words = ("unlearned", "not unlearned") if figure.startswith("UA") else ("right", "wrong")
    shape = result.predictions.sha256.shape
    lines = []
    for place, cell in zip(np.ndindex(shape), grid(result.protocol)):
        if not selection.images[place[1:]]:
            continue
        right = [bool(label.right[place]) for label in labels]
        whole = {"UA": not all(right), "UA_both": not any(right), "UP_both": all(right)}
        counted = [whole[figure]] if figure in WHOLE_IMAGES else right
        lines.append(
            {
                "image": canvas.answer_name(*cell, suffix="." + result.protocol.format),
                "asked": " + ".join(label.names[label.asked[place]] for label in labels),
                "seen": " + ".join(label.names[label.seen[place]] for label in labels),
                "p_asked": " + ".join(f"{label.prob[place]:.3f}" for label in labels),
                "p_seen": " + ".join(f"{label.seen_prob[place]:.3f}" for label in labels),
                "counts_as": " + ".join(words[not flag] for flag in counted),
            }
        )
    return lines
