"""How far the generated images are from the real ones, in the features x of a network

    FID    Frechet distance of two Gaussians, `metrics.frechet`
    KID    unbiased MMD^2 with the kernel (x.y / width + 1)^3, and its standard error

FID is too high, the more so the fewer the images: below `FEWEST` it is not given. KID is right on average
with two images in every cell. Its usual form takes the images for independent and is too low for a grid, with
as many of each cell (two sets of one distribution, 55 cells of two images: -0.07; here 0.00). So kernels are
averaged over the pairs of any two cells first, those of two different images within a cell.
"""

import math
from pathlib import Path

import numpy as np
from tqdm import tqdm

from evaluation.core.errors import UserError
from evaluation.core.files import check_keys, read_json
from evaluation.metrics.frechet import frechet, moments

FID = "fid.json"  # what evaluation.fid leaves in an answer set
WEIGHTS = {  # extractor -> where its weights are looked for
    "inception": ["checkpoints/weights-inception-2015-12-05-6726825d.pth"],
    "torchvision": ["checkpoints/inception_v3_google-0cc3c7bd.pth"],
    "classifier": [f"checkpoints/mini/{task}_classifier.safetensors" for task in ("style", "object")],
}
# Images of either kind. Inception's covariance is singular with fewer than its 2,048 features. That of the
# miniature's 2 x 128 is so in its own answer sets, of about 200: its FID compares only at equal numbers.
FEWEST = {"inception": 2048, "torchvision": 2048, "classifier": 128}


def read_distances(folder: str | Path, images: str | None = None) -> dict | None:
    """What evaluation.fid left in an answer set: origin, values by what is left out, made_with. Or None.

    Raises UserError for a damaged file, and for one of other images than those whose digest is given.
    """
    if not (path := Path(folder) / FID).exists():
        return None
    damaged = "damaged, or of an earlier form"
    try:
        content = read_json(path, origin=dict, values=dict, made_with=dict | None)
        check_keys(path, content["origin"], {"images": str})
        numbers = [number for value in content["values"].values() for number in value.values()]
        fault = damaged if any(not math.isfinite(number) for number in numbers) else None
        if images not in (None, content["origin"]["images"]):
            fault = "of earlier images"
    except (UserError, AttributeError, TypeError):
        fault = damaged
    if fault:
        raise UserError(f"{path}: {fault}; run python -m evaluation.fid {folder} again")
    return content


def distances(real: np.ndarray, generated: np.ndarray, kept: np.ndarray, fewest: int) -> list[dict]:
    """FID and KID of features [C,N,width] and [C,M,width] of the images of C cells, for masks `kept` [T,C].

    "fid" is absent below `fewest` images of either kind, "kid" with fewer than two in a cell or two cells.
    """
    values, width, pair = [], real.shape[2], (real, generated)
    totals = [moments(features.reshape(-1, width)) for features in pair]
    kids = kid(real, generated, kept) if min(real.shape[1], generated.shape[1]) > 1 else None
    for number, cells in enumerate(tqdm(kept, "FID", delay=2, disable=None)):
        counts = [int(cells.sum()) * features.shape[1] for features in pair]
        value = {"real_images": counts[0], "generated_images": counts[1]}
        if min(counts) >= fewest:  # what is left out is little, so it is taken from the sums of everything
            rest = [moments(features[~cells].reshape(-1, width)) for features in pair]
            a, b = (total - part for total, part in zip(totals, rest))
            value["fid"] = frechet(a.mean, a.covariance, b.mean, b.covariance)
        if kids and cells.sum() > 1:
            value |= {"kid": float(kids[0][number]), "kid_std": float(kids[1][number])}
        values.append(value)
    return values


def kid(real: np.ndarray, generated: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-> [T] KID over the kept cells, [T] its standard error by leaving out a cell at a time."""
    between = mean_kernels(real, generated)
    cells = within(real) + within(generated) - between - between.T  # [C,C]
    count, rows = kept.sum(axis=1), kept @ cells
    totals = (rows * kept).sum(axis=1)
    others = (totals[:, None] - 2 * rows + cells.diagonal()) / (count[:, None] - 1) ** 2
    deviations = [np.sqrt((n - 1) * row[mask].var()) for n, row, mask in zip(count, others, kept)]
    return totals / count**2, np.array(deviations)


def within(x: np.ndarray) -> np.ndarray:
    """[C,N,width] -> [C,C]: mean kernel of images of two cells, no image being paired with itself."""
    means, count = mean_kernels(x, x), x.shape[1]
    itself = ((np.square(x, dtype=np.float64).mean(axis=2) + 1) ** 3).mean(axis=1)
    means[np.diag_indices(len(x))] = (count * means.diagonal() - itself) / (count - 1)
    return means


def mean_kernels(x: np.ndarray, y: np.ndarray, cells: int = 32) -> np.ndarray:
    """[C,N,width], [C,M,width] -> [C,C]: mean kernel of a cell of x and one of y; so many cells at a time."""
    flat, width, means = y.reshape(-1, y.shape[2]), y.shape[2], []
    for start in tqdm(range(0, len(x), cells), "KID", delay=2, disable=None):
        part = x[start : start + cells]
        kernel = part.reshape(-1, width) @ flat.T / width + 1
        kernel *= kernel * kernel
        means.append(kernel.reshape(*part.shape[:2], *y.shape[:2]).mean(axis=(1, 3), dtype=np.float64))
    return np.concatenate(means)
