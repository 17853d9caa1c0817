"""What a sweep runs: a method on a target, read off its files, and the commands that make it

An experiment is `ROOT/{method}/{target}`: a run, the base model (`ROOT/base`) or a method of style transfer
(`ROOT/style_transfer/{method}`). A stage of it is finished when what the stage makes is there, and only then:
that a job ended says nothing. What jobs leave about themselves is in `ROOT/.sweep/{method}/{target}`.
"""

import shlex
from functools import cache
from math import prod
from pathlib import Path
from typing import NamedTuple

from evaluation.answers.answer_set import grid
from evaluation.answers.predictions import PREDICTIONS
from evaluation.canvas import answer_name
from evaluation.core.errors import refused
from evaluation.core.files import read_json
from evaluation.core.record import RECORD
from evaluation.metrics.distances import FID, WEIGHTS
from evaluation.protocol import Protocol
from evaluation.reporting.collect import BASE

TRANSFER, SCORES = "style_transfer", "accuracy.json"


class Experiment(NamedTuple):
    root: Path
    method: str
    target: str  # "" for the base model

    def __str__(self) -> str:
        return str(Path(self.method, self.target))

    @property
    def folder(self) -> Path:
        return self.root / self.method / self.target

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
        if (self.answers / FID).exists():
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
        else:
            train = self.method != BASE and not (self.folder / RECORD).exists()
            predict = train or not self.judged
            sample = 1 - (not train and self.drawn(protocol)) / len(answer_names(protocol)) if predict else 0
            fid = (sample or not (self.answers / FID).exists()) and not self.without_fid(protocol)
            score = self.method != BASE and (predict or not self.scored)
            fractions = {"train": train, "sample": sample, "predict": predict, "fid": fid, "score": score}
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


def job_stages(missing: dict[str, float]) -> set[str]:
    """The stages that need a job: scores are made here, once the base model is judged."""
    return missing.keys() - {"score"}


def commands(experiment: Experiment, args) -> list[tuple[str, str, list[str]]]:
    """(stage, module, arguments) of all that makes an experiment, in order."""
    folder, answers = str(experiment.folder), str(experiment.answers)
    model = ["--model", args.model, *(["--config", args.config] if args.config else [])]
    if experiment.method == TRANSFER:
        weights = str(Path(args.weights) / experiment.target)
        flags = ["--weights", weights, "--data", args.data, "--out", folder]
        flags += ["--protocol", args.transfer_protocol] if args.transfer_protocol else []
        return [("transfer", f"style_transfer.{experiment.target}.transfer", flags)]
    train, run = [], []
    if experiment.method != BASE:
        run = ["--run", folder]
        flags = ["--target", experiment.target, *model, "--out", folder, "--data", args.data]
        flags += shlex.split(args.flags)
        train = [("train", f"machine_unlearning.{experiment.method}.train", flags)]
    return [
        *train,
        (
            "sample",
            "machine_unlearning.sample",
            [*model, *run, "--protocol", args.protocol, "--out", answers],
        ),
        ("predict", "evaluation.predict", [answers]),
        ("fid", "evaluation.fid", [answers, "--data", args.data]),
    ]
