"""What both classifiers see in every image of an answer set, and whether they have looked already"""

import functools
from pathlib import Path

import torch
from tqdm import tqdm

from evaluation import canvas, protocol
from evaluation.answers.answer_set import Cell, grid, image_paths
from evaluation.answers.predictions import PREDICTIONS, Prediction, read_predictions
from evaluation.canvas import TASKS
from evaluation.core.errors import UserError
from evaluation.core.files import file_digest
from evaluation.core.pools import threads
from evaluation.data.pictures import read_picture
from evaluation.judges.classifier import Classifier, load_classifier, preprocess
from evaluation.mini import dataset
from evaluation.mini.objects import SIZE as MINI_SIZE

MINI = ("checkpoints/mini/style_classifier.safetensors", "checkpoints/mini/object_classifier.safetensors")
PUBLISHED = ("checkpoints/style50.pth", "checkpoints/style50_cls.pth")

open_classifier = functools.cache(load_classifier)


def judge(
    folder, cells: list[Cell], *classifiers: Classifier, batch=64, device="cpu", suffix=".png", workers=4
) -> list[Prediction]:
    """What the style and the object classifier, both on `device`, see in the image of every cell: its row.

    Every name in `cells` must be a label. Raises UserError for an unreadable image, an output not finite.
    """
    rows, paths = [], [Path(folder) / canvas.answer_name(*cell, suffix=suffix) for cell in cells]
    load = functools.partial(load_image, sides={classifier.size for classifier in classifiers})
    with threads(workers) as pool, torch.inference_mode():
        ahead = pool.map(load, paths[:batch])
        for start in tqdm(range(0, len(cells), batch), desc=str(folder), disable=None):
            loaded, hashes = zip(*ahead)
            here, after = slice(start, start + batch), slice(start + batch, start + 2 * batch)
            ahead = pool.map(load, paths[after])  # decoded while the networks look at this batch
            verdicts = []
            for classifier, column in zip(classifiers, ("theme", "object")):
                pixels = torch.stack([image[classifier.size] for image in loaded]).to(device).float().div(255)
                asked = [getattr(cell, column) for cell in cells[here]]
                verdicts.append(verdict(classifier, pixels, asked, paths[here]))
            for cell, (theme, p, top), (obj, q, most), sha in zip(cells[here], *verdicts, hashes):
                rows.append(Prediction(*cell, theme, obj, p, q, top, most, sha))
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


def load_image(path: Path, sides: set[int]) -> tuple[dict, str]:
    """-> {side: uint8 [3,side,side]}, digest of the file; reads it once."""
    content = path.read_bytes()
    image = read_picture(content, path)
    return {side: preprocess(image, side) for side in sides}, file_digest(content)


def judged(folder: Path, sampled: protocol.Protocol, source: dict) -> bool:
    """Whether the predictions are of these very images and classifiers. By what they were made may differ."""
    if not (folder / PREDICTIONS).exists():
        return False
    try:
        rows, before = read_predictions(folder)
    except UserError:  # damaged: judged anew
        return False
    if before | {"made_with": source["made_with"]} != source or [row[:3] for row in rows] != grid(sampled):
        return False
    with threads() as pool:
        return [row.sha256 for row in rows] == list(pool.map(file_digest, image_paths(folder, sampled)))


def find_files(sampled: protocol.Protocol, given) -> list[str]:
    """The files of both classifiers: those `given`, or (for None) the ones a protocol is judged by, the
    miniature's for its images, else the published ones. Raises UserError for one that is not there."""
    mini = {*sampled.themes} <= {*dataset.THEMES} and {*sampled.objects} <= {*dataset.OBJECTS}
    defaults, hint = (MINI, "it comes with this repository; scripts/make_mini.sh trains it again")
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
