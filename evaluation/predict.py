"""Judges answer sets: both classifiers look at every image once, and one row per image is kept

    python -m evaluation.predict runs/esd/Sketch/answers [MORE ...] [--device cuda]

Every metric is a function of the `predictions.csv.gz` written into each folder. What is seen is the most
probable of *all* labels of a classifier, not only of those the protocol samples.
"""

import argparse
import functools
import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from evaluation import canvas, protocol
from evaluation.answers import predictions
from evaluation.answers.answer_set import AnswerSet, Cell, grid, protocol_of, read_manifest
from evaluation.core.errors import UserError, command
from evaluation.core.files import file_digest
from evaluation.judges.classifier import TASKS, Classifier, load_classifier, preprocess
from evaluation.mini import dataset
from evaluation.mini.objects import SIZE as MINI_SIZE

MINI = ("checkpoints/mini/style_classifier.safetensors", "checkpoints/mini/object_classifier.safetensors")
PUBLISHED = ("checkpoints/style50.pth", "checkpoints/style50_cls.pth")


class AnswerFolder(NamedTuple):
    """A complete answer set and where it is from."""

    folder: Path
    protocol: protocol.Protocol
    origin: dict  # protocol, base model and run, as the predictions will quote them

    @property
    def paths(self) -> list[Path]:
        return image_paths(self.folder, grid(self.protocol), "." + self.protocol.format)


def image_paths(folder: str | Path, cells, suffix: str) -> list[Path]:
    return [Path(folder) / canvas.answer_name(*cell, suffix=suffix) for cell in cells]


def judge(
    folder: str | Path,
    cells: list[Cell],
    style_classifier: Classifier,
    object_classifier: Classifier,
    batch: int = 64,
    device: str = "cpu",
    suffix: str = ".png",
    workers: int = 4,
) -> list[predictions.Prediction]:
    """What both classifiers, already on `device`, see in the image of every cell; a row for each.

    Raises UserError for an unreadable image; every name in `cells` must be a label.
    """
    judges, rows = (style_classifier, object_classifier), []
    read = functools.partial(read_image, sizes={classifier.size for classifier in judges})
    chunks = [cells[start : start + batch] for start in range(0, len(cells), batch)]
    with ThreadPoolExecutor(workers) as pool, torch.inference_mode():
        # The next batch is decoded while the networks look at this one.
        ahead = [pool.submit(read, path) for path in image_paths(folder, chunks[0], suffix)]
        for number, chunk in enumerate(tqdm(chunks, desc=str(folder), disable=None)):
            images, hashes = zip(*(future.result() for future in ahead))
            following = chunks[number + 1] if number + 1 < len(chunks) else []
            ahead = [pool.submit(read, path) for path in image_paths(folder, following, suffix)]
            verdicts = []
            for classifier, asked in zip(judges, zip(*((cell.theme, cell.object) for cell in chunk))):
                pixels = torch.stack([image[classifier.size] for image in images])
                verdicts.append(verdict(classifier, pixels.to(device).float().div(255), asked))
            for cell, (theme, p, top), (obj, q, most), sha in zip(chunk, *verdicts, hashes):
                rows.append(predictions.Prediction(*cell, theme, obj, p, q, top, most, sha))
    return rows


def verdict(classifier: Classifier, images: torch.Tensor, asked) -> list[tuple[str, float, float]]:
    """[B,3,size,size] in [0,1] -> for each: label seen, probability of the label asked for, of that seen."""
    number = {label: i for i, label in enumerate(classifier.labels)}
    probs = classifier(images).softmax(1).cpu()
    top, seen = probs.max(1)
    wanted = probs[torch.arange(len(probs)), [number[label] for label in asked]]
    return [(classifier.labels[i], p, t) for i, p, t in zip(seen.tolist(), wanted.tolist(), top.tolist())]


def read_image(path: Path, sizes: set[int]) -> tuple[dict, str]:
    """-> {size: uint8 [3,size,size]}, digest of the file; reads it once."""
    content = path.read_bytes()
    try:
        image = Image.open(io.BytesIO(content)).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{path}: not a readable image ({error}); remove it and sample it again") from error
    return {size: preprocess(image, size) for size in sizes}, hashlib.sha256(content).hexdigest()[:16]


