"""Side effects: the rows of their tables, from predictions of runs and of the base model alone"""

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from evaluation.answers.predictions import Predictions
from evaluation.metrics.figures import UNSURE, became, domains_of
from evaluation.metrics.side_effects import NEAREST, SIDE_EFFECTS, by_seed, neighbours
from evaluation.reporting.collect import BASE, Result, without_chains
from evaluation.reporting.formats import KINDS
from evaluation.reporting.remarks import in_turn, not_judged, origins
from evaluation.reporting.rows import grouped, labels, means, unequal_targets

COLUMNS = "near rest neighbours nearest other other_base became became_top unsure".split()
TOP = 3  # labels named of what a target became
ABOUT = (
    f"near: accuracy lost against the base model, in points, by the kept classes (up to {NEAREST} a target) "
    "that its images confuse with the target; rest: by the others. neighbours: how many those are, of all "
    "targets together; without any there is no near. other: accuracy of the other domain on the target's "
    "images. became top: of those not recognised as it, the share with the most frequent label. unsure: "
    f"labels of a probability below {UNSURE}. The base model's rows compare it with itself."
)
WITHOUT_BASE = "No near, rest, neighbours and other base where the base model's answers are lacking."


@dataclass(eq=False)
class Compared(Result):
    """A run beside the base model's answers of the same origin, so of the same noise; None without any."""

    base: Predictions | None = None

    @cached_property
    def seeds(self) -> dict[str, np.ndarray]:
        """Side effect -> [seeds], fractions: a mean over those targets forgotten at once that have it."""
        shared = self.targets, self.predictions, self.base, self.protocol
        of_target = [by_seed(target, *shared) for target in self.targets]
        values = {name: [own[name] for own in of_target if name in own] for name in SIDE_EFFECTS}
        return {name: np.mean(own, 0) for name, own in values.items() if own}

    @cached_property
    def nearest(self) -> list[str]:
        shared = self.targets, self.base, self.protocol
        return self.named(lambda target: neighbours(target, *shared)) if self.base else []

    @property
    def became(self) -> list[str]:
        """The most frequent labels of the targets' images, with their shares in percent."""

        def shares(target) -> list[str]:
            seen = became(self.predictions, target, self.protocol, TOP)[domains_of(target)[0]]["seen"]
            return [f"{name} {100 * share:.1f}" for name, share in seen.items()]

        return self.named(shares)

    def named(self, texts_of) -> list[str]:
        """`texts_of(target)` of all targets but pairs, each with its target's name if there are several."""
        pairs = [(t, text) for t in self.targets if t.kind != "pair" for text in texts_of(t)]
        return [f"{target}: {text}" if len(self.targets) > 1 else text for target, text in pairs]


def compared(results: list[Result]) -> list[Compared]:
    """The runs that started from the base model, and its own results; not those of pairs alone."""
    bases = {result.origin: result.predictions for result in results if result.method == BASE}
    own = [r for r in without_chains(results) if {target.kind for target in r.targets} != {"pair"}]
    about = [{field.name: getattr(r, field.name) for field in fields(Result)} | {"costs": {}} for r in own]
    return [Compared(**values, base=bases.get(values["origin"])) for values in about]


def effect_rows(results: list[Compared]) -> list[dict]:
    """A row for runs made alike: means over targets, and how many neighbours these have together."""
    rows = []
    for label, group in grouped(results).items():
        rows.append({"method": label} | means(group, True, SIDE_EFFECTS))
        for kind in KINDS:
            if own := [result for result in group if result.kind == kind and result.base]:
                rows[-1][f"{kind}_neighbours"] = sum(len(result.nearest) for result in own)
    return rows


def effect_target_rows(results: list[Compared]) -> list[dict]:
    rows = []
    for result, label in zip(results, labels(results)):
        rows.append({"method": label, "target": result.name} | means([result], False, SIDE_EFFECTS))
        rows[-1] |= {"became": result.became}
        rows[-1] |= {"neighbours": len(result.nearest), "nearest": result.nearest} if result.base else {}
    return rows


def effect_columns() -> list[str]:
    kinds = [f"{kind}_{name}" for kind in KINDS for name in (*COLUMNS, "targets")]
    return ["method", "target", *COLUMNS, *kinds]


def effect_remarks(results: list[Result], idle: list[Path], shown: list[Compared]) -> list[str]:
    """What must be known to read the table of those `shown` of all results."""
    lines = [*origins(results, []), ABOUT, *[WITHOUT_BASE] * any(result.base is None for result in shown)]
    if alone := dict.fromkeys(result.name for result in shown if result.base and not result.nearest):
        lines.append(f"Without neighbours: {', '.join(alone)}.")
    lines += [*unequal_targets(shown), *not_judged(idle), *in_turn(results)]
    whole, ours = (sum(r.method != BASE for r in part) for part in (without_chains(results), shown))
    return lines + [f"Not above: {whole - ours} runs of pairs, which have SC, OC and UP."] * (whole > ours)
