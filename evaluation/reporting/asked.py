"""What models said when they were asked for their target by attacks and probes: read from folders of runs

{root}/{method}/{target}/{name}     manifest.json and a table of rows: all that is read
{root}/base/{name}/{targets}        the same of the base model
"""

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from evaluation import canvas, protocol
from evaluation.answers.blocks import Table
from evaluation.answers.claims import MANIFEST
from evaluation.answers.predictions import Origin
from evaluation.core.errors import UserError
from evaluation.core.files import check_keys, digest, read_json
from evaluation.core.record import RECORD, check_maker, check_record, read_record, requests
from evaluation.metrics.retrained import images_of
from evaluation.metrics.robustness import asked, kept, recognised
from evaluation.probes import Distance, Prompted, Relearning
from evaluation.probes.prompted import PLAIN
from evaluation.reporting.collect import BASE, Result, distinct

KEYS = {"model": str, "run": dict | None, "targets": str, "judges": list}


@dataclass(eq=False)
class Asked(Result):
    """One attack or probe; the hash of its origin is its own, which contains the sampling protocol's."""

    asked: str = ""  # the name of what was asked, an attack's or a probe's
    rows: list = field(default_factory=list)
    figures_by_seed: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def content(self) -> str:
        return digest(list(map(str, self.rows)))

    @cached_property
    def seeds(self) -> dict[str, np.ndarray]:
        return self.figures_by_seed


def collect_asked(
    roots: list[Path], name: str, table: Table, kind: type[Prompted], figures, mixed: bool
) -> tuple[list, list[Path]]:
    """What lies in the folders `name`, each of a protocol of that kind; `figures(rows, protocol)` are those
    of one."""
    bases = [path.parent for root in roots for path in sorted(root.glob(f"{BASE}/{name}/*/{table.file}"))]
    runs = [path.parent for root in roots for path in sorted(root.glob(f"*/*/{name}/{table.file}"))]
    idle = sorted(path.parent for root in roots for path in root.glob(f"*/*/{RECORD}"))
    results = [read_asked(folder, table, kind, figures) for folder in bases + runs]
    return distinct(results, mixed), [run for run in idle if not (run / name / table.file).exists()]


def plan_of(folder: Path, table: Table, kind: type[Prompted]) -> Prompted:
    """The attack or probe of that kind, as it was when the pictures were drawn."""
    path = folder / MANIFEST
    content = read_json(path, **{table.kind: dict})[table.kind]
    check_keys(path, content, {"hash": str})
    if (stated := content.pop("kind", name := kind.__name__.lower())) != name:
        raise UserError(f"{path}: of the probe {stated!r:.60}, not {name}; remove the folder and probe again")
    return protocol.from_manifest(content, str(path), kind)


def check_rows(folder: Path, table: Table, plan: Prompted, targets: tuple, rows: list, base: bool) -> None:
    """UserError unless the rows are all that the plan asks for; `base`: of the base model."""
    if not (
        measured(plan, targets, rows) if isinstance(plan, Distance) else drawn(plan, targets, rows, base)
    ):
        lacks = f"{folder / table.file}: not the rows of the prompts that {MANIFEST} asks for"
        raise UserError(f"{lacks}; remove the folder and run python -m {table.maker} again")


def measured(plan: Distance, targets: tuple, rows: list) -> bool:
    """Whether all images were measured at all levels of all noises."""
    levels = defaultdict(set)
    for row in rows:
        levels[row.target, row[1:5]].add(row.t)
    wanted = {(str(t), (*image, seed)) for t, image in images_of(plan, targets) for seed in plan.seeds}
    whole = {len(ts) for ts in levels.values()} == {plan.levels}
    return {*levels} == wanted and whole and len(rows) == len(wanted) * plan.levels


def drawn(plan: Prompted, targets: tuple, rows: list, base: bool) -> bool:
    """Whether the rows are of all prompts under all conditions, of the base model maybe under the plain one
    alone, and say of each what the judges' labels say."""
    wanted = asked(plan, targets) + (kept(plan, targets) if isinstance(plan, Relearning) else [])
    conditions = defaultdict(list)
    for row in rows:
        conditions[row.prompt].append(row.condition)
    of_name = {str(target): target for target in targets}
    complete = {*conditions} == {(str(target), tuple(cell)) for target, cell in wanted} and all(
        names == [PLAIN, *plan.conditions_of(of_name[target])] or (base and names == [PLAIN])
        for (target, _), names in conditions.items()
    )
    true = all(shown == recognised(of_name[row.target], seen) for row in rows for shown, seen in row.verdicts)
    return complete and true


def read_rows(folder: Path, table: Table, kind: type[Prompted]) -> tuple[Prompted, tuple, list]:
    """Protocol, targets and rows of a finished attack or probe; UserError unless they belong together."""
    path = folder / MANIFEST
    manifest, plan, rows = read_json(path, **KEYS), plan_of(folder, table, kind), table.read(folder)
    if [*dict.fromkeys(row.target for row in rows)] != manifest["targets"].split(","):
        other = f"{folder / table.file}: of other targets than {MANIFEST} says"
        raise UserError(f"{other}; remove the folder and run python -m {table.maker} again")
    if (run := manifest["run"]) is not None:
        check_record(path, run)
        if (folder.parent / RECORD).exists():
            check_maker(folder, run, read_record(folder.parent))
    targets = tuple(canvas.parse_targets(manifest["targets"], f"{path}: targets"))
    check_rows(folder, table, plan, targets, rows, base=run is None)
    return plan, targets, rows


def read_asked(folder: Path, table: Table, kind: type[Prompted], figures) -> Asked:
    plan, targets, rows = read_rows(folder, table, kind)
    path = folder / MANIFEST
    manifest = read_json(path)
    run = manifest["run"]
    origin = Origin(manifest[table.kind]["hash"], manifest["model"], "+".join(map(str, manifest["judges"])))
    about = {"asked": plan.name, "rows": rows, "figures_by_seed": figures(rows, plan)}
    if run is None:
        return Asked(folder, BASE, "", targets, None, origin, **about)
    settings = {key: str(value) for key, value in (run["settings"] | {"data": run.get("data")}).items()}
    about |= {"settings": settings, "seed": run["seed"], "requests": tuple(requests(run, path))}
    return Asked(folder.parent, run["method"], run["variant"], targets, None, origin, **about)
