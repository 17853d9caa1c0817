"""What both classifiers see in every image of an answer set, and whether they have looked already"""

import functools
from pathlib import Path
from typing import NamedTuple

import PIL.Image
import torch
from tqdm import tqdm

from evaluation import canvas, protocol
from evaluation.answers.answer_set import Cell, answer_paths, grid, read_manifest
from evaluation.answers.predictions import DOMAINS, PREDICTIONS, Prediction, read_predictions
from evaluation.canvas import TASKS
from evaluation.core.errors import UserError
from evaluation.core.files import file_digest
from evaluation.core.pools import threads
from evaluation.data.pictures import read_picture
from evaluation.judges.classifier import Classifier, load_classifier, preprocess
from evaluation.mini import dataset
from evaluation.mini.objects import SIZE as MINI_SIZE

MINI = ("checkpoints/mini/style_classifier.safetensors", "checkpoints/mini/object_classifier.safetensors")
NEAR = ("checkpoints/mini-near/style_classifier.safetensors", MINI[1])
PUBLISHED = ("checkpoints/style50.pth", "checkpoints/style50_cls.pth")

open_classifier = functools.cache(load_classifier)


class Image(NamedTuple):
    """An image as the judges take it."""

    picture: PIL.Image.Image
    inputs: dict[int, torch.Tensor]  # by pixels of a side: uint8 [3,side,side]
    sha256: str  # of its file, 16 digits


class Judges(NamedTuple):
    """Both classifiers, on their device."""

    style: Classifier
    object: Classifier

    @property
    def labels(self) -> dict[str, list[str]]:
        """What predictions note of them, to be read without them."""
        return dict(zip(DOMAINS, (self.style.labels, self.object.labels)))

    def load(self, path: Path, content: bytes | None = None) -> Image:
        """The image at `path`, which is read once unless its content is given."""
        content = path.read_bytes() if content is None else content
        picture = read_picture(content, path)
        inputs = {side: preprocess(picture, side) for side in {self.style.size, self.object.size}}
        return Image(picture, inputs, file_digest(content))

    def look(self, cells: list[Cell], images: list[Image], paths: list[Path]) -> list[Prediction]:
        """What both see in the images, which lie at `paths`: the row of every cell.

        Every name in `cells` must be a label. Raises UserError for an output that is not finite.
        """
        device, verdicts = next(self.style.parameters()).device, []
        for classifier, domain in zip((self.style, self.object), DOMAINS):
            pixels = torch.stack([image.inputs[classifier.size] for image in images])
            asked = [getattr(cell, domain) for cell in cells]
            verdicts.append(verdict(classifier, pixels.to(device).float().div(255), asked, paths))
        return [
            Prediction(*cell, theme, obj, p, q, top, most, image.sha256)
            for cell, (theme, p, top), (obj, q, most), image in zip(cells, *verdicts, images)
        ]


def open_judges(sampled: protocol.Protocol, files, device: str) -> Judges:
    """UserError if they do not know a name of the protocol."""
    judges = [open_classifier(file, task, device=device) for file, task in zip(files, TASKS)]
    for classifier, names, file in zip(judges, (sampled.themes, sampled.objects), files):
        check_labels(classifier, names, file, sampled)
    return Judges(*judges)


def source_of(folder: Path, sampled: protocol.Protocol, files) -> dict:
    """What predictions by the judges in `files` say of what was judged, and by whom."""
    manifest, named = read_manifest(folder), {"name": sampled.name, "hash": sampled.hash}
    source = {"protocol": named, "model": manifest["model"], "run": manifest["run"]}
    return source | {f"{task}_classifier": file_digest(file) for task, file in zip(TASKS, files)}


def judge(
    folder, cells: list[Cell], *classifiers: Classifier, batch=64, suffix=".png", workers=4
) -> list[Prediction]:
    """What both classifiers see in the image of every cell; raises UserError for an unreadable one, too."""
    judges, rows = Judges(*classifiers), []
    paths = [Path(folder) / canvas.answer_name(*cell, suffix=suffix) for cell in cells]
    with threads(workers) as pool, torch.inference_mode():
        ahead = pool.map(judges.load, paths[:batch])
        for start in tqdm(range(0, len(cells), batch), desc=str(folder), disable=None):
            images, here = list(ahead), slice(start, start + batch)
            # decoded while the networks look at this batch
            ahead = pool.map(judges.load, paths[start + batch : start + 2 * batch])
            rows += judges.look(cells[here], images, paths[here])
    return rows


def verdict(classifier: Classifier, pixels: torch.Tensor, asked, paths) -> list[tuple[str, float, float]]:
    """[B,3,size,size] in [0,1] -> B times: label seen, probability of the label asked for, of that seen.
    Raises UserError with the first of the B `paths` whose outputs are not finite."""
    logits, labels = classifier(pixels), classifier.labels
    if bad := [path for path, finite in zip(paths, logits.isfinite().all(1).tolist()) if not finite]:
        odd = (
            f"the {classifier.task} classifier answers with NaN or infinity; its file is damaged or no judge"
        )
        raise UserError(f"{bad[0]}: {odd}, name another with --{classifier.task}-classifier")
    probs = logits.softmax(1).cpu()
    top, seen = probs.max(1)
    wanted = probs[torch.arange(len(probs)), [labels.index(label) for label in asked]]
    return [(labels[i], p, t) for i, p, t in zip(seen.tolist(), wanted.tolist(), top.tolist())]


def judged(folder: Path, sampled: protocol.Protocol, source: dict) -> bool:
    """Whether the predictions are of these very images and classifiers. By what they were made may differ,
    and images that were judged may be gone."""
    if not (folder / PREDICTIONS).exists():
        return False
    try:
        rows, before = read_predictions(folder)
    except UserError:  # damaged: judged anew
        return False
    before.pop("made_with", None)
    if before != source or [row[:3] for row in rows] != grid(sampled):
        return False
    there = {path: row for path, row in zip(answer_paths(folder, sampled), rows) if path.exists()}
    with threads() as pool:  # images may have been removed since, not changed
        return [row.sha256 for row in there.values()] == list(pool.map(file_digest, there))


def find_files(sampled: protocol.Protocol, given) -> list[str]:
    """The files of both classifiers: those `given`, or (for None) the ones a protocol is judged by, the
    miniature's for its images, else the published ones. Raises UserError for one that is not there."""
    mini = {*sampled.themes} <= {*dataset.NEAR_THEMES} and {*sampled.objects} <= {*dataset.OBJECTS}
    defaults, hint = (MINI, "it comes with this repository; scripts/make_mini.sh trains it again")
    if not {*sampled.themes}.isdisjoint(dataset.NEAR_STYLES):
        defaults, hint = (NEAR, "it comes with this repository; scripts/make_near.sh trains it again")
    if not mini or sampled.size != MINI_SIZE:
        defaults, hint = PUBLISHED, "its authors publish it, see checkpoints/checkpoints.csv"
    files = [path or default for path, default in zip(given, defaults)]
    for task, file in zip(TASKS, files):
        if not Path(file).exists():
            raise UserError(f"--{task}-classifier {file}: no such file; {hint}")
    return files


def check_labels(classifier: Classifier, names, path: str, sampled) -> None:
    """UserError if one of the names, of a protocol, is not a label."""
    if unknown := [name for name in names if name not in classifier.labels]:
        names = f"{unknown[0]} and {len(unknown) - 1} other names of protocol {sampled.name}"
        flag = f"--{classifier.task}-classifier {path}"
        raise UserError(f"{flag}: does not know {names}; give a file that was trained on them")
