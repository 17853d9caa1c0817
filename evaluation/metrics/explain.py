"""Which images are behind a figure: `python -m evaluation.tables ROOT --explain METHOD/TARGET/METRIC`

A figure is the share of flags that are raised, one for each image and label that it counts. For UA a flag is
raised where the target is not recognised, for the others where the label seen is the one asked for.
"""

from evaluation import canvas
from evaluation.answers.answer_set import Cell
from evaluation.answers.predictions import Prediction, read_predictions
from evaluation.canvas import Target
from evaluation.core.errors import UserError
from evaluation.metrics.figures import FIGURES, right
from evaluation.reporting.collect import Judged

DOMAINS = ("theme", "object")


def behind(rows: list[Prediction], target: Target, targets: list[Target], figure: str) -> list[tuple]:
    """(row, domains looked at) for every image that `figure` counts; `rows` are of themes that count."""
    shown = [row for row in rows if target.covers(row.theme, row.object)]
    kept = [row for row in rows if not any(t.covers(row.theme, row.object) for t in targets)]
    if target.kind == "pair":
        chosen = {
            "UA": (shown, DOMAINS),
            "UA_both": (shown, DOMAINS),
            "SC": ([row for row in kept if row.theme == target.style], ("theme",)),
            "OC": ([row for row in kept if row.object == target.object], ("object",)),
            "UP": ([r for r in kept if r.theme != target.style and r.object != target.object], DOMAINS),
        }
    else:
        own, other = DOMAINS if target.kind == "style" else DOMAINS[::-1]
        forgotten = {name for t in targets if t.kind != "pair" for name in t}
        chosen = {
            "UA": (shown, (own,)),
            "IRA": ([row for row in rows if getattr(row, own) not in forgotten], (own,)),
            "CRA": ([row for row in rows if getattr(row, other) not in forgotten], (other,)),
            "CRA_kept": ([row for row in kept if getattr(row, other) not in forgotten], (other,)),
        }
    images, domains = chosen.get(figure, ([], ()))
    return [(row, domains) for row in images]


def flags(row: Prediction, domains: tuple[str, ...], figure: str) -> list[bool]:
    """What one image adds to a figure: one flag, or for UP one for each of its two labels."""
    seen = [right(row, domain) for domain in domains]
    if figure == "UA":
        return [not all(seen)]
    return [not any(seen)] if figure == "UA_both" else seen


def explain(one: Judged, figure: str) -> tuple[list[dict], str]:
    """-> a line for every image behind the figure, and how they add up. Raises UserError."""
    if figure not in one.figures:
        known = ", ".join(name for name in FIGURES if name in one.figures)
        raise UserError(
            f"--explain {figure}: {one.target} has no such figure of single images; it has {known}"
        )
    rows, _ = read_predictions(one.path / "answers")
    counted = [row for row in rows if row.theme in one.protocol.counted]
    targets, lines, shares = canvas.parse_targets(one.target), [], []
    for target in targets:
        images = behind(counted, target, targets, figure)
        raised = [flags(*image, figure) for image in images]
        lines += [line(one, *image, each, figure) for image, each in zip(images, raised)]
        if images:
            each = [flag for flags_of_image in raised for flag in flags_of_image]
            shares.append(f"{target} {sum(each)} of {len(each)}")
    total = f"{figure} = {100 * one.figures[figure]:.2f} %"
    return lines, f"{total}: {', '.join(shares)}{'; their mean' * (len(shares) > 1)}"


def line(one: Judged, row: Prediction, domains: tuple[str, ...], raised: list[bool], figure: str) -> dict:
    words = ("unlearned", "not unlearned") if figure.startswith("UA") else ("right", "wrong")
    return {
        "image": canvas.answer_name(*Cell(*row[:3]), suffix="." + one.protocol.format),
        "asked": " + ".join(getattr(row, domain) for domain in domains),
        "seen": " + ".join(getattr(row, f"{domain}_seen") for domain in domains),
        "p_asked": " + ".join(f"{getattr(row, f'{domain}_prob'):.3f}" for domain in domains),
        "p_seen": " + ".join(f"{getattr(row, f'{domain}_seen_prob'):.3f}" for domain in domains),
        "counts_as": " + ".join(words[not flag] for flag in raised),
    }
