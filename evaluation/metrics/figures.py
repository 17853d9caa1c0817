"""From what two classifiers saw to UA, IRA and CRA: arithmetic on the rows of `predictions.csv.gz`

    UA  = share of the images that should show the target and are not recognised as it
    IRA = mean accuracy of the other classes of the target's own domain (style or object)
    CRA = mean accuracy of the classes of the other domain;  CRA_kept: the same without images of the target

A pair (one object in one style) counts as unlearned unless both classifiers still recognise it; UA_both asks
that neither does. Around it, SC is the style's accuracy on other objects, OC the object's in other styles,
and UP the accuracy of both classifiers where neither is asked for.

    python -m evaluation.accuracy runs/esd/Sketch/answers --target Sketch --base runs/base/answers
"""

from collections import Counter, defaultdict
from statistics import fmean

from evaluation import canvas
from evaluation.answers.answer_set import Cell, grid
from evaluation.answers.predictions import Prediction
from evaluation.canvas import Target
from evaluation.core.errors import UserError
from evaluation.protocol import Protocol

FIGURES = ("UA", "UA_both", "IRA", "CRA", "CRA_kept", "SC", "OC", "UP")
UNSURE = 0.5  # a label seen with less than this probability is a guess


def score(rows: list[Prediction], protocol: Protocol, targets: list[Target]) -> dict:
    """All figures of one answer set, as fractions in [0,1] beside the number of images they come from.

    `targets` holds figures and `became` for each target; `mean` their unweighted means over the targets, a
    figure that does not apply being absent. Several targets are forgotten at once, so none of them counts in
    the retention of another. `accuracy` (of every theme, and of every object in the themes that count) and
    `confusion` (asked -> seen -> images, the photo theme included) concern the answer set as a whole.

    Raises UserError if the rows are not exactly the protocol's grid, or a target is not in it.
    """
    check_complete(rows, protocol)
    check_targets(targets, protocol)
    counted = [row for row in rows if row.theme in protocol.counted]
    figures = {str(target): target_figures(counted, target, targets) for target in targets}
    mean = {}
    for name in FIGURES:
        if values := [each[name]["value"] for each in figures.values() if each.get(name)]:
            mean[name] = fmean(values)
    return {
        "protocol": {"name": protocol.name, "hash": protocol.hash},
        "images": len(rows),
        "mean": mean,
        "targets": {str(t): figures[str(t)] | {"became": became(counted, t)} for t in targets},
        "accuracy": {"theme": accuracy_by(rows, "theme"), "object": accuracy_by(counted, "object")},
        "confusion": {"theme": confusion(rows, "theme"), "object": confusion(rows, "object")},
    }


def check_complete(rows: list[Prediction], protocol: Protocol) -> None:
    """Every cell of the grid once and nothing else, or a UserError that names the first cell at fault."""
    found, wanted = Counter(Cell(*row[:3]) for row in rows), set(grid(protocol))
    faults = {
        "is judged twice": [cell for cell, n in found.items() if n > 1],
        "has no prediction": [cell for cell in grid(protocol) if cell not in found],
        "does not belong to the protocol": [cell for cell in found if cell not in wanted],
    }
    for what, cells in faults.items():
        if cells:
            raise UserError(
                f"predictions: {canvas.answer_name(*cells[0])} {what} ({len(cells)} such; {len(wanted)} "
                f"images in protocol {protocol.name}); complete the answer set and repeat evaluation.predict"
            )


def check_targets(targets: list[Target], protocol: Protocol) -> None:
    for target in targets:
        if target.style not in (None, *protocol.themes) or target.object not in (None, *protocol.objects):
            raise UserError(f"--target {target}: protocol {protocol.name} has no such images")


def right(row: Prediction, domain: str) -> bool:
    """Whether the image shows what it was asked to; `domain` is "theme" or "object"."""
    return getattr(row, domain) == getattr(row, domain + "_seen")


def share(flags) -> dict | None:
    """Fraction of true flags, one flag per image; None without images."""
    flags = list(flags)
    return {"value": sum(flags) / len(flags), "images": len(flags)} if flags else None


def accuracy_by(rows: list[Prediction], domain: str) -> dict[str, dict]:
    flags = defaultdict(list)
    for row in rows:
        flags[getattr(row, domain)].append(right(row, domain))
    return {name: share(each) for name, each in flags.items()}


def retained(rows: list[Prediction], domain: str, targets: list[Target]) -> dict | None:
    """Mean accuracy of the classes of a domain that are not targets; None if none is left."""
    forgotten = {t.style if domain == "theme" else t.object for t in targets if t.kind != "pair"}
    kept = [each for name, each in accuracy_by(rows, domain).items() if name not in forgotten]
    if not kept:
        return None
    value = fmean(each["value"] for each in kept)
    return {"value": value, "images": sum(each["images"] for each in kept), "classes": len(kept)}


def target_figures(rows: list[Prediction], target: Target, targets: list[Target]) -> dict:
    """One target's figures; `rows` are those of themes that count, `targets` everything forgotten at once."""
    shown = [row for row in rows if target.covers(row.theme, row.object)]
    kept = [row for row in rows if not any(t.covers(row.theme, row.object) for t in targets)]
    if target.kind == "pair":
        same_style = [row for row in kept if row.theme == target.style]
        same_object = [row for row in kept if row.object == target.object]
        rest = [row for row in kept if row.theme != target.style and row.object != target.object]
        both = share(flag for row in rest for flag in (right(row, "theme"), right(row, "object")))
        return {
            "UA": share(not (right(row, "theme") and right(row, "object")) for row in shown),
            "UA_both": share(not right(row, "theme") and not right(row, "object") for row in shown),
            "SC": share(right(row, "theme") for row in same_style),
            "OC": share(right(row, "object") for row in same_object),
            "UP": both and both | {"images": len(rest)},  # two flags per image
        }
    own, other = ("theme", "object") if target.kind == "style" else ("object", "theme")
    return {
        "UA": share(not right(row, own) for row in shown),
        "IRA": retained(rows, own, targets),
        "CRA": retained(rows, other, targets),
        "CRA_kept": retained(kept, other, targets),
    }


def became(rows: list[Prediction], target: Target, top: int = 5) -> dict:
    """What the target's images are taken for: a high UA with unsure labels is a broken generator."""
    shown, result = [row for row in rows if target.covers(row.theme, row.object)], {}
    for domain in ("theme", "object"):
        seen = Counter(getattr(row, domain + "_seen") for row in shown)
        result[domain] = {
            "seen": {
                name: n / len(shown) for name, n in sorted(seen.items(), key=lambda x: (-x[1], x[0]))[:top]
            },
            "unsure": share(getattr(row, domain + "_seen_prob") < UNSURE for row in shown)["value"],
        }
    return result


def confusion(rows: list[Prediction], domain: str) -> dict[str, dict[str, int]]:
    """asked -> seen -> number of images, the diagonal included."""
    counts = defaultdict(Counter)
    for row in rows:
        counts[getattr(row, domain)][getattr(row, domain + "_seen")] += 1
    return {asked: dict(sorted(seen.items())) for asked, seen in counts.items()}
