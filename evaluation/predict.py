"""Judges answer sets: both classifiers look at every image once, and one row per image is kept

    python -m evaluation.predict runs/esd/Sketch/answers [MORE ...] [--device cuda]

Every metric is a function of the `predictions.csv.gz` written into each folder. What is seen is the most
probable of *all* labels of a classifier, not only of those the protocol samples.
"""

import argparse
import os
from pathlib import Path
from statistics import fmean

import torch

from evaluation.answers.answer_set import grid, read_manifest
from evaluation.answers.predictions import write_predictions
from evaluation.core.environment import made_with, no_tf32
from evaluation.core.errors import UserError, command
from evaluation.core.files import file_digest
from evaluation.judges.classifier import TASKS
from evaluation.judges.judging import check_labels, find_files, judge, judged, open_classifier, open_folder


@command
def main(argv=None):
    parser = argparse.ArgumentParser("python -m evaluation.predict", description="Judges answer sets.")
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="answer set: manifest, images")
    parser.add_argument("--style-classifier", metavar="FILE", help="default: the protocol's")
    parser.add_argument("--object-classifier", metavar="FILE")
    parser.add_argument("--protocol", metavar="NAME", help="of a folder without manifest.json")
    parser.add_argument("--batch", type=int, default=64, help="images at once (default 64)")
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count()), help="threads that decode")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    no_tf32()
    for flag in ("batch", "workers"):
        if (count := getattr(args, flag)) < 1:
            raise UserError(f"--{flag} {count}: at least 1 is needed")
    made = made_with(args.device) | {"batch": args.batch}
    for folder, sampled in [(folder, open_folder(folder, args.protocol)) for folder in args.folders]:
        files = find_files(sampled, (args.style_classifier, args.object_classifier))
        digests = {f"{task}_classifier": file_digest(file) for task, file in zip(TASKS, files)}
        manifest, named = read_manifest(folder), {"name": sampled.name, "hash": sampled.hash}
        source = {"protocol": named, "model": manifest["model"], "run": manifest["run"]} | digests
        source["made_with"] = made
        if judged(folder, sampled, source):
            print(f"{folder}: already judged")
            continue
        classifiers = [open_classifier(file, task, device=args.device) for file, task in zip(files, TASKS)]
        for classifier, names, file in zip(classifiers, (sampled.themes, sampled.objects), files):
            check_labels(classifier, names, file, sampled)
        options = {"batch": args.batch, "device": args.device, "workers": args.workers}
        rows = judge(folder, grid(sampled), *classifiers, suffix="." + sampled.format, **options)
        write_predictions(folder, rows, source)
        style = fmean(row.theme == row.theme_seen for row in rows)
        shape = fmean(row.object == row.object_seen for row in rows)
        print(f"{folder}: {len(rows)} images; asked style seen in {style:.1%}, object in {shape:.1%}")


if __name__ == "__main__":
    main()
