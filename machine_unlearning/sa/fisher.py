"""SA's pre-pass: the diagonal Fisher information, how much each weight matters to what the model makes.

    F = 1/N sum_n ( sum_t d l(x_n,c_n,t,e_nt) / d theta )^2        l = mean (eps_theta(x_t,t,c_n) - e_nt)^2

x_n: an image the model made of c_n, one posterior draw; e_nt: fresh noise. The sum over timesteps comes
before the square, as in the original's code. With T' of the T timesteps the sum is scaled by T/T', which
gives noise a larger share. F is computed once per model and settings and kept in `.cache/unlearncanvas/`;
a run that is stopped goes on.
"""

import contextlib
import json

import torch
import torch.nn.functional as F
from tqdm import tqdm

from diffusion_model_finetuning.core.sd import eps
from evaluation.core.errors import UserError
from evaluation.core.files import digest
from evaluation.core.tensors import cached, read_metadata, read_tensors, save_tensors
from machine_unlearning.core import embeddings
from machine_unlearning.core.forget import autocast

EVERY = 20  # images between two saves


def sum_gradients(sd, x0, text, t, noise, chunk: int) -> None:
    """Adds to .grad the gradient of l summed over timesteps t [T], for one image: x0 [1,C,h,w], text [1,L,D].

    `noise` [T,C,h,w]. `chunk` timesteps are a batch: it decides about memory, not about the result.
    """
    for part in torch.arange(len(t)).split(chunk):
        x = sd.add_noise(x0, noise[part], t[part])
        predicted = eps(sd.unet, x, t[part], text.expand(len(part), -1, -1))
        (len(part) * F.mse_loss(predicted, noise[part])).backward()


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


def fisher_information(sd, weights: dict, moments, text, s, path) -> dict[str, torch.Tensor]:
    """F by weight name, float32, over images with VAE moments [N,2C,h,w] and prompts [N,L,D]."""
    fisher, done = begun(path, weights)
    t = timesteps(s.times, len(sd.abar)).to(sd.device)
    factor = (len(sd.abar) / len(t)) ** 2 / len(moments)
    for n in tqdm(range(done, len(moments)), "fisher", len(moments), initial=done, disable=None):
        generator = torch.Generator().manual_seed(s.image_seed * 1_000_003 + n)
        x0 = sd.sample_moments(moments[n : n + 1], generator)
        noise = torch.randn(len(t), *x0.shape[1:], generator=generator).to(sd.device)
        with autocast(sd, s.precision):
            sum_gradients(sd, x0, text[n : n + 1], t, noise, s.chunk)
        add_squares(fisher, weights, factor)
        if (n + 1) % EVERY == 0:
            save_tensors(path, fisher, {"fisher": json.dumps({"done": n + 1})})
    return fisher


def cached_fisher(sd, weights: dict, moments, text, prompts: list[str], s) -> dict[str, torch.Tensor]:
    """What `fisher_information` returns, in bfloat16: it spans float32's range in half the memory."""
    settings = "walk guidance image_seed size precision times chunk scope".split()
    key = digest([sd.fingerprint(), prompts, {name: s[name] for name in settings}])
    path = embeddings.CACHE / f"fisher-{key}.safetensors"
    unfinished = path.with_name(f"fisher-{key}-unfinished.safetensors")

    def make():
        fisher = fisher_information(sd, weights, moments, text, s, unfinished)
        return {name: value.bfloat16() for name, value in fisher.items()}

    fisher = cached(path, make)
    unfinished.unlink(missing_ok=True)
    return {name: value.to(sd.device) for name, value in fisher.items()}
