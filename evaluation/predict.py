"""Judges answer sets: both classifiers look at every image once, and one row per image is kept

    python -m evaluation.predict runs/esd/Sketch/answers [MORE ...] [--device cuda]

Every metric is a function of the `predictions.csv.gz` written into each folder. What is seen is the most
probable of *all* labels of a classifier, not only of those the protocol samples.
"""

import argparse
import os
from pathlib import Path

from evaluation.answers.answer_set import grid, open_folder, protocol_in, read_manifest
from evaluation.answers.predictions import summary, write_predictions
from evaluation.core import flags
from evaluation.core.errors import UserError, command, early


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m evaluation.predict", description="Judges answer sets.")
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="answer set: manifest, images")
    parser.add_argument("--style-classifier", metavar="FILE", help="default: the protocol's")
    parser.add_argument("--object-classifier", metavar="FILE")
    parser.add_argument("--protocol", metavar="NAME", help="of a folder without manifest.json")
    parser.add_argument("--batch", type=flags.whole(1, 4096), help="images at once (as were drawn, or 64)")
    workers = flags.whole(1, 1024)
    parser.add_argument("--workers", type=workers, default=min(8, os.cpu_count()), help="threads that decode")
    flags.add_device(parser)
    args = parser.parse_args(argv)
    for folder in args.folders:
        protocol_in(folder, args.protocol)
    for flag in ("style_classifier", "object_classifier"):
        file = getattr(args, flag)
        if file and not Path(file).exists():
            raise UserError(f"--{flag.replace('_', '-')} {file}: no such file")
    return args


early(__name__, parse)

from evaluation.core.environment import find_device, made_with
from evaluation.judges.judging import find_files, judge, judged, open_judges, source_of


@command
def main(argv=None):
    args = parse(argv)
    device = find_device(args.device)
    for folder, sampled in [(folder, open_folder(folder, args.protocol)) for folder in args.folders]:
        files = find_files(sampled, (args.style_classifier, args.object_classifier))
        source = source_of(folder, sampled, files)
        if judged(folder, sampled, source):
            print(f"{folder}: already judged")
            continue
        judges, batch = (
            open_judges(sampled, files, device),
            args.batch or read_manifest(folder).get("block", 64),
        )
        options = {"batch": batch, "suffix": "." + sampled.format, "workers": args.workers}
        rows = judge(folder, grid(sampled), *judges, **options)
        made = {"made_with": made_with(device) | {"batch": batch}, "labels": judges.labels}
        write_predictions(folder, rows, source | made)
        print(f"{folder}: {summary(rows)}")


if __name__ == "__main__":
    main()
