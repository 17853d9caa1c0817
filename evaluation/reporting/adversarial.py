"""Adversarial prompts: what attacks left, and the rows of their table

{root}/{method}/{target}/attack     manifest.json, attack.csv: all that is read
{root}/base/attack/{targets}        the same of the base model
"""

from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from evaluation import canvas
from evaluation.answers.attacked import ATTACK, Attacked, read_attacked, values_of
from evaluation.answers.claims import MANIFEST
from evaluation.answers.predictions import Origin
from evaluation.core.errors import UserError
from evaluation.core.files import check_keys, digest, read_json
from evaluation.core.record import FIELDS, RECORD, requests
from evaluation.metrics import published
from evaluation.metrics.robustness import ATTACKED, by_seed
from evaluation.reporting.collect import BASE, Result, distinct
from evaluation.reporting.formats import KINDS
from evaluation.reporting.rows import add_mean, beside_paper, grouped, labels, means, unequal_targets

KEYS = {"attack": dict, "model": str, "run": dict | None, "targets": str, "judges": list}
COUNTS = ("prompts", "steps")  # of the gradient, a mean over prompts
ABOUT = (
    "UA attacked: of the same prompts with the words found, which is 100 - ASR. recovery: the share of what "
    "was forgotten that came back. steps: of the gradient, a prompt; none where the plain prompt was enough."
)


@dataclass(eq=False)
class AttackResult(Result):
    """One attack; the hash of its origin is the attack's, which contains the sampling protocol's."""

    attack: str = ""  # its name
    rows: list[Attacked] = field(default_factory=list)

    @property
    def content(self) -> str:
        return digest(list(map(values_of, self.rows)))

    @cached_property
    def seeds(self) -> dict[str, np.ndarray]:
        return by_seed(self.rows)


def collect_attacks(roots: list[Path], mixed: bool = False) -> tuple[list[AttackResult], list[Path]]:
    """-> the base model's attacks and the runs'; and runs that were not attacked.

    Raises UserError for what must not be compared (`mixed` allows that).
    """
    bases = [
        read_attack(path.parent) for root in roots for path in sorted(root.glob(f"{BASE}/attack/*/{ATTACK}"))
    ]
    runs = [read_attack(path.parent) for root in roots for path in sorted(root.glob(f"*/*/attack/{ATTACK}"))]
    idle = sorted(path.parent for root in roots for path in root.glob(f"*/*/{RECORD}"))
    return distinct(bases + runs, mixed), [run for run in idle if not (run / "attack" / ATTACK).exists()]


def read_attack(folder: Path) -> AttackResult:
    manifest = read_json(folder / MANIFEST, **KEYS)
    check_keys(folder / MANIFEST, manifest["attack"], {"name": str, "hash": str})
    rows, run = read_attacked(folder), manifest["run"]
    if run is not None:
        check_keys(folder / MANIFEST, run, FIELDS)
    if [*dict.fromkeys(row.target for row in rows)] != manifest["targets"].split(","):
        raise UserError(
            f"{folder / ATTACK}: of other targets than {MANIFEST} says; remove the folder and attack again"
        )
    targets = tuple(canvas.parse_targets(manifest["targets"], f"{folder / MANIFEST}: targets"))
    origin = Origin(manifest["attack"]["hash"], manifest["model"], "+".join(map(str, manifest["judges"])))
    about = {"attack": manifest["attack"]["name"], "rows": rows}
    if run is None:
        return AttackResult(folder, BASE, "", targets, None, origin, **about)
    settings = {key: str(value) for key, value in (run["settings"] | {"data": run.get("data")}).items()}
    about |= {"settings": settings, "seed": run["seed"], "requests": tuple(requests(run, folder / MANIFEST))}
    return AttackResult(folder.parent, run["method"], run["variant"], targets, None, origin, **about)


def figures_of(results: list[AttackResult], split: bool = True) -> dict:
    row = means(results, split, ATTACKED) | {"prompts": sum(len(result.rows) for result in results)}
    add_mean(row, "steps", [[float(np.mean([r.steps for r in result.rows]))] for result in results])
    return row


def attack_rows(results: list[AttackResult]) -> list[dict]:
    """A row for runs made alike, the paper's below it, and the rank correlation of ours and theirs."""
    rows, last = beside_paper(grouped(results), figures_of, published.adversarial())
    return [*chain(*rows.values()), *last]


def attack_target_rows(results: list[AttackResult]) -> list[dict]:
    return [
        {"method": label, "target": result.name} | figures_of([result], split=False)
        for result, label in zip(results, labels(results))
    ]


def attack_columns() -> list[str]:
    kinds = [f"{kind}_{name}" for kind in KINDS for name in (*ATTACKED, "targets")]
    return ["method", "target", *ATTACKED, *kinds, *COUNTS]


def attack_remarks(results: list[AttackResult], idle: list[Path], table: list[dict]) -> list[str]:
    """What must be known to read the table."""
    lines = [
        f"Attack {name} ({origin.protocol}), base model {origin.model}, judges {origin.judges}."
        for name, origin in dict.fromkeys((result.attack, result.origin) for result in results)
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
