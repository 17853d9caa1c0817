"""What a network sees in an image: the features whose distributions FID compares, computed once and kept

    inception    the network of the usual FID, TensorFlow's Inception of 2015, with its own resize
    torchvision  ImageNet Inception as the official script uses it: resized twice, normalised twice
    classifier   the miniature's style and object classifiers, side by side

Each is a function from PIL RGB images to features [B,width]. Weights are local files, read safely.
"""

import contextlib
import functools
import io
import json
from collections import defaultdict
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchvision.models import inception_v3
from tqdm import tqdm

from evaluation import mini
from evaluation.answers.answer_set import answer_paths, image_paths
from evaluation.answers.predictions import PREDICTIONS, arrays, read_table
from evaluation.canvas import TASKS
from evaluation.core.environment import find_device
from evaluation.core.errors import UserError, refused
from evaluation.core.files import digest, file_digest
from evaluation.core.pools import threads
from evaluation.core.tensors import read_metadata, read_tensors, save_tensors
from evaluation.data.images import CanvasImages
from evaluation.data.pictures import read_picture, square
from evaluation.judges.classifier import load_classifier
from evaluation.protocol import Protocol

BATCH = 32
ABOUT = "features"  # the entry of a file's metadata that says what they are of


def load_extractor(name: str, files: list[Path], device: str | None = None):
    """-> function(list of B PIL RGB images) -> float32 array [B,width]; raises UserError for unfit files.

    `device` None takes a GPU if there is one.
    """
    loaders = {"inception": inception, "torchvision": torchvision, "classifier": classifier}
    extract = loaders[name](*files, device=find_device(device))

    def features(pictures) -> np.ndarray:
        with torch.inference_mode():
            return extract(pictures).float().cpu().numpy()

    return features


def pixels(pictures) -> torch.Tensor:
    """PIL RGB images of one size -> uint8 [B,3,H,W]."""
    return torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures])


def inception(path: Path, device: str):
    """torch-fidelity's 2,048 features. It unpickles the file it is given, so it is given a clean copy."""
    torch.save(read_tensors(path), copy := io.BytesIO())
    copy.seek(0)
    with refused(f"--weights {path}: not the weights of torch-fidelity's Inception", RuntimeError):
        model = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=copy)
    model.to(device)

    def extract(pictures):
        """Pictures of one size at a time: the network brings them to its own."""
        rows = defaultdict(list)
        for row, picture in enumerate(pictures):
            rows[picture.size].append(row)
        made = [model(pixels([pictures[row] for row in alike]).to(device))[0] for alike in rows.values()]
        order = torch.tensor([*chain(*rows.values())]).argsort()
        return torch.cat(made)[order.to(device)]

    return extract


def torchvision(path: Path, device: str):
    """Global average of the last mixed block. `transform_input` normalises a second time after x * 2 - 1."""
    model = inception_v3(weights=None, transform_input=True, init_weights=False)
    with refused(f"--weights {path}: not the weights of torchvision's Inception v3", RuntimeError):
        model.load_state_dict(read_tensors(path))
    model.fc = nn.Identity()
    model.eval().requires_grad_(False).to(device)
    return lambda pictures: model(twice_resized(pictures).to(device) * 2 - 1)


def twice_resized(pictures) -> torch.Tensor:
    """Images -> [B,3,299,299] in [0,1]: to 512 pixels and whole grey levels, then 299, not antialiased."""
    resize = partial(F.interpolate, mode="bilinear", align_corners=False)
    at_512 = [resize(pixels([picture]).float(), (512, 512)).round() for picture in pictures]
    return resize(torch.cat(at_512) / 255, (299, 299))


def classifier(*paths: Path, device: str):
    """What the heads of both classifiers see; `paths` in the order of `TASKS`."""
    judges = [load_classifier(path, task, device=device) for path, task in zip(paths, TASKS, strict=True)]

    def extract(pictures):
        inputs = [torch.stack([judge.preprocess(picture) for picture in pictures]) for judge in judges]
        return torch.cat([judge.features(x.to(device) / 255) for judge, x in zip(judges, inputs)], dim=1)

    return extract


class Features(NamedTuple):
    """Of images in a fixed order; `digest` stands for what is in their files, wherever these lie."""

    array: np.ndarray | None  # float32 [N,width]; None if the images were removed after they were judged
    digest: str


