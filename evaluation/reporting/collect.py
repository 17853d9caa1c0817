"""What folders of runs hold: one `Result` for every run, and for the base model one for every target

{root}/base/answers            the base model's answer set
{root}/{method}/{target}       record.json, and answers/ with predictions and fid.json

Manifests and records are read at once, predictions when a figure is first asked for.
"""

import shlex
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from evaluation import canvas
from evaluation.answers.answer_set import forgotten
from evaluation.answers.predictions import PREDICTIONS, JudgedAnswers, Origin, Predictions
from evaluation.core.errors import UserError
from evaluation.core.files import check_keys
from evaluation.core.pools import threads
from evaluation.core.record import RECORD, Request, check_maker, read_record, requests
from evaluation.metrics.distances import FID, read_distances
from evaluation.metrics.figures import FIGURES, by_seed, check_targets
from evaluation.protocol import Protocol

BASE = "base"  # the folder, and the method's name in tables, of the model that nothing was unlearned from
FOREIGN = "foreign"  # the variant of what no training of ours made
REFERENCE = {"extractor": str, "weights": list, "data_digest": str}  # that FIDs must share to be compared


@dataclass(eq=False)
class Result:
    """One answer set's figures for one target, and what they cost."""

    path: Path  # of the run
    method: str
    variant: str
    targets: tuple[canvas.Target, ...]  # forgotten at once, or in turn
    answers: JudgedAnswers
    origin: Origin
    settings: dict[str, str] = field(default_factory=dict)  # that set a run apart from others of its variant
    seed: int | None = None  # of the training
    requests: tuple[Request, ...] = ()  # of the runs that it went on from, in turn, and its own
    costs: dict[str, float] = field(default_factory=dict)  # FID, KID, seconds, memory_GB, storage_MB
    reference: dict | None = None  # the origin of FID and KID: with what, against what

    @property
    def target(self) -> str:
        return ",".join(map(str, self.targets))

    @property
    def kind(self) -> str:
        """Of target: style, object, pair, or several."""
        return self.targets[0].kind if len(self.targets) == 1 else "several"

    @property
    def chain(self) -> bool:
        """Whether it went on from another run: one of the sequential setting."""
        return len(self.requests) > 1

    @property
    def name(self) -> str:
        """What it forgot: `Sketch~Cats` in turn, `Sketch,Cats` at once."""
        return canvas.CHAIN.join(request.target for request in self.requests) if self.chain else self.target

    @property
    def comparable(self) -> dict[str, str]:
        """What results must share to be compared: the origin, and what FID was measured with and against."""
        measured = {f"FID {key}": str(self.reference[key]) for key in REFERENCE} if self.reference else {}
        known = {what: value for what, value in self.origin._asdict().items() if value is not None}
        return known | measured

    @property
    def protocol(self) -> Protocol:
        return self.answers.protocol

    @property
    def predictions(self) -> Predictions:
        return self.answers.predictions

    @property
    def content(self) -> str:
        """Stands for the images that were judged."""
        return self.predictions.images

    @cached_property
    def seeds(self) -> dict[str, np.ndarray]:
        """Figure -> [seeds] in [0,1], a mean over targets forgotten at once; absent if not applicable."""
        values = {}
        for name in FIGURES:
            shared = self.targets, self.predictions, self.protocol
            of_target = [by_seed(name, target, *shared) for target in self.targets]
            if of_target := [seeds for seeds in of_target if seeds is not None]:
                values[name] = np.mean(of_target, 0)
        return values

    @cached_property
    def figures(self) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in self.seeds.items()}


def collect(roots: list[Path], mixed: bool = False) -> tuple[list[Result], list[Path]]:
    """-> the base model (once for every target of its runs) and the runs; and runs without predictions.

    Raises UserError if `roots` hold no runs, or what must not be compared (`mixed` allows that).
    """
    paths = sorted(path.parent for root in roots for path in root.glob(f"*/*/{RECORD}"))
    if not paths:
        raise UserError(f"{', '.join(map(str, roots))}: no runs; expected METHOD/TARGET/{RECORD} inside")
    done = [path for path in paths if (path / "answers" / PREDICTIONS).exists()]
    bases = [root / BASE for root in roots if (root / BASE / "answers" / PREDICTIONS).exists()]
    bases = {path: JudgedAnswers(path / "answers") for path in bases}
    runs = [read_run(path, bases) for path in done]
    results = []
    for path, answers in bases.items():
        targets = dict.fromkeys(run.targets for run in runs if run.origin == answers.origin) or [()]
        results += [with_distances(Result(path, BASE, "", t, answers, answers.origin)) for t in targets]
    results = distinct(results + runs, mixed)
    results = [result for result in results if result.targets]  # a base model without runs was only checked
    return results, [path for path in paths if path not in done]


