"""Results that look like a fault rather than a finding, each in one sentence, from predictions alone

A number is never changed or withheld for them. An answer set with fewer images than its protocol asks for is
not among them: evaluation.predict and evaluation.accuracy refuse it.
"""

import numpy as np

from evaluation.answers.predictions import Predictions
from evaluation.canvas import Target
from evaluation.metrics.figures import by_seed, class_accuracies
from evaluation.protocol import Protocol

BASE_ACCURACY = 0.9  # what the published base models reach with ease
KEPT = 0.5  # share of the base model's retention below which it has collapsed
SAME_FILES = 0.05  # images of different noise are never equal in every byte
SAME_LABELS = 0.5  # of one style and one object, where the protocol asks for all alike


def suspicions(
    ours: Predictions, protocol: Protocol, targets: tuple[Target, ...] = (), base: Predictions | None = None
) -> list[str]:
    """One sentence for everything odd in an answer set; [] if all looks well.

    Without targets the predictions are the base model's own. What is odd about a `base` is not repeated.
    """
    if not targets:
        return constant(ours) + weak_base(ours, protocol)
    sentences = constant(ours)
    if base is not None:
        sentences += unchanged(ours, base)
        for target in targets:
            sentences += collapse(target, targets, ours, base, protocol)
    return sentences


def weak_base(base: Predictions, protocol: Protocol) -> list[str]:
    """Too few of the base model's own images are recognised."""
    means = {domain: values.mean() for domain, values in class_accuracies(base, protocol).items()}
    return [
        f"the base model's {domain}s are recognised in only {mean:.1%} of its images, below "
        f"{BASE_ACCURACY:.0%}: figures of models made from it say little; check model, protocol and judges"
        for domain, mean in means.items()
        if mean < BASE_ACCURACY
    ]


def constant(ours: Predictions) -> list[str]:
    """Images that are one file over and over, or that all look like one thing."""
    images = ours.sha256.size
    repeated = images - len(set(ours.sha256.ravel().tolist()))
    if repeated > SAME_FILES * images:
        return [
            f"{repeated} of {images} images are byte for byte the same as another: the generator is "
            "broken (black images of a NaN, or one seed for all); look at them"
        ]
    pairs = ours.theme.seen.astype(int) * len(ours.object.names) + ours.object.seen
    count = np.bincount(pairs.ravel())
    theme, obj = divmod(int(count.argmax()), len(ours.object.names))
    if count.max() > SAME_LABELS * images and count.max() > len(ours.sha256):
        return [
            f"{count.max()} of {images} images are taken for {ours.object.names[obj]} in "
            f"{ours.theme.names[theme]}, whatever was asked for: they "
            "may be nearly constant; look at them"
        ]
    return []


def unchanged(ours: Predictions, base: Predictions) -> list[str]:
    """Nothing was unlearned: no weight differs from the base model's, or the run was not loaded."""
    if (ours.sha256 != base.sha256).any():
        return []
    return [
        f"all {ours.sha256.size} images are the base model's, byte for byte: unlearning changed nothing; "
        "check the run's weights and settings"
    ]


def collapse(target: Target, targets, ours: Predictions, base: Predictions, protocol: Protocol) -> list[str]:
    """Little is kept, compared with the base model."""
    fallen = []
    for name in ("IRA", "CRA_kept"):
        now, before = (by_seed(name, target, targets, seen, protocol) for seen in (ours, base))
        if now is not None and now.mean() < KEPT * before.mean():
            fallen.append(f"{name} fell to {now.mean():.1%} from the base model's {before.mean():.1%}")
    if not fallen:
        return []
    return [
        f"with {target} forgotten, {' and '.join(fallen)}: a high UA then means a broken model, not a "
        "forgotten target"
    ]
