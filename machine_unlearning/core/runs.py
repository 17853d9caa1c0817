"""Finished runs as a command takes them, to ask the models that they left: `--runs RUN...`, `--base DIR`"""

import argparse
from collections.abc import Iterator

from evaluation.answers.answer_set import forgotten
from evaluation.core.errors import UserError
from evaluation.core.record import RECORD, WEIGHTS, read_record
from evaluation.metrics.figures import check_targets
from evaluation.protocol import Protocol


def read_runs(args: argparse.Namespace, world: Protocol) -> None:
    """Adds the `records` of `args.runs`, and the `targets` of each.

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


def check_model(args: argparse.Namespace, model: str) -> None:
    """UserError if a run was made from another base model than that of fingerprint `model`."""
    for run, record in zip(args.runs, args.records):
        if record["model"] not in (model, None):
            raise UserError(f"{run}: made from another base model than --model {args.model} ({model})")


def models(args: argparse.Namespace, name: str) -> Iterator[tuple]:
    """Run, record, folder for results, and targets: of the base model (run and record are None) for the
    targets of every run, in `args.base`; then of every run, in its folder `name`."""
    for targets in dict.fromkeys(args.targets):
        yield None, None, args.base / ",".join(map(str, targets)), targets
    for run, record, targets in zip(args.runs, args.records, args.targets):
        yield run, record, run / name, targets
