"""What forgetting a style or an object does beside it: to its neighbours, and to its own images

    near        damage, base accuracy - accuracy, to the target's nearest classes of its own domain
    rest        the same to the other kept classes of that domain; both are means over classes
    other       accuracy of the other domain on the target's own images;  other_base: the base model's
    became_top  of the target's images not recognised as it, the share with the most frequent other label
    unsure      share of the target's images whose label in its own domain is a guess

Classes are near if the base model's images of the one are taken for the other. So neighbours are told by the
same errors that lower their base accuracy, and near lies somewhat low. `figures.select` says what counts: the
target's own images are those of UA, kept classes those of IRA, with or without photos as there. Pairs have
figures of their own for this (SC, OC, UP).
"""

import numpy as np

from evaluation.answers.predictions import Predictions
from evaluation.canvas import Target
from evaluation.metrics.figures import UNSURE, became, domains_of, select
from evaluation.protocol import Protocol

SIDE_EFFECTS = ("near", "rest", "other", "other_base", "became_top", "unsure")
NEAREST = 5  # neighbours at most


def images(figure: str, target: Target, targets, protocol: Protocol) -> np.ndarray:
    """[themes, objects]: the images that a figure counts; none if it does not apply."""
    selection = select(figure, target, targets, protocol)
    return selection.images if selection else np.zeros((len(protocol.themes), len(protocol.objects)), bool)


def neighbours(target: Target, targets, base: Predictions, protocol: Protocol) -> list[str]:
    """The kept classes that the base model's answers confuse with the target, most confused first, ties in
    the protocol's order; none of a pair."""
    if target.kind == "pair":
        return []
    labels = base.labels(domains_of(target)[0])
    kept, own = (images(figure, target, targets, protocol) for figure in ("IRA", "UA"))
    asked, seen = (side[:, kept | own] for side in (labels.asked, labels.seen))
    place = labels.names.index(str(target))
    confused = np.concatenate([seen[asked == place], asked[seen == place]])
    count = np.bincount(confused, minlength=len(labels.names))
    classes = [number for number in np.unique(labels.asked[0][kept]) if count[number]]
    return [labels.names[number] for number in sorted(classes, key=lambda n: -count[n])[:NEAREST]]


def by_seed(target: Target, targets, ours: Predictions, base: Predictions | None, protocol: Protocol) -> dict:
    """Figure -> [seeds], whose mean is the figure: damage in [-1,1], the others in [0,1]. What does not apply
    is absent, as all is of a pair."""
    if target.kind == "pair":
        return {}
    own, other = domains_of(target)
    shown, kept = (images(figure, target, targets, protocol) for figure in ("UA", "CRA"))
    figures = {"unsure": (ours.labels(own).seen_prob[:, shown] < UNSURE).mean(1)}
    figures |= damage(target, targets, ours, base, protocol) if base else {}
    for name, answers in (("other", ours), ("other_base", base)):
        if answers and (shown & kept).any():
            figures[name] = answers.labels(other).right[:, shown & kept].mean(1)
    seen = became(ours, target, protocol, top=2)[own]["seen"]
    if names := [name for name in seen if name != str(target)]:
        figures["became_top"] = share_of(names[0], own, shown, ours)
    return figures


def damage(target: Target, targets, ours: Predictions, base: Predictions, protocol: Protocol) -> dict:
    """`near` and `rest`, [seeds] in [-1,1]. IRA counts equally many images of every class."""
    labels, seen = (answers.labels(domains_of(target)[0]) for answers in (base, ours))
    kept = images("IRA", target, targets, protocol)
    nearest = map(labels.names.index, neighbours(target, targets, base, protocol))
    near = np.isin(labels.asked[0], [*nearest])
    lost = labels.right.astype(int) - seen.right
    parts = {"near": kept & near, "rest": kept & ~near}
    return {name: lost[:, part].mean(1) for name, part in parts.items() if part.any()}


def share_of(label: str, domain: str, shown: np.ndarray, predictions: Predictions) -> np.ndarray:
    """[seeds]: of the images `shown` [themes, objects] that are not recognised, the share seen as `label`.

    Their number differs between seeds. A ratio of sums over all seeds is linearised in these (delta method),
    so that the mean over seeds is that ratio, and its spread the ratio's; a seed's own value may leave [0,1].
    """
    labels = predictions.labels(domain)
    missed = (~labels.right[:, shown]).sum(1)
    taken = (labels.seen[:, shown] == labels.names.index(label)).sum(1)
    ratio = taken.sum() / missed.sum()
    return ratio + (taken - ratio * missed) / missed.mean()
