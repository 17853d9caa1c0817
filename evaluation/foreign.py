"""Enters images or a model made elsewhere as a run, so that tables and report show it beside ours

    python -m evaluation.foreign runs/theirs/Sketch --protocol canvas --base runs/base/answers
    python -m evaluation.predict runs/theirs/Sketch/answers

`runs/theirs/Sketch/answers` holds all images {theme}_{object}_seed{n}.png of the protocol, made elsewhere or,
from a whole model, by machine_unlearning.sample. The record.json says what is known of it, null for the rest.
"""

import argparse
import re
from pathlib import Path

from evaluation import canvas
from evaluation.answers.answer_set import open_folder, protocol_in, protocol_of, read_manifest
from evaluation.core import flags
from evaluation.core.errors import UserError, command, early
from evaluation.core.files import read_json
from evaluation.core.record import NAME, RECORD, now, write_record
from evaluation.metrics.figures import check_targets
from evaluation.protocol import Protocol
from evaluation.reporting.collect import BASE


def check_folder(run: Path, method: str, target: str) -> None:
    """UserError unless `run` is ROOT/{method}/{target} or /{target}-{...}, has answers and is not ours."""
    if method == BASE or not NAME.fullmatch(method):
        raise UserError(f"--method {method}: not a name; use letters, digits, - _ . +, and not {BASE}")
    if run.parent.name != method or not re.fullmatch(re.escape(target) + r"(-[A-Za-z0-9_.+-]+)?", run.name):
        raise UserError(f"{run}: tables look for runs at ROOT/METHOD/TARGET; name it ROOT/{method}/{target}")
    if not (run / "answers").is_dir() or (run / "answers").resolve() != run / "answers":
        raise UserError(f"{run}: no folder answers/ in it; move the images there (a link will not do)")
    if (run / "log.jsonl").exists() or (
        (run / RECORD).exists() and not read_json(run / RECORD).get("foreign")
    ):
        raise UserError(f"{run}: holds a run of this project; choose another folder")


def check_answers(folder: Path, protocol: Protocol, base: Path | None) -> None:
    """UserError if a run of ours made them, or if they are no counterpart of `base`."""
    sampled, manifest = f"{folder}: sampled from", read_manifest(folder)
    if run := manifest["run"]:
        raise UserError(f"{sampled} a run of {run.get('method')}, which has a record")
    if base and (read_manifest(base)["run"] is not None or protocol_of(base).hash != protocol.hash):
        raise UserError(f"--base {base}: not a base model's answer set of protocol {protocol.name}")
    if base and manifest["model"] == read_manifest(base)["model"]:
        raise UserError(f"{sampled} the model of --base {base}, so nothing was unlearned")


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m evaluation.foreign", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", type=Path, metavar="RUN", help="ROOT/METHOD/TARGET, its images in answers/")
    parser.add_argument("--method", help="its name in tables (default: as the folder says)")
    parser.add_argument("--target", help="style, object, pair or several (default: as the folder says)")
    parser.add_argument("--protocol", metavar="NAME", help="of images without manifest.json")
    parser.add_argument("--base", type=Path, help="answer set of the model it was made from, if that is ours")
    parser.add_argument("--seconds", type=flags.decimal(), help="that unlearning took")
    parser.add_argument("--memory-gb", type=flags.decimal(), help="its peak")
    parser.add_argument("--storage-mb", type=flags.decimal(), help="that it adds to the base model's")
    args = parser.parse_args(argv)
    run = args.run.resolve()
    args.method, args.target = args.method or run.parent.name, args.target or run.name
    args.targets = canvas.parse_targets(args.target)
    check_folder(run, args.method, args.target)
    check_targets(args.targets, protocol_in(run / "answers", args.protocol))
    return args


early(__name__, parse)

from evaluation.core.environment import made_with


@command
def main(argv=None):
    args = parse(argv)
    run = args.run.resolve()
    protocol = open_folder(run / "answers", args.protocol)
    check_answers(run / "answers", protocol, args.base)
    record = {"method": args.method, "target": args.target, "variant": "foreign", "settings": {}}
    record |= {
        "seed": None,
        "foreign": True,
        "model_path": None,
        "data": None,
        "from": None,
        "finished": now(),
    }
    record |= {
        "model": read_manifest(args.base)["model"] if args.base else None,
        "seconds": {} if args.seconds is None else {"unlearn": args.seconds},
        "peak_memory_bytes": None if args.memory_gb is None else round(1e9 * args.memory_gb),
        "stored_bytes": None if args.storage_mb is None else round(1e6 * args.storage_mb),
    }
    write_record(run, record | made_with("cpu") | {"device": None})  # what unlearned it, nobody knows
    print(f"{args.run}: entered; next: python -m evaluation.predict {args.run}/answers")


if __name__ == "__main__":
    main()
