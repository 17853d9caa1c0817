"""What a sweep runs: a method on a target, read off its files, and the commands that make it

An experiment is `ROOT/{method}/{target}`: a run, the base model (`ROOT/base`) or a method of style transfer
(`ROOT/style_transfer/{method}`). The run Sketch~Cats forgot Cats, and went on from
the run Sketch. A stage of it is finished when what the stage makes is there, and only then:
that a job ended says nothing. What jobs leave about themselves is in `ROOT/.sweep/{method}/{target}`.
"""

import shlex
from functools import cache
from math import prod
from pathlib import Path
from typing import NamedTuple

from evaluation.answers.answer_set import grid
from evaluation.answers.attacked import ATTACK
from evaluation.answers.predictions import PREDICTIONS
from evaluation.canvas import CHAIN, answer_name
from evaluation.core.errors import refused
from evaluation.core.files import read_json
from evaluation.core.record import RECORD
from evaluation.metrics.distances import FID, WEIGHTS
from evaluation.protocol import Protocol
from evaluation.reporting.collect import BASE
from scripts.sweep.jobs import Job, Step

TRANSFER, SCORES = "style_transfer", "accuracy.json"
METHODS = Path(__file__).parents[2] / "machine_unlearning"
LITTLE = 0.01  # of the work of an evaluation: what it takes beside drawing


class Experiment(NamedTuple):
    root: Path
    method: str
    target: str  # "" for the base model; of a chain, its requests with ~ between them
    attack: str = ""  # the name of what it is attacked with, in place of its evaluation

    def __str__(self) -> str:
        return str(Path(self.method, self.target))

    @property
    def folder(self) -> Path:
        return self.root / self.method / self.target

    @property
    def request(self) -> str:
        """What this run itself is asked to forget."""
        return self.target.rpartition(CHAIN)[2]

    @property
    def start(self) -> Path | None:
        """The run that it goes on from."""
        before = self.target.rpartition(CHAIN)[0]
        return self.root / self.method / before if before else None

    @property
    def answers(self) -> Path:
        """Where images appear."""
        return self.folder if self.method == TRANSFER else self.folder / "answers"

    @property
    def job_folder(self) -> Path:
        return self.root / ".sweep" / self.method / self.target

    @property
    def judged(self) -> bool:
        return (self.answers / PREDICTIONS).exists()

    @property
    def scored(self) -> bool:
        """Nothing was forgotten by the base model, and pictures of style transfer have other judges."""
        return self.method in (BASE, TRANSFER) or (self.answers / SCORES).exists()

    def drawn(self, protocol: Protocol) -> int:
        """Images of the answer set that are there."""
        return len(answer_names(protocol) & {path.name for path in self.answers.glob("*")})

    def without_fid(self, protocol: Protocol) -> str | None:
        """Why FID cannot be measured, for now or for ever; None if it can, or was."""
        if self.attack or (self.answers / FID).exists():
            return None
        if lacking := [file for file in WEIGHTS[protocol.fid_extractor] if not Path(file).exists()]:
            return f"{lacking[0]} is not there"
        if self.judged and self.drawn(protocol) < len(answer_names(protocol)):
            return "images were removed after they were judged"
        return None

    def missing(self, protocol: Protocol) -> dict[str, float]:
        """Stage -> the fraction of it that is to be done; what is finished, or cannot be, is left out.

        What is made of something that is to be made again is, too.
        """
        if self.method == TRANSFER:
            fractions = {"transfer": self._unpainted()}
        elif self.attack:
            train = not (self.folder / RECORD).exists()
            fractions = {"train": train, "attack": train or not (self.folder / "attack" / ATTACK).exists()}
        else:
            train = self.method != BASE and not (self.folder / RECORD).exists()
            undrawn = 1 - (not train and self.drawn(protocol)) / len(answer_names(protocol))
            measured = (self.answers / FID).exists() or self.without_fid(protocol)
            evaluate = max(undrawn, LITTLE) if train or not self.judged else 0
            fractions = {"train": train, "evaluate": evaluate or LITTLE * (not self.scored or not measured)}
        return {stage: float(fraction) for stage, fraction in fractions.items() if fraction}

    def _unpainted(self) -> float:
        """The fraction of the outputs of style transfer that are neither there nor judged."""
        path, judged = self.folder / "manifest.json", self.folder / "losses.json"
        if not path.exists():
            return 1.0
        protocol = read_json(path, protocol=dict)["protocol"]
        with refused(f"{path}: damaged; remove it", LookupError, TypeError):
            wanted = prod(len(protocol[key]) for key in ("styles", "objects", "contents", "references"))
            painted = sum(1 for _ in self.folder.glob(f"*/[!.]*_test*_ref*.{protocol['format']}"))
        counted = read_json(judged, outputs=int)["outputs"] if judged.exists() else 0
        return 1 - max(painted, counted) / wanted


