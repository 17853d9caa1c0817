"""Probes: the rows of their tables"""

from pathlib import Path

from evaluation import probes
from evaluation.answers.distant import TABLE as DISTANCES
from evaluation.answers.probed import TABLE
from evaluation.metrics.retrained import distance_by_seed
from evaluation.metrics.robustness import probe_by_seed
from evaluation.reporting.adversarial import collect_attacks
from evaluation.reporting.asked import Asked, collect_asked
from evaluation.reporting.collect import BASE
from evaluation.reporting.formats import KINDS
from evaluation.reporting.rows import grouped, labels, means, unequal_targets

ABOUT = {
    "completion": "UA after s: the base model drew the share s of the steps, the unlearned model the rest.",
    "noise": "UA best of k: of k pictures with noise in every step, none shows the target. The base model is "
    "asked for what takes the target's place: its row tells what chance gives.",
    "ladder": "UA by what the target is asked by, from its bare name on; neighbour: share of the pictures "
    "asked by the nearest neighbour's name that are recognised as it, which should stay. The base model's "
    "row tells what it understands.",
    "inversion": "UA token: a new word in the target's place, learned from its images on the unlearned "
    "model. The base model's row tells what such a word gives where nothing was forgotten.",
    "relearning": "UA and CRA after fine-tuning, by images (benign: kept ones alone), weights and steps; CRA "
    "is of a sample of the kept prompts.",
    "distance": "target, kept: squared distance of predicted noise to that of a model trained without the "
    "target, in percent of the base model's. 0: as if never trained on; above 100: farther than before.",
}
RECOVERY = "recovery: the share of what was forgotten that came back, by the measure named."
SUMMARY = "The share of what was forgotten that came back, in percent"
ATTACK = "attack"  # in the summary, beside the probes


def collect_probes(roots: list[Path], kind: str, mixed: bool = False) -> tuple[list[Asked], list[Path]]:
    """-> the base model's and the runs' probes of that kind; and runs that were not probed.

    Raises UserError for what must not be compared (`mixed` allows that).
    """
    of_kind = probes.KINDS[kind]
    if of_kind is probes.Distance:
        return collect_asked(roots, kind, DISTANCES, of_kind, distance_by_seed, mixed)
    return collect_asked(roots, kind, TABLE, of_kind, probe_by_seed, mixed)


def figures(results: list[Asked]) -> list[str]:
    """The names of all that was measured, recovery last."""
    names = dict.fromkeys(name for result in results for name in result.seeds)
    return sorted(names, key=lambda name: name.startswith("recovery"))


def recoveries(results: list[Asked]) -> list[str]:
    """Those of them that tell what came back."""
    return [name for name in figures(results) if name.startswith("recovery")]


def probe_rows(results: list[Asked]) -> list[dict]:
    """A row for runs made alike."""
    names = figures(results)
    return [{"method": label} | means(group, True, names) for label, group in grouped(results).items()]


def probe_target_rows(results: list[Asked]) -> list[dict]:
    named, names = zip(results, labels(results)), figures(results)
    return [{"method": label, "target": r.name} | means([r], False, names) for r, label in named]


def probe_columns(results: list[Asked]) -> list[str]:
    names = figures(results)
    return ["method", "target", *names, *(f"{kind}_{name}" for kind in KINDS for name in (*names, "targets"))]


def probe_remarks(kind: str, results: list[Asked], idle: list[Path]) -> list[str]:
    """What must be known to read the table."""
    lines = [
        f"Probe {kind} {name} ({origin.protocol}), base model {origin.model}"
        f"{origin.judges and f', judges {origin.judges}'}."
        for name, origin in dict.fromkeys((result.asked, result.origin) for result in results)
    ]
    command = f"python -m machine_unlearning.probe {kind} --runs"
    unprobed = [f"not probed: {run}; {command} {run}" for run in idle]
    recovery = [RECOVERY] * bool(recoveries(results))
    return [*lines, ABOUT[kind], *recovery, *unequal_targets(results), *unprobed]


def collect_all(roots: list[Path], mixed: bool = False) -> dict[str, list[Asked]]:
    """Attack or probe -> its results, of those that there are."""
    every = {ATTACK: collect_attacks(roots, mixed)[0]}
    every |= {kind: collect_probes(roots, kind, mixed)[0] for kind in probes.KINDS}
    return {kind: results for kind, results in every.items() if results}


def summary_rows(every: dict[str, list[Asked]]) -> list[dict]:
    """A row for runs made alike, by name: of every attack and probe its recovery, a mean over the targets."""
    rows = {}
    for kind, results in every.items():
        if not (names := recoveries(results)):
            continue
        for label, group in grouped([result for result in results if result.method != BASE]).items():
            values = means(group, True, names).items()
            row = rows.setdefault(label, {"method": label})
            row |= {key.replace("recovery", kind): value for key, value in values if "recovery" in key}
    return [rows[label] for label in sorted(rows)]


def summary_columns(every: dict[str, list[Asked]]) -> list[str]:
    names = [
        name.replace("recovery", kind) for kind, results in every.items() for name in recoveries(results)
    ]
    return ["method", *(f"{target}_{name}" for target in KINDS for name in names)]


def summary_remarks(every: dict[str, list[Asked]]) -> list[str]:
    """Of what the summary is a mean."""
    lines = [f"{SUMMARY}, by every attack or probe and its measure; a mean over the targets."]
    for kind, results in every.items():
        if not recoveries(results):
            continue
        targets = dict.fromkeys(result.target for result in results)
        lines += [f"{kind}: {', '.join(targets)}.", *unequal_targets(results)]
    return lines
