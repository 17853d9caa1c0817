"""Judges answer sets: both classifiers look at every image once, and one row per image is kept

    python -m evaluation.predict runs/esd/Sketch/answers [MORE ...] [--device cuda]

Every metric is a function of the `predictions.csv.gz` written into each folder. What is seen is the most
probable of *all* labels of a classifier, not only of those the protocol samples.
"""

import argparse
import os
from pathlib import Path
from statistics import fmean

from evaluation.answers.answer_set import grid, open_folder, protocol_in, read_manifest
from evaluation.answers.predictions import DOMAINS, write_predictions
from evaluation.canvas import TASKS
from evaluation.core import flags
from evaluation.core.errors import UserError, command, early


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m evaluation.predict", description="Judges answer sets.")
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="answer set: manifest, images")
    parser.add_argument("--style-classifier", metavar="FILE", help="default: the protocol's")
    parser.add_argument("--object-classifier", metavar="FILE")
    parser.add_argument("--protocol", metavar="NAME", help="of a folder without manifest.json")
    parser.add_argument("--batch", type=flags.whole(1, 4096), default=64, help="images at once (64)")
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

from evaluation.core.environment import find_device, made_with, no_tf32
from evaluation.core.files import file_digest
from evaluation.judges.judging import check_labels, find_files, judge, judged, open_classifier


@command
def main(argv=None):
    args = parse(argv)
    device = find_device(args.device)
    no_tf32()
    made = made_with(device) | {"batch": args.batch}
    for folder, sampled in [(folder, open_folder(folder, args.protocol)) for folder in args.folders]:
        files = find_files(sampled, (args.style_classifier, args.object_classifier))
        digests = {f"{task}_classifier": file_digest(file) for task, file in zip(TASKS, files)}
        manifest, named = read_manifest(folder), {"name": sampled.name, "hash": sampled.hash}
        source = {"protocol": named, "model": manifest["model"], "run": manifest["run"]} | digests
        source["made_with"] = made
        if judged(folder, sampled, source):
            print(f"{folder}: already judged")
            continue
        classifiers = [open_classifier(file, task, device=device) for file, task in zip(files, TASKS)]
        for classifier, names, file in zip(classifiers, (sampled.themes, sampled.objects), files):
            check_labels(classifier, names, file, sampled)
        options = {"batch": args.batch, "device": device, "workers": args.workers}
        rows = judge(folder, grid(sampled), *classifiers, suffix="." + sampled.format, **options)
        source["labels"] = {domain: judge_of.labels for domain, judge_of in zip(DOMAINS, classifiers)}
        write_predictions(folder, rows, source)
        style = fmean(row.theme == row.theme_seen for row in rows)
        shape = fmean(row.object == row.object_seen for row in rows)
        print(f"{folder}: {len(rows)} images; asked style seen in {style:.1%}, object in {shape:.1%}")


if __name__ == "__main__":
    main()
