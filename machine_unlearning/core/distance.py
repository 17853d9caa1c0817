"""How far a model is from one that was trained without the target: in the noise that both predict

The model is asked as it samples, with the prompts of the images, without guidance. Formula:
`evaluation.metrics.retrained`.
"""

from typing import NamedTuple

import torch

from diffusion_model_finetuning.core.data import cached_moments
from diffusion_model_finetuning.core.intervention import NOTHING, Intervention
from diffusion_model_finetuning.core.sd import StableDiffusion, noise_of
from evaluation import canvas
from evaluation.answers.distant import Distant
from evaluation.canvas import Target
from evaluation.core.environment import to_device
from evaluation.data.images import CanvasImages
from evaluation.metrics.retrained import images_of
from evaluation.probes import Distance
from machine_unlearning.core import concepts, embeddings, weights
from machine_unlearning.core.acting import acted_eps


class Point(NamedTuple):
    """A noisy image of the data set."""

    target: Target
    row: tuple[str, str, int]  # theme, object, number
    seed: int
    t: int


def points(probe: Distance, targets: tuple[Target, ...], timesteps: int) -> list[Point]:
    """Of every image all noise levels, the middles of equal parts of the `timesteps`."""
    levels = [int((i + 0.5) * timesteps / probe.levels) for i in range(probe.levels)]
    images = images_of(probe, targets)
    return [Point(*image, seed, t) for image in images for seed in probe.seeds for t in levels]


def predict(sd: StableDiffusion, act: Intervention, asked: list[Point], x, ids, batch: int) -> torch.Tensor:
    """Noise [N,C,h,w] that the model predicts in x [N,C,h,w], with prompts of token ids [N,L]."""
    t, made = to_device(torch.tensor([point.t for point in asked]), sd.device), []
    with torch.no_grad():
        for start in range(0, len(asked), batch):
            part = slice(start, start + batch)
            made.append(acted_eps(sd, act, ids[part], sd.embed(ids[part]), x[part], t[part]))
    return torch.cat(made)


class Reference:
    """Noisy images `x` [N,C,h,w], what the `retrained` run predicts in them, and how far from that the base
    model `sd` is, of every image."""

    def __init__(self, sd, model: str, probe: Distance, targets, data: str, retrained, batch: int):
        size, world, self.batch = probe.world.size, probe.world, batch
        self.points = points(probe, targets, len(sd.abar))
        images = CanvasImages(data, concepts.kept_cells(world, []), canvas.TEST, size, "bicubic")
        images.rows = list(dict.fromkeys(point.row for point in self.points))
        moments = cached_moments(sd, images, embeddings.CACHE, batch=max(1, 2048 // size)).to(sd.device)
        latents = dict(zip(images.rows, sd.sample_moments(moments, torch.Generator().manual_seed(0))))
        x0 = torch.stack([latents[point.row] for point in self.points])
        noise = torch.stack([noise_of((*point.row, *point[2:]), x0.shape[1:]) for point in self.points])
        t = torch.tensor([point.t for point in self.points])
        self.x = sd.add_noise(x0, *(to_device(drawn, sd.device) for drawn in (noise, t)))
        self.ids = sd.tokens([world.prompt(*point.row[:2]) for point in self.points])
        base = self._predicted(sd, NOTHING)
        with weights.swapped(sd, retrained, model):
            self.retrained = self._predicted(sd, NOTHING)
        self.of_base = self._differences(base)

    def _predicted(self, sd, act) -> torch.Tensor:
        return predict(sd, act, self.points, self.x, self.ids, self.batch)

    def _differences(self, predicted: torch.Tensor) -> list[float]:
        """Mean squared, of every point, to the retrained model."""
        return (predicted - self.retrained).square().mean((1, 2, 3)).tolist()

    def distances(self, sd: StableDiffusion, act: Intervention) -> list[Distant]:
        """Of the model as it is now."""
        of_model = self._differences(self._predicted(sd, act))
        return [
            Distant(str(point.target), *point.row, point.seed, point.t, model, base)
            for point, model, base in zip(self.points, of_model, self.of_base)
        ]
