"""Finished runs as a command takes them, to ask the models that they left: `--runs RUN...`, `--base DIR`"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from diffusion_model_finetuning.core.card import read_card
from evaluation.answers.answer_set import forgotten
from evaluation.core import flags
from evaluation.core.errors import UserError
from evaluation.core.record import RECORD, WEIGHTS, read_record
from evaluation.metrics.figures import check_targets
from evaluation.mini.dataset import check_drawn
from evaluation.protocol import Protocol

RETRAINED = "retrained"  # the method's name in the record of a model that was trained without the target


def add_runs(parser: argparse.ArgumentParser, folder: str) -> None:
    """The flags that name models to ask, and how; `folder` is what results lie in."""
    flags.add_model(parser)
    parser.add_argument(
        "--data", type=flags.data_set, help="data set: folder {theme}/{object}/{n}.jpg, or mini (the model's)"
    )
    parser.add_argument("--runs", type=Path, nargs="+", required=True, metavar="RUN", help="folders of runs")
    parser.add_argument(
        "--base", type=flags.new_folder, metavar="DIR", help=f"of the base model (RUN/../../base/{folder})"
    )
    parser.add_argument("--batch", type=flags.whole(1), help="prompts at once (default: by image size)")
    flags.add_device(parser)


def read_data(args: argparse.Namespace, world: Protocol) -> None:
    """Sets `args.data` for what needs images of the data set; UserError without one."""
    args.data = args.data or read_card(args.model, args.config).get("data")
    if not args.data:
        raise UserError("--data is missing: name the folder of the data set, {theme}/{object}/{n}.jpg")
    check_drawn(args.data, world)


def read_runs(args: argparse.Namespace, world: Protocol, folder: str) -> None:
    """Adds the `records` of `args.runs`, the `targets` of each, and where the base model's results lie.

    UserError for a run that cannot be sampled, or of targets that the protocol has no prompts for.
    """
    args.runs = list(dict.fromkeys(args.runs))
    args.records = [read_record(run) for run in args.runs]
    args.targets = [tuple(forgotten(record, run / RECORD)) for run, record in zip(args.runs, args.records)]
    for run, record, targets in zip(args.runs, args.records, args.targets):
        check_targets(targets, world)
        if record.get("foreign"):
            raise UserError(f"--runs {run}: was made elsewhere, so there is no model to ask; leave it out")
        if not (run / WEIGHTS).exists():
            raise UserError(f"--runs {run}: no {WEIGHTS}; remove the folder and unlearn again")
    root = os.path.normpath(args.runs[0] / "../..")  # of a run named by `.`, too
    args.base = Path(args.base or Path(root, "base", folder))


def retrained_run(base: Path, targets: tuple) -> Path:
    """The run of a model trained without the targets: `ROOT/retrained/{targets}`, if the base model's results
    lie in `ROOT/base/NAME`. UserError if there is none."""
    name = ",".join(map(str, targets))
    run = base.parents[1] / RETRAINED / name
    if not (run / RECORD).exists():
        how = f"train a model without {name}, then python -m machine_unlearning.retrained MODEL --out {run}"
        raise UserError(f"{run}: no run of a retrained model, to which the distance is measured; {how}")
    return run


def check_model(args: argparse.Namespace, model: str) -> None:
    """UserError if a run was made from another base model than that of fingerprint `model`."""
    for run, record in zip(args.runs, args.records):
        if record["model"] not in (model, None):
            raise UserError(f"{run}: made from another base model than --model {args.model} ({model})")


def models(args: argparse.Namespace, folder: str, file: str) -> Iterator[tuple]:
    """Run, record, folder for results, and targets: of the base model (run and record are None) for the
    targets of every run, in `args.base`; then of every run, in its `folder`.

    At the end a UserError, if the `file` of results is missing in one of them.
    """
    asked = {args.base / ",".join(map(str, targets)): (None, None, targets) for targets in args.targets}
    for run, record, targets in zip(args.runs, args.records, args.targets):
        asked[run / folder] = (run, record, targets)
    for place, (run, record, targets) in asked.items():
        yield run, record, place, targets
    if unfinished := [place for place in asked if not (place / file).exists()]:
        still = "other processes still work on prompts of it"
        raise UserError(f"{unfinished[0]}: {still}; run this again when they end")