def read_run(path: Path, bases: dict[Path, JudgedAnswers]) -> Result:
    record, answers = read_record(path), JudgedAnswers(path / "answers")
    check_maker(path / "answers", answers.manifest["run"] or {}, record)
    origin = answers.origin
    if (
        record["variant"] == FOREIGN
    ):  # a model of its own, unlearned from the base model that it names, if any
        only = next(iter(bases.values())).origin.model if bases else None
        origin = origin._replace(model=record["model"] or only)
    costs = {}
    if record["seconds"]:
        costs["seconds"] = sum(record["seconds"].values())
    if record["peak_memory_bytes"]:
        costs["memory_GB"] = record["peak_memory_bytes"] / 1e9
    if record["stored_bytes"] is not None:
        costs["storage_MB"] = record["stored_bytes"] / 1e6
    targets = tuple(forgotten(record, path / RECORD))
    check_targets(targets, answers.protocol)
    settings = record["settings"] | {"data": record.get("data")}
    settings = {key: str(value) for key, value in settings.items()}
    shape = (path, record["method"], record["variant"], targets, answers, origin)
    return with_distances(Result(*shape, settings, record["seed"], tuple(requests(record)), costs))


def with_distances(result: Result) -> Result:
    """Adds FID and KID, measured without the images of the result's own targets."""
    distances = read_distances(result.answers.folder)
    values = distances and distances["values"].get(result.target)
    if values:
        check_keys(result.answers.folder / FID, distances["origin"], REFERENCE | {"data": str})
        names = {"fid": "FID", "kid": "KID"}
        result.costs |= {names[key]: values[key] for key in names if values.get(key) is not None}
        result.reference = distances["origin"]
    return result


def without_chains(results: list[Result]) -> list[Result]:
    """The runs that started from the base model, and the base model's results for what they forgot."""
    runs = [result for result in results if result.method != BASE and not result.chain]
    forgotten_at_once = {(run.origin, run.targets) for run in runs}
    return [r for r in results if r.method == BASE and (r.origin, r.targets) in forgotten_at_once] + runs


def read_all(results: list[Result]) -> None:
    """Reads all predictions, several files at a time; UserError if a FID is of other images than they are."""
    answers = {result.answers.folder: result.answers for result in results}

    def read(folder: Path) -> None:
        read_distances(folder, answers[folder].predictions.images)

    with threads() as pool:
        list(pool.map(read, answers))


def distinct(results: list[Result], mixed: bool) -> list[Result]:
    """The results; the base model's once, of which every root may hold a copy.

    UserError for results that do not compare, unless `mixed`, and for two of one method and target.
    """
    known, first = {}, {}
    for result in results:
        for what, value in result.comparable.items():
            other, its = first.setdefault(what, (result, value))
            if its != value and not mixed:
                raise UserError(
                    f"{other.path} has {what} {its}, but {result.path} has {what} {value}, so they do not "
                    "compare; name other folders, or add --any-protocol, which marks the rows"
                )
        made = (result.method, result.variant, result.targets, result.requests, result.origin, result.seed)
        twin = known.setdefault((*made, *sorted(result.settings.items())), result)
        if twin is not result and (result.method != BASE or twin.content != result.content):
            raise UserError(f"{twin.path} and {result.path} are of one method and target; leave one out")
    return list(known.values())


def next_command(path: Path) -> str:
    """What makes the predictions that a run lacks."""
    answers = path / "answers"
    if (answers / "manifest.json").exists():
        return shlex.join(["python", "-m", "evaluation.predict", str(answers)])
    model = read_record(path).get("model_path")
    words = ["--model", model, "--run", path, "--protocol", "NAME", "--out", answers]
    return shlex.join(["python", "-m", "machine_unlearning.sample", *map(str, words)])
