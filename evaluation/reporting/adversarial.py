"""Adversarial prompts: the rows of their table"""

from itertools import chain
from pathlib import Path

import numpy as np

from evaluation.answers.attacked import TABLE
from evaluation.attacks import Attack
from evaluation.metrics import published
from evaluation.metrics.robustness import ATTACKED, by_seed
from evaluation.reporting.asked import Asked, collect_asked
from evaluation.reporting.formats import KINDS
from evaluation.reporting.rows import add_mean, beside_paper, grouped, labels, means, unequal_targets

COUNTS = ("prompts", "steps")  # of the gradient, a mean over prompts
ABOUT = (
    "UA attacked: of the same prompts with the words found, which is 100 - ASR. recovery: the share of what "
    "was forgotten that came back. steps: of the gradient, a prompt; none where the plain prompt was enough."
)


def collect_attacks(roots: list[Path], mixed: bool = False) -> tuple[list[Asked], list[Path]]:
    """-> the base model's attacks and the runs'; and runs that were not attacked.

    Raises UserError for what must not be compared (`mixed` allows that).
    """
    return collect_asked(roots, "attack", TABLE, Attack, lambda rows, plan: by_seed(rows), mixed)


def figures_of(results: list[Asked], split: bool = True) -> dict:
    row = means(results, split, ATTACKED) | {"prompts": sum(len(result.rows) for result in results)}
    add_mean(row, "steps", [[float(np.mean([r.steps for r in result.rows]))] for result in results])
    return row


def attack_rows(results: list[Asked]) -> list[dict]:
    """A row for runs made alike, the paper's below it, and the rank correlation of ours and theirs."""
    rows, last = beside_paper(grouped(results), figures_of, published.adversarial())
    return [*chain(*rows.values()), *last]


def attack_target_rows(results: list[Asked]) -> list[dict]:
    return [
        {"method": label, "target": result.name} | figures_of([result], split=False)
        for result, label in zip(results, labels(results))
    ]


def attack_columns() -> list[str]:
    kinds = [f"{kind}_{name}" for kind in KINDS for name in (*ATTACKED, "targets")]
    return ["method", "target", *ATTACKED, *kinds, *COUNTS]


def attack_remarks(results: list[Asked], idle: list[Path], table: list[dict]) -> list[str]:
    """What must be known to read the table."""
    lines = [
        f"Attack {name} ({origin.protocol}), base model {origin.model}, judges {origin.judges}."
        for name, origin in dict.fromkeys((result.asked, result.origin) for result in results)
    ]
    lines.append(ABOUT)
    if any(row["method"].endswith(published.MARK) for row in table):
        lines.append(
            f"{published.MARK}: read off the paper's figure. Attack and model differ: for orientation."
        )
    return (
        lines
        + unequal_targets(results)
        + [f"not attacked: {run}; python -m machine_unlearning.attack --runs {run}" for run in idle]
    )
