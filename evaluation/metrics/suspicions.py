"""Results that look like a fault rather than a finding, each in one sentence, from rows and figures alone

A number is never changed or withheld for them. An answer set with fewer images than its protocol asks for is
not among them: evaluation.predict and evaluation.accuracy refuse it.
"""

from collections import Counter
from statistics import fmean

from evaluation.answers.predictions import Prediction

BASE_ACCURACY = 0.9  # what the published base models reach with ease
KEPT = 0.5  # share of the base model's retention below which it has collapsed
SAME_FILES = 0.05  # images of different noise are never equal in every byte
SAME_LABELS = 0.5  # of one style and one object, where the protocol asks for all alike


def suspicions(rows: list[Prediction], result: dict, base_rows: list[Prediction] | None = None) -> list[str]:
    """One sentence for everything odd in an answer set; [] if all looks well.

    `result` is `accuracy.score` of `rows`, with that of `base_rows` as `result["base"]` if there are any.
    Without targets the rows are the base model's own.
    """
    base = result.get("base") or (None if result["targets"] else result)
    found = constant(rows)
    if base:
        found += weak_base(base["accuracy"])
    if base_rows:
        found += unchanged(rows, base_rows)
        for target, figures in result["targets"].items():
            found += collapse(target, figures, base["targets"][target])
    return found


def weak_base(accuracy: dict[str, dict]) -> list[str]:
    """Too few of the base model's own images are recognised; `accuracy` is that of `accuracy.score`."""
    means = {domain: fmean(each["value"] for each in names.values()) for domain, names in accuracy.items()}
    return [
        f"the base model's {domain}s are recognised in only {mean:.1%} of its images, below "
        f"{BASE_ACCURACY:.0%}: figures of models made from it say little; check model, protocol and judges"
        for domain, mean in means.items()
        if mean < BASE_ACCURACY
    ]


def constant(rows: list[Prediction]) -> list[str]:
    """Images that are one file over and over, or that all look like one thing."""
    repeated = len(rows) - len({row.sha256 for row in rows})
    if repeated > SAME_FILES * len(rows):
        return [
            f"{repeated} of {len(rows)} images are byte for byte the same as another: the generator is "
            "broken (black images of a NaN, or one seed for all); look at them"
        ]
    (theme, obj), count = Counter((row.theme_seen, row.object_seen) for row in rows).most_common(1)[0]
    asked = Counter(row[:2] for row in rows).most_common(1)[0][1]
    if count > SAME_LABELS * len(rows) and count > asked:
        return [
            f"{count} of {len(rows)} images are taken for {obj} in {theme}, whatever was asked for: they "
            "may be nearly constant; look at them"
        ]
    return []


def unchanged(rows: list[Prediction], base_rows: list[Prediction]) -> list[str]:
    """Nothing was unlearned: no weight differs from the base model's, or the run was not loaded."""
    base = {row[:3]: row.sha256 for row in base_rows}
    if any(base.get(row[:3]) != row.sha256 for row in rows):
        return []
    return [
        f"all {len(rows)} images are the base model's, byte for byte: unlearning changed nothing; "
        "check the run's weights and settings"
    ]


def collapse(target: str, figures: dict, base: dict) -> list[str]:
    """Little is kept: `figures` of one target and the base model's, name -> {"value": share} or None."""
    fallen = [
        f"{name} fell to {figures[name]['value']:.1%} from the base model's {base[name]['value']:.1%}"
        for name in ("IRA", "CRA_kept")
        if figures.get(name) and figures[name]["value"] < KEPT * base[name]["value"]
    ]
    if not fallen:
        return []
    return [
        f"with {target} forgotten, {' and '.join(fallen)}: a high UA then means a broken model, not a "
        "forgotten target"
    ]
