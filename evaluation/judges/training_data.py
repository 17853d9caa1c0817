"""What a classifier is trained on and tested with: labelled images, their resumable order, augmentation."""

import itertools

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset
from tqdm import tqdm

from evaluation.canvas import TASKS
from evaluation.core.pools import loaded
from evaluation.data.images import CanvasImages
from evaluation.judges.classifier import Classifier, preprocess


class Labelled(Dataset):
    """Items: uint8 [3,size,size] as classifiers see it, and numbers of its theme and object, int64 [2]."""

    def __init__(self, images: CanvasImages, themes: list[str], objects: list[str], size: int):
        self.images, self.size = images, size
        self.labels = torch.tensor([(themes.index(t), objects.index(o)) for t, o, _ in images.rows])

    def __len__(self) -> int:
        return len(self.images.rows)

    def __getitem__(self, i: int):
        return preprocess(self.images.original(self.images.rows[i]), self.size), self.labels[i]


def load(data: Dataset, workers: int, **batches):
    """The batches of a DataLoader."""
    return loaded(DataLoader(data, num_workers=workers, **batches))


@torch.no_grad()
def recognised(classifier: Classifier, data: Labelled, workers: int, batch: int, device: str) -> torch.Tensor:
    """float32 [N]: 1 for an image that gets its label, else 0."""
    loader = tqdm(load(data, workers, batch_size=batch), desc="held out", disable=None)
    seen = [classifier(images.to(device).float().div(255)).argmax(1).cpu() for images, _ in loader]
    return (torch.cat(seen) == data.labels[:, TASKS.index(classifier.task)]).float()


def in_memory(data: Labelled, gigabytes: float, workers: int) -> Dataset:
    """The same items, decoded once, if they fit."""
    if len(data) * 3 * data.size**2 > gigabytes * 1e9:
        return data
    store = torch.empty(len(data), 3, data.size, data.size, dtype=torch.uint8)
    loader = load(data, workers, batch_size=64)
    for i, (images, _) in enumerate(tqdm(loader, desc="reading images", disable=None)):
        store[64 * i : 64 * i + len(images)] = images
    return TensorDataset(store, data.labels)


def order(count: int, batch: int, seed: int, start: int = 0):
    """Endless lists of indices, for batch `start`, `start` + 1 ...: every pass is shuffled anew."""
    per_pass = max(1, count // batch)
    for step in itertools.count(start):
        number, place = divmod(step, per_pass)
        if place == 0 or step == start:
            shuffled = torch.randperm(count, generator=generator(seed, number)).tolist()
        yield shuffled[place * batch : (place + 1) * batch]


def batches(data: Dataset, indices, workers: int):
    """Yields what `data` holds at each list of indices: images uint8 [B,3,size,size], labels int64 [B,2]."""
    if isinstance(data, TensorDataset):
        return (data[rows] for rows in indices)
    return load(data, workers, batch_sampler=indices)


def augment(images, flip: bool, shift: float, zoom: float, blur: float, chance: torch.Generator):
    """Images [B,3,H,W] changed by chance: half are mirrored; half (of these and of the others) are moved by
    up to `shift` widths, scaled by up to exp(+-zoom) and mixed with up to `blur` of their 3 x 3 mean (a judge
    must see through autoencoders). The others stay as sharp as the real images it will judge.

    torchvision's v2 draws once for a batch, and fills borders with one colour, as no image to judge does."""
    draw = torch.rand(6, len(images), generator=chance).to(images) * 2 - 1
    draw[[0, 2, 3, 4]] *= draw[5] < 0
    mean = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    images = images.lerp(mean, blur * draw[4].abs().view(-1, 1, 1, 1))
    scale = torch.exp(zoom * draw[0])
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0] = scale * torch.where((draw[1] < 0) & flip, -1, 1)
    theta[:, 1, 1] = scale
    theta[:, :, 2] = 2 * shift * draw[2:4].T
    grid = F.affine_grid(theta, images.shape, align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def generator(seed: int, number: int) -> torch.Generator:
    """A stream of its own for every pass or step of a seed."""
    return torch.Generator().manual_seed(seed * 1_000_003 + number)