def open_folder(folder: str | Path, name: str | None) -> AnswerFolder:
    """The complete answer set in a folder; `name`: the protocol of one without manifest. Raises UserError."""
    foreign = not (Path(folder) / "manifest.json").exists()
    if foreign and not name:
        raise UserError(
            f"{folder}: no manifest.json; name what it was sampled with, such as --protocol canvas"
        )
    made_with = protocol.load(name) if foreign else protocol_of(folder)
    if name and made_with.hash != protocol.load(name).hash:
        raise UserError(
            f"--protocol {name}: {folder}/manifest.json names protocol {made_with.name}; leave it out"
        )
    paths = image_paths(folder, grid(made_with), "." + made_with.format)
    if missing := [path for path in paths if not path.exists()]:
        raise UserError(
            f"{folder}: {len(missing)} of {len(paths)} images are missing, first {missing[0].name}; "
            f"complete it with: python -m machine_unlearning.sample --out {folder}"
        )
    if foreign:
        AnswerSet(folder, made_with, model=None)  # from now on an answer set like ours, of an unknown model
    manifest = read_manifest(folder)
    origin = {"protocol": {"name": made_with.name, "hash": made_with.hash}}
    origin |= {"model": manifest["model"], "run": manifest["run"]}
    return AnswerFolder(Path(folder), made_with, origin)


def judged(answers: AnswerFolder, source: dict) -> bool:
    """Whether the folder's predictions are of these very images, by these very classifiers."""
    if not (answers.folder / predictions.PREDICTIONS).exists():
        return False
    rows, before = predictions.read_predictions(answers.folder)
    if before != source or [row[:3] for row in rows] != grid(answers.protocol):
        return False
    with ThreadPoolExecutor() as pool:
        return [row.sha256 for row in rows] == list(pool.map(file_digest, answers.paths))


def default_files(made_with: protocol.Protocol) -> tuple[str, str]:
    """The classifiers a protocol is judged by: the miniature's for its images, else the published ones."""
    mini = set(made_with.themes) <= set(dataset.THEMES) and set(made_with.objects) <= set(dataset.OBJECTS)
    return MINI if mini and made_with.size == MINI_SIZE else PUBLISHED


def find_file(given: str | None, default: str, task: str) -> str:
    path = given or default
    if Path(path).exists():
        return path
    hint = "it comes with this repository; scripts/make_mini.sh trains it again"
    if default in PUBLISHED:
        hint = "it is published by the authors of UnlearnCanvas, see checkpoints/checkpoints.csv"
    raise UserError(f"--{task}-classifier {path}: no such file" + ("" if given else f"; {hint}"))


@functools.cache
def open_classifier(path: str, task: str, device: str) -> Classifier:
    return load_classifier(path, task, device=device)


def check_labels(classifier: Classifier, names, path: str, made_with: protocol.Protocol) -> None:
    if unknown := [name for name in names if name not in classifier.labels]:
        raise UserError(
            f"--{classifier.task}-classifier {path}: does not know {unknown[0]} and {len(unknown) - 1} other "
            f"names of protocol {made_with.name}; give a file that was trained on them"
        )


@command
def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m evaluation.predict", description="Judges answer sets.")
    parser.add_argument("folders", nargs="+", metavar="DIR", help="answer set: manifest.json and images")
    parser.add_argument(
        "--style-classifier", metavar="FILE", help="default: the miniature's or the published one"
    )
    parser.add_argument("--object-classifier", metavar="FILE")
    parser.add_argument(
        "--protocol", metavar="NAME", help="what a folder without manifest.json was sampled with"
    )
    parser.add_argument("--batch", type=int, default=64, help="images at once (default 64)")
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count()), help="threads that decode")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    given = (args.style_classifier, args.object_classifier)
    for answers in [open_folder(folder, args.protocol) for folder in args.folders]:
        made_with, defaults = answers.protocol, default_files(answers.protocol)
        files = [find_file(path, default, task) for path, default, task in zip(given, defaults, TASKS)]
        source = answers.origin | {
            f"{task}_classifier": file_digest(path) for task, path in zip(TASKS, files)
        }
        if judged(answers, source):
            print(f"{answers.folder}: already judged")
            continue
        judges = [open_classifier(path, task, args.device) for path, task in zip(files, TASKS)]
        for classifier, names, path in zip(judges, (made_with.themes, made_with.objects), files):
            check_labels(classifier, names, path, made_with)
        rows = judge(
            answers.folder,
            grid(made_with),
            *judges,
            args.batch,
            args.device,
            "." + made_with.format,
            args.workers,
        )
        predictions.write_predictions(answers.folder, rows, source)
        right = [
            sum(row.theme == row.theme_seen for row in rows),
            sum(row.object == row.object_seen for row in rows),
        ]
        shares = [f"{count / len(rows):.1%}" for count in right]
        print(f"{answers.folder}: {len(rows)} images; asked style seen in {shares[0]}, object in {shares[1]}")


if __name__ == "__main__":
    main()
