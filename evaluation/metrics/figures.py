"""From what two classifiers saw to UA, IRA and CRA

    UA  = share of the images that should show the target and are not recognised as it
    IRA = mean accuracy of the other classes of the target's own domain (style or object)
    CRA = mean accuracy of the classes of the other domain;  CRA_kept: the same without images of the target

A pair (one object in one style) counts as unlearned unless both classifiers still recognise it; UA_both asks
that neither does. Around it, SC is the style's accuracy on other objects, OC the object's in other styles,
and UP the accuracy of both classifiers where neither is asked for; UP_both asks that both are right at once.
FR, finer-scale retention, is the mean of SC, OC and UP.

`select` alone defines which images a figure counts: scores, intervals, explanations and tables all ask it.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from evaluation.answers.predictions import DOMAINS, Labels, Predictions
from evaluation.canvas import PHOTO, Target
from evaluation.core.errors import UserError
from evaluation.protocol import Protocol

FIGURES = ("UA", "UA_both", "IRA", "CRA", "CRA_kept", "SC", "OC", "UP", "UP_both", "FR")
PARTS = {"FR": ("SC", "OC", "UP")}  # figures that are the mean of others, and count no images themselves
WHOLE_IMAGES = ("UA", "UA_both", "UP_both")  # these flag an image once, others each label that they look at
UNSURE = 0.5  # a label seen with less than this probability is a guess
OTHER = "other"  # in tables and figures: any label that the protocol does not sample


class Selection(NamedTuple):
    """The images that a figure counts, the same for every seed, and the domains it looks at."""

    weights: np.ndarray  # [themes, objects]: how much an image counts in the mean over a seed's images
    domains: tuple[str, ...]
    classes: int | None  # how many classes' accuracies the mean is of, each counting the same; else None

    @property
    def images(self) -> np.ndarray:
        return self.weights > 0


@cache
def counted(protocol: Protocol) -> np.ndarray:
    """[themes, 1]: whether a theme's images count."""
    return np.array([[theme in protocol.counted] for theme in protocol.themes])


def shows(target: Target, protocol: Protocol) -> np.ndarray:
    """[themes, objects]: whether an image of that theme and object shows the target."""
    return np.array([[target.covers(theme, obj) for obj in protocol.objects] for theme in protocol.themes])


@cache
def select(figure: str, target: Target, targets: tuple[Target, ...], protocol: Protocol) -> Selection | None:
    """What `figure` of `target` counts, with all `targets` forgotten at once; None if it does not apply, as
    none of `PARTS` does.

    None of the targets counts in the retention of another.
    """
    shown, kept = shows(target, protocol), ~np.any([shows(gone, protocol) for gone in targets], 0)
    style, obj = (
        np.array([name in target for name in names]) for names in (protocol.themes, protocol.objects)
    )
    if target.kind == "pair":
        chosen = {
            "UA": (shown, DOMAINS),
            "UA_both": (shown, DOMAINS),
            "SC": (kept & style[:, None], ("theme",)),
            "OC": (kept & obj, ("object",)),
            "UP": (kept & ~style[:, None] & ~obj, DOMAINS),
            "UP_both": (kept & ~style[:, None] & ~obj, DOMAINS),
        }
    else:
        own, other = domains_of(target)
        remaining = {domain: ~forgotten(domain, targets, protocol) for domain in DOMAINS}
        classes = remaining[own]
        if own == "theme" and not protocol.photo_in_ira:
            classes = classes & np.array([[theme != PHOTO] for theme in protocol.themes])
        chosen = {
            "UA": (shown, (own,)),
            "IRA": (classes, (own,)),
            "CRA": (remaining[other], (other,)),
            "CRA_kept": (kept & remaining[other], (other,)),
        }
    where, domains = chosen.get(figure, (np.zeros_like(shown), ()))
    where = np.broadcast_to(where & counted(protocol), shown.shape)
    if not where.any():
        return None
    if figure not in ("IRA", "CRA", "CRA_kept"):
        return Selection(where.astype(float), domains, None)
    of_class = where.sum(1 if domains == ("theme",) else 0, keepdims=True)
    weights = where * of_class.max() / np.maximum(of_class, 1)  # every class counts the same
    return Selection(weights, domains, int((of_class > 0).sum()))


def domains_of(target: Target) -> tuple[str, str]:
    """The domain of a style or an object, and the other one."""
    return DOMAINS if target.kind == "style" else DOMAINS[::-1]


def forgotten(domain: str, targets: tuple[Target, ...], protocol: Protocol) -> np.ndarray:
    """[themes, 1] or [1, objects]: the classes of a domain that are targets themselves; pairs forget none."""
    names = {name for target in targets if target.kind != "pair" for name in target}
    if domain == "theme":
        return np.array([[theme in names] for theme in protocol.themes])
    return np.array([[obj in names for obj in protocol.objects]])


def flags(figure: str, domains: tuple[str, ...], predictions: Predictions) -> np.ndarray:
    """What every image adds to a figure, [seeds, themes, objects] in [0,1]; for UP the mean of two labels."""
    right = np.stack([predictions.labels(domain).right for domain in domains])
    whole = {"UA": ~right.all(0), "UA_both": ~right.any(0), "UP_both": right.all(0)}
    return whole[figure] if figure in WHOLE_IMAGES else right.mean(0)


