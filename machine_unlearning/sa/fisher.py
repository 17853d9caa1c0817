"""SA's pre-pass: the diagonal Fisher information, how much each weight matters to what the model makes.

    F = 1/N sum_n ( sum_t d l(x_n,c_n,t,e_nt) / d theta )^2        l = mean (eps_theta(x_t,t,c_n) - e_nt)^2

x_n: an image the model made of c_n, one posterior draw; e_nt: fresh noise. The sum over timesteps comes
before the square, as in the original's code. With T' of the T timesteps the sum is scaled by T/T', which
gives noise a larger share. F is computed once per model and settings and kept in `.cache/unlearncanvas/`.
Several processes that want it share the images, block by block; a run that is stopped goes on.
"""

import contextlib
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from diffusion_model_finetuning.core.sd import eps
from diffusion_model_finetuning.core.shared import cached_once, shared
from evaluation.core.environment import to_device
from evaluation.core.errors import UserError
from evaluation.core.files import digest
from evaluation.core.tensors import read_metadata, read_tensors, save_tensors
from machine_unlearning.core import embeddings

EVERY, BLOCK = 20, 128  # images between two saves, and that a process takes at once


def sum_gradients(sd, x0, text, t, noise, chunk: int) -> None:
    """Adds to .grad the gradient of l summed over timesteps t [T], for one image: x0 [1,C,h,w], text [1,L,D].

    `noise` [T,C,h,w]. `chunk` timesteps are a batch: it decides about memory, not about the result.
    """
    for times, e in zip(t.split(chunk), noise.split(chunk), strict=True):
        predicted = eps(sd.unet, sd.add_noise(x0, e, times), times, text.expand(len(e), -1, -1))
        (len(e) * F.mse_loss(predicted, e)).backward()


def add_squares(fisher: dict, weights: dict, factor: float) -> None:
    """Adds factor * gradient^2 of every weight, and clears the gradients."""
    for name, weight in weights.items():
        fisher[name].addcmul_(weight.grad, weight.grad, value=factor)
        weight.grad = None


def timesteps(count: int, total: int) -> torch.Tensor:
    """The middles of `count` equal parts of the schedule; all of it for count = total."""
    return ((torch.arange(count) + 0.5) * total / count).long()


def begun(path, weights) -> tuple[dict, int]:
    """-> F summed so far, float32, and how many images are in it; from the start if its file is damaged."""
    with contextlib.suppress(UserError):
        tensors, done = read_tensors(path), read_metadata(path, "fisher").get("done")
        if tensors.keys() == weights.keys() and isinstance(done, int):
            return {name: tensors[name].to(weight.device) for name, weight in weights.items()}, done
    return {name: torch.zeros_like(weight) for name, weight in weights.items()}, 0


def save_part(sd, weights: dict, moments, text, s, part: Path, rows: range, held=lambda: True) -> None:
    """Writes to the file `part` what the images `rows`, of N with VAE moments [N,2C,h,w] and prompts [N,L,D],
    add to F, in float32, if it is still to be written by this process; goes on with what a stopped one saved.
    """
    path = part.with_stem(f"{part.stem}-unfinished")
    fisher, done = begun(path, weights)
    t = timesteps(s.times, len(sd.abar)).to(sd.device)
    factor = (len(sd.abar) / len(t)) ** 2 / len(moments)
    for n in tqdm(rows[done:], "fisher", len(rows), initial=done, disable=None):
        generator = torch.Generator().manual_seed(s.image_seed * 1_000_003 + n)
        x0 = sd.sample_moments(moments[n : n + 1], generator)
        noise = to_device(torch.randn(len(t), *x0.shape[1:], generator=generator), sd.device)
        sum_gradients(sd, x0, text[n : n + 1], t, noise, s.chunk)
        add_squares(fisher, weights, factor)
        if (done := n + 1 - rows.start) % EVERY == 0:
            save_tensors(path, fisher, {"fisher": json.dumps({"done": done})})
    if held():
        save_tensors(part, fisher)
        path.unlink(missing_ok=True)


def parts_of_fisher(sd, weights: dict, moments, text, s, path) -> list[Path]:
    """Files that add up to F, each of BLOCK images, unless there is a file `path` of all of F.

    Processes that want the same F make them together.
    """
    folder, images = path.with_suffix(""), range(len(moments))
    parts = {start: folder / f"{start:05}.safetensors" for start in images[::BLOCK]}
    for claim, part in shared(folder, parts, lambda part: part.is_file() or path.is_file()):
        save_part(sd, weights, moments, text, s, part, images[int(part.stem) :][:BLOCK], claim.held)
    return [*parts.values()]


def cached_fisher(sd, weights: dict, moments, text, prompts: list[str], s) -> dict[str, torch.Tensor]:
    """F of all images, in bfloat16: it spans float32's range in half the memory."""
    settings = "walk guidance image_seed size precision times scope".split()
    key = digest([sd.fingerprint(), prompts, {name: s[name] for name in settings}])
    path = embeddings.CACHE / f"fisher-{key}.safetensors"
    try:
        read_metadata(path, "fisher")
    except UserError:  # absent or damaged
        path.unlink(missing_ok=True)
    parts = parts_of_fisher(sd, weights, moments, text, s, path)

    def add_up():
        fisher = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        for part in parts:
            for name, value in read_tensors(part).items():
                fisher[name] += value.to(sd.device)
        return {name: value.bfloat16() for name, value in fisher.items()}

    fisher = cached_once(path, add_up)
    for part in parts:
        part.unlink(missing_ok=True)
    return {name: value.to(sd.device) for name, value in fisher.items()}