def open_extractor(protocol: Protocol, files: list[Path], weights: list[str], device: str):
    """-> a function without arguments that returns the protocol's extractor, loaded once in a process."""
    return partial(_loaded, protocol.fid_extractor, tuple(files), tuple(weights), device)


@functools.cache
def _loaded(name: str, files: tuple[Path, ...], weights: tuple[str, ...], device: str):
    return load_extractor(name, files, device)


def generated_path(folder: Path, protocol: Protocol) -> Path:
    return folder / f"features-{protocol.fid_extractor}.safetensors"


def generated_key(folder: Path, protocol: Protocol, weights: list[str]) -> str:
    """Stands for the images that lie in an answer set, and the extractor. Changes if one is drawn anew."""
    return digest(
        {"weights": weights, "files": stamps(p for p in answer_paths(folder, protocol) if p.exists())}
    )


def generated_features(folder: Path, protocol: Protocol, weights: list[str], extractor) -> Features:
    """Features of all cells in the order of the grid, kept in the answer set's folder.

    `weights` are fingerprints of the extractor's files; `extractor()` returns the function of
    `load_extractor` and is called only if there is something to compute. Where images were removed
    after they were judged, and their features, too, the digest alone is known.
    """
    key, path = generated_key(folder, protocol, weights), generated_path(folder, protocol)
    if known := kept(path, key, len(answer_paths(folder, protocol))):
        return known  # of images that may be removed by now
    there = [path.exists() for path in answer_paths(folder, protocol)]
    if not all(there) and (folder / PREDICTIONS).exists():
        judged = arrays(read_table(folder), protocol)
        rows = zip(answer_paths(folder, protocol), judged.sha256.flat, there)
        if all(file_digest(path) == sha.decode() for path, sha, drawn in rows if drawn):
            return Features(None, judged.images)
    paths = image_paths(folder, protocol)
    return cached(path, key, paths, lambda path: (read_picture(path), file_digest(path)), extractor)


def real_images(data: str, protocol: Protocol) -> CanvasImages:
    """The images that a protocol compares with; their `rows` are (theme, object, number)."""
    cells = product(protocol.themes, protocol.objects)
    return CanvasImages(data, cells, protocol.fid_images, protocol.size)


def real_features(images: CanvasImages, protocol: Protocol, weights, extractor, cache: Path) -> Features:
    """Features of the rows of `images`, kept in `cache`."""
    code = sorted(Path(mini.__file__).parent.glob("*.py"))  # may change, and what it draws
    source = [images.root, *map(file_digest, code)] if images.drawn else stamps(images.files)
    key = digest({"weights": weights, "files": source, "rows": images.rows, "size": images.size})
    as_is = protocol.fid_extractor == "torchvision" and not images.drawn  # it has a first resize of its own

    def load(row):
        image = images.original(row)
        content = image.tobytes() if images.drawn else images.file(row)
        return image if as_is else square(image, images.size), file_digest(content)

    path = cache / f"real-{protocol.fid_extractor}-{key}.safetensors"
    return cached(path, key, images.rows, load, extractor)


def stamps(paths) -> list:
    """Name, size and time of files: changes when a file does."""
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def kept(path: Path, key: str, count: int) -> Features | None:
    """What was written for this key and so many images; None if that was for another, or is damaged."""
    with contextlib.suppress(UserError, LookupError):
        about, array = read_metadata(path, ABOUT), read_tensors(path)["features"].numpy()
        if about["key"] == key and len(array) == count:
            return Features(array, about["digest"])
    return None


def cached(path: Path, key: str, items: list, load, extractor) -> Features:
    """Of what `load(item)` returns, pictures and digests; read from `path` if written for this `key`."""
    if known := kept(path, key, len(items)):
        return known
    extract, parts, digests = extractor(), [], []
    with threads() as pool:
        for start in tqdm(range(0, len(items), BATCH), desc=path.stem, disable=None):
            pictures, contents = zip(*pool.map(load, items[start : start + BATCH]))
            parts.append(extract(pictures))
            digests += contents
    features = Features(np.concatenate(parts), digest(digests))
    keep(path, key, features)
    return features


def keep(path: Path, key: str, features: Features) -> None:
    about = json.dumps({"key": key, "digest": features.digest})
    # a second entry would stand in random order
    save_tensors(path, {"features": torch.from_numpy(features.array)}, {ABOUT: about})
