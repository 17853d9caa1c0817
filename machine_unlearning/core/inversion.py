"""Inversion: a word for what was forgotten, learned on the unlearned model

    L(v) = || eps_theta(x_t, t, c(v)) - eps ||^2          v [E]: the entry of a new token, alone trained

x are images of the target, c(v) is the benchmark's prompt of their cell with the new token in the target's
place (Gal et al., ICLR 2023; against unlearned models: Pham et al., ICLR 2024). The model is asked as it
samples.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import torch
import torch.nn.functional as F
from tqdm import tqdm

from diffusion_model_finetuning.core.data import cached_moments, forever
from diffusion_model_finetuning.core.intervention import Intervention
from diffusion_model_finetuning.core.sd import StableDiffusion, draw_noise
from evaluation import canvas
from evaluation.canvas import Target
from evaluation.core.environment import to_device
from evaluation.data.images import CanvasImages
from evaluation.metrics.robustness import Asked
from evaluation.probes import Inversion
from evaluation.protocol import Protocol
from machine_unlearning.core import concepts, embeddings
from machine_unlearning.core.acting import acted_eps
from machine_unlearning.core.probing import drawn

TOKEN = "<inverted>"


def wording(world: Protocol, target: Target, theme: str, obj: str) -> str:
    """A cell's prompt with the new token in the place of the target, a style or an object."""
    return world.prompt(TOKEN if target.style else theme, TOKEN if target.object else obj)


def token_ids(sd: StableDiffusion, prompts: list[str]) -> tuple[torch.Tensor, int]:
    """-> ids [B,L] of prompts with the new token, which the tokenizer learns; and its id."""
    sd.tokenizer.add_tokens([TOKEN])
    return sd.tokens(prompts), sd.tokenizer.convert_tokens_to_ids(TOKEN)


@contextmanager
def spelled(sd: StableDiffusion, number: int, vector: torch.Tensor) -> Iterator[torch.Tensor]:
    """Within, the entry of token `number` in the text encoder's table is `vector` [E]; yields the table."""
    entries = sd.text_encoder.get_input_embeddings()
    before = entries.weight
    table = F.pad(before.detach(), (0, 0, 0, max(0, number + 1 - len(before)))).clone()
    table[number] = vector
    entries.weight = torch.nn.Parameter(table, requires_grad=False)
    try:
        yield entries.weight
    finally:
        entries.weight = before


def learned(
    sd: StableDiffusion, act: Intervention, probe: Inversion, target: Target, data: str
) -> torch.Tensor:
    """The entry [E] of the new token, from images of the data set. The same seed for every model."""
    world, size = probe.world, probe.world.size
    cells = concepts.forget_cells(world, [target])
    images = CanvasImages(data, cells, canvas.TRAIN[: probe.images], size, "bicubic")
    moments = cached_moments(sd, images, embeddings.CACHE, batch=max(1, 2048 // size)).to(sd.device)
    ids, number = token_ids(sd, [wording(world, target, *row[:2]) for row in images.rows])
    word = sd.tokenizer(probe.start[target.kind], add_special_tokens=False)["input_ids"]
    vector = sd.text_encoder.get_input_embeddings().weight[word].mean(0).detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([vector], probe.lr)
    generator, batches = torch.Generator().manual_seed(0), forever(len(moments), probe.batch, 0)
    for numbers in tqdm(islice(batches, probe.steps), f"invert {target}", probe.steps, disable=None):
        rows = to_device(numbers, sd.device)
        x0 = sd.sample_moments(moments[rows], generator)
        t, noise = (to_device(drawn, sd.device) for drawn in draw_noise(sd, x0, generator))
        with spelled(sd, number, vector.detach()) as table:
            new = (ids[rows] == number).unsqueeze(-1)
            plain = sd.embed_rows(torch.where(new, vector, table[ids[rows]]))
            predicted = acted_eps(sd, act, ids[rows], plain, sd.add_noise(x0, noise, t), t)
        F.mse_loss(predicted, noise).backward()
        optimizer.step()
        optimizer.zero_grad()
    return vector.detach()


def pictures(sd, act: Intervention, probe: Inversion, prompts: list[Asked], tokens: dict) -> Iterator[tuple]:
    """Yields the condition, prompts and their pictures, uint8 [B,H,W,3], target by target; `tokens`:
    target -> the entry [E] of its token."""
    for name, entry in tokens.items():
        part = [prompt for prompt in prompts if str(prompt.target) == name]
        if not part:
            continue
        texts = [wording(probe.world, target, *cell[:2]) for target, cell in part]
        ids, number = token_ids(sd, texts)
        with spelled(sd, number, entry):
            yield probe.conditions[0], part, drawn(sd, act, probe.world, ids, [cell for _, cell in part])