def by_seed(
    figure: str, target: Target, targets: tuple[Target, ...], predictions: Predictions, protocol: Protocol
) -> np.ndarray | None:
    """A figure of each seed's images, [seeds] in [0,1]; their mean is the figure. None: does not apply."""
    if figure in PARTS:
        parts = [by_seed(part, target, targets, predictions, protocol) for part in PARTS[figure]]
        return None if any(part is None for part in parts) else np.mean(parts, 0)
    selection = select(figure, target, targets, protocol)
    if selection is None:
        return None
    weights = selection.weights
    return (flags(figure, selection.domains, predictions) * weights).sum((1, 2)) / weights.sum()


def image_count(figure: str, target: Target, targets: tuple[Target, ...], protocol: Protocol) -> int:
    """How many images a figure counts, over all seeds."""
    selections = [select(name, target, targets, protocol) for name in PARTS.get(figure, (figure,))]
    return len(protocol.seeds) * sum(int(selection.images.sum()) for selection in selections if selection)


def score(predictions: Predictions, protocol: Protocol, targets: list[Target]) -> dict:
    """All figures of one answer set, as fractions in [0,1] beside the number of images they come from.

    `targets` holds figures and `became` for each target; `mean` their unweighted means over the targets, a
    figure that does not apply being absent. `accuracy` (of every theme, and of every object in the themes
    that count) and `confusion` (asked -> seen -> images, the photo theme included) concern the answer set as
    a whole. Raises UserError for a target that is not in the protocol.
    """
    check_targets(targets, protocol)
    targets = tuple(targets)
    per_target = {str(target): target_figures(predictions, target, targets, protocol) for target in targets}
    mean = {}
    for name in FIGURES:
        if values := [figures[name]["value"] for figures in per_target.values() if name in figures]:
            mean[name] = float(np.mean(values))
    return {
        "protocol": {"name": protocol.name, "hash": protocol.hash},
        "images": predictions.sha256.size,
        "mean": mean,
        "targets": {
            str(target): per_target[str(target)] | {"became": became(predictions, target, protocol)}
            for target in targets
        },
        "accuracy": accuracy(predictions, protocol),
        "confusion": {domain: confusion(predictions.labels(domain)) for domain in DOMAINS},
    }


def check_targets(targets, protocol: Protocol) -> None:
    for target in targets:
        if target.style not in (None, *protocol.themes) or target.object not in (None, *protocol.objects):
            raise UserError(f"--target {target}: protocol {protocol.name} has no such images")


def target_figures(predictions: Predictions, target: Target, targets, protocol: Protocol) -> dict[str, dict]:
    """Figure -> its value, images and, where it is a mean over classes, their number."""
    figures = {}
    for name in FIGURES:
        values = by_seed(name, target, targets, predictions, protocol)
        if values is not None:
            count = image_count(name, target, targets, protocol)
            figures[name] = {"value": float(values.mean()), "images": count}
            selection = select(name, target, targets, protocol)
            figures[name] |= {"classes": selection.classes} if selection and selection.classes else {}
    return figures


def class_accuracies(predictions: Predictions, protocol: Protocol) -> dict[str, np.ndarray]:
    """ "theme" -> [themes], "object" -> [objects], in [0,1]; an object's images are of themes that count."""
    objects = predictions.object.right[:, counted(protocol)[:, 0]]
    return {"theme": predictions.theme.right.mean((0, 2)), "object": objects.mean((0, 1))}


def accuracy(predictions: Predictions, protocol: Protocol) -> dict[str, dict[str, dict]]:
    """`class_accuracies` by name, each with its number of images."""
    values, seeds = class_accuracies(predictions, protocol), len(protocol.seeds)
    names = {"theme": protocol.themes, "object": protocol.objects}
    images = {"theme": seeds * len(protocol.objects), "object": seeds * len(protocol.counted)}
    return {
        domain: {
            name: {"value": float(value), "images": images[domain]}
            for name, value in zip(names[domain], values[domain])
        }
        for domain in DOMAINS
    }


def became(predictions: Predictions, target: Target, protocol: Protocol, top: int = 5) -> dict:
    """What the target's images are taken for: a high UA with unsure labels is a broken generator."""
    shown, result = shows(target, protocol) & counted(protocol), {}
    for domain in DOMAINS:
        labels = predictions.labels(domain)
        count = np.bincount(labels.seen[:, shown].ravel(), minlength=len(labels.names))
        most = sorted(zip(-count, labels.names))[:top]
        result[domain] = {
            "seen": {name: float(-minus / count.sum()) for minus, name in most if minus},
            "unsure": float((labels.seen_prob[:, shown] < UNSURE).mean()),
        }
    return result


def confusion(labels: Labels) -> dict[str, dict[str, int]]:
    """asked -> seen -> number of images, the diagonal included."""
    pairs, count = np.unique(
        np.stack([labels.asked.ravel(), labels.seen.ravel()]), axis=1, return_counts=True
    )
    result = {}
    for (asked, seen), number in zip(pairs.T.tolist(), count.tolist()):
        result.setdefault(labels.names[asked], {})[labels.names[seen]] = number
    return {asked: dict(sorted(seen.items())) for asked, seen in result.items()}
