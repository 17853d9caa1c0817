"""The plan of a sweep: what is finished, what is missing, and what that will cost"""

import shutil
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path
from statistics import fmean

from evaluation.core.files import read_json, write_json
from evaluation.core.record import RECORD
from evaluation.protocol import Protocol
from machine_unlearning.core import cli
from scripts.sweep import jobs
from scripts.sweep.experiments import BASE, TRANSFER, Experiment, answer_names, evaluated, trained
from scripts.sweep.jobs import SECONDS, latest_job, read_seconds

PROBED = ".sweep/probe.json"
HERE = Path(__file__).parents[2]


class Costs:
    """Seconds and bytes as the finished experiments had them: means of (method, stage), else of a stage."""

    def __init__(self, experiments: list[Experiment], probed: dict[str, float]):
        """`probed`: "method/stage" -> seconds, for what no experiment has finished."""
        seconds, stored, sizes = defaultdict(list), defaultdict(list), []
        for experiment in experiments:
            path = experiment.folder / RECORD
            record = read_json(path, seconds=dict, stored_bytes=int | None) if path.exists() else {}
            if record and not record.get("foreign"):
                seconds[experiment.method, "train"].append(sum(record["seconds"].values()))
                stored[experiment.method].append(record["stored_bytes"] or 0)
            for stage, value in read_seconds(experiment.job_folder / SECONDS).items():
                if stage != "train":  # the record has it, whoever trained
                    seconds[experiment.method, stage].append(value)
                    seconds["", stage].append(value)
            images = (path for path in experiment.answers.glob("[!.]*") if path.suffix in (".png", ".jpg"))
            sizes += [path.stat().st_size for path in islice(images, 50)]
        self.seconds = {tuple(key.split("/")): value for key, value in probed.items()}
        self.seconds |= {key: fmean(values) for key, values in seconds.items()}
        self.stored = {method: fmean(values) for method, values in stored.items()}
        self.image = fmean(sizes) if sizes else 0

    def hours(self, experiment: Experiment, missing: dict[str, float]) -> tuple[float, list[str]]:
        """-> hours of what is missing, and the stages of it that nothing is known of."""
        total, unknown = 0.0, []
        for stage, fraction in missing.items():
            seconds = self.seconds.get((experiment.method, stage), self.seconds.get(("", stage)))
            if seconds is None:
                unknown.append(stage)
            total += fraction * (seconds or 0) / 3600
        return total, unknown

    def disk(self, experiment: Experiment, missing: dict[str, float], protocol: Protocol) -> float:
        """Bytes of what is missing, as far as known."""
        images = missing.get("evaluate", 0) * len(answer_names(protocol)) * self.image
        return images + self.stored.get(experiment.method, 0) * ("train" in missing)


def describe(
    experiments: list[Experiment], protocol: Protocol, costs: Costs, running: set[Path], at_once: int
):
    """-> the plan in lines: one for each method, what failed and its log, hours and disk, what cannot be."""
    left = {experiment: experiment.missing(protocol) for experiment in experiments}
    cost = {experiment: costs.hours(experiment, missing) for experiment, missing in left.items()}
    lines = []
    for method in dict.fromkeys(experiment.method for experiment in experiments):
        own = [experiment for experiment in experiments if experiment.method == method]
        done = sum(not left[experiment] for experiment in own)
        busy = sum(experiment.job_folder in running for experiment in own)
        counts = Counter(stage for experiment in own for stage in left[experiment])
        hours = sum(cost[experiment][0] for experiment in own)
        lines.append(
            f"{method:16}{done:4} of {len(own):3} finished,{busy:3} running{hours:9.2f} h   "
            + ", ".join(f"{count} to {stage}" for stage, count in counts.items())
        )
    for experiment in experiments:
        job = latest_job(experiment.job_folder)
        if job and left[experiment] and experiment.job_folder not in running:
            lines.append(f"{experiment}: ended unfinished, is tried again; log {job['log']}")
    hours = sum(total for total, _ in cost.values())
    disk = sum(costs.disk(experiment, missing, protocol) for experiment, missing in left.items())
    lines.append(
        f"missing: {hours:.2f} hours, {hours / at_once:.2f} with {at_once} at once; {disk / 1e9:.3f} GB"
    )
    if unknown := dict.fromkeys(
        f"{experiment.method} {stage}" for experiment in cost for stage in cost[experiment][1]
    ):
        lines.append(f"not counted, since not measured (--probe: training, drawing): {', '.join(unknown)}")
    reasons = Counter(e.without_fid(protocol) for e in experiments if e.method != TRANSFER)
    for reason, count in reasons.items():
        if reason:
            lines.append(f"FID cannot be measured for {count} answer sets: {reason}")
    return lines


def probe(experiments: list[Experiment], args) -> None:
    """A minute of drawing, into the base model's answers, and of each training that nothing has finished."""
    seconds = read_seconds(args.out / PROBED)
    known = Costs(experiments, seconds).seconds
    last = {e.method: e for e in experiments if e.method not in (BASE, TRANSFER)}
    if last and not args.attack and ("", "evaluate") not in known:
        base, total = experiments[0], len(answer_names(args.world))
        _, module, flags, _ = evaluated([base], args)
        seconds["/evaluate"] = jobs.extrapolate(module, flags, lambda: base.drawn(args.world), total)
    for method, experiment in last.items():
        if (method, "train") in known:
            continue
        scratch = Experiment(args.out / ".sweep" / "probe" / "run", method, experiment.request)
        _, module, flags, _ = trained(scratch, args)
        settings = cli.parse("", str(HERE / "machine_unlearning" / method / "train.py"), flags).settings
        log, steps = scratch.folder / "log.jsonl", settings.get("steps", 1)
        shutil.rmtree(scratch.root, ignore_errors=True)
        seconds[f"{method}/train"] = jobs.extrapolate(
            module, flags, lambda log=log: log.read_text().count("\n") if log.exists() else 0, steps
        )
        shutil.rmtree(scratch.root, ignore_errors=True)
    write_json(args.out / PROBED, {key: value for key, value in seconds.items() if value is not None})