@cache
def answer_names(protocol: Protocol) -> frozenset[str]:
    """The files of an answer set's images."""
    return frozenset(answer_name(*cell, suffix="." + protocol.format) for cell in grid(protocol))


def model_flags(args) -> list[str]:
    config = ["--config", args.config] if args.config else []
    return ["--model", args.model, *config, "--data", args.data]


def prepared(method: str, targets: list[str], args) -> Step | None:
    """What a method makes once for all targets, if it has a `prepare.py`."""
    if not (METHODS / method / "prepare.py").exists():
        return None
    flags = ["--target", ",".join(targets), *model_flags(args), *shlex.split(args.flags)]
    return Step("prepare", f"machine_unlearning.{method}.prepare", flags)


def trained(experiment: Experiment, args) -> Step:
    flags = ["--target", experiment.request, *model_flags(args), "--out", str(experiment.folder)]
    flags += ["--from", str(experiment.start)] if experiment.start else []
    module = f"machine_unlearning.{experiment.method}.train"
    return Step("train", module, flags + shlex.split(args.flags), {experiment.job_folder: ""})


def evaluated(experiments: list[Experiment], args) -> Step:
    """Of runs, and of the base model, which every such job shares."""
    base = Experiment(args.out, BASE, "").answers
    flags = [*model_flags(args), "--protocol", args.protocol, "--base", str(base), "--keep", args.keep]
    runs = {e.job_folder: "" if e.method == BASE else str(e.folder) for e in experiments}
    return Step("evaluate", "machine_unlearning.evaluate", flags + ["--compile"] * args.compile, runs)


def attacked(experiments: list[Experiment], args) -> Step:
    """Of runs, and of the base model for the same targets, which jobs share."""
    flags = [*model_flags(args), "--attack", args.attack, "--base", str(args.out / BASE / "attack")]
    runs = {experiment.job_folder: str(experiment.folder) for experiment in experiments}
    return Step("attack", "machine_unlearning.attack", flags, runs)


def painted(experiment: Experiment, args) -> Step:
    flags = [experiment.target, "--weights", str(Path(args.weights) / experiment.target), "--data", args.data]
    flags += ["--out", str(experiment.folder)]
    flags += ["--protocol", args.transfer_protocol] if args.transfer_protocol else []
    return Step("transfer", "style_transfer.transfer", flags, {experiment.job_folder: ""})


def groups(experiments: list[Experiment], size: int) -> list[list[Experiment]]:
    """Of about `size` each, in their order; what begins with the same request, as all of a chain, stays
    together, so that a run comes after the one that it goes on from."""
    families = {}
    for experiment in experiments:
        families.setdefault(experiment.target.partition(CHAIN)[0], []).append(experiment)
    result = []
    for family in families.values():
        if result and len(result[-1]) + len(family) <= size:
            result[-1] += family
        else:
            result.append(family)
    return result


def planned(experiments: list[Experiment], args) -> list[Job]:
    """The jobs that make what is missing, of up to `args.runs_per_job` runs of a method each."""
    jobs = []
    missing = {e: stages for e in experiments if (stages := e.missing(args.world))}
    for method in dict.fromkeys(experiment.method for experiment in missing):
        own = [experiment for experiment in missing if experiment.method == method]
        if method == TRANSFER:
            jobs += [Job([painted(experiment, args)], [experiment.job_folder]) for experiment in own]
            continue
        to_train = [experiment for experiment in own if "train" in missing[experiment]]
        alone = [experiment for experiment in to_train if not experiment.start]
        first = prepared(method, [experiment.target for experiment in alone], args) if alone else None
        for group in groups(own, args.runs_per_job):
            steps = [trained(experiment, args) for experiment in group if experiment in to_train]
            last = attacked(group, args) if args.attack else evaluated(group, args)
            steps = [first] * bool(first and {*group} & {*alone}) + [*steps, last]
            clear = [e.folder / "attack" if e.attack else e.answers for e in group if method != BASE]
            jobs.append(Job(steps, [experiment.job_folder for experiment in group], clear))
    return jobs
