"""The search for adversarial prompts: a block of prompts against one model, resumable after every timestep

What is drawn by chance belongs to the prompt and the timestep, as the first noise of a picture belongs to it.
So neither the order of blocks nor an interruption changes a result, and another size of block only rounding.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from diffusion_model_finetuning.core.intervention import Intervention
from diffusion_model_finetuning.core.sd import StableDiffusion, noise_of
from evaluation.answers.answer_set import Cell
from evaluation.answers.attacked import Attacked, row_of, values_of
from evaluation.attacks import Attack
from evaluation.canvas import Target
from evaluation.core.checkpoint import Checkpoint
from evaluation.core.environment import to_device
from evaluation.core.errors import UserError
from evaluation.core.files import digest
from evaluation.data.images import CanvasImages, to_tensor
from evaluation.metrics.robustness import Asked, recognised
from machine_unlearning.core import textgrad


class Prompt(NamedTuple):
    """What is attacked."""

    target: Target  # that is to be drawn
    cell: Cell
    ids: torch.Tensor  # [L]
    place: int  # where the found words go
    latents: torch.Tensor  # [C,h,w]: of a real picture of the target


def prompts_of(sd: StableDiffusion, attack: Attack, asked: list[Asked], real: CanvasImages) -> list[Prompt]:
    """Raises UserError for a prompt that leaves no room for the words."""
    prompts, end = [], sd.tokenizer.eos_token_id
    for target, cell in asked:
        text = attack.world.prompt(cell.theme, cell.object)
        ids = sd.tokens([text])[0]
        count = [*ids.tolist(), end].index(end) + 1
        if (room := len(ids) - count) < attack.tokens:
            raise UserError(f"tokens={attack.tokens}: {text!r} leaves room for {room}; attack with fewer")
        picture = to_tensor(real.picture((cell.theme, cell.object, attack.reference)))
        mean = sd.moments(picture[None]).chunk(2, dim=1)[0][0]
        place = 1 if attack.position == "prefix" else count - 1
        prompts.append(Prompt(target, cell, ids, place, mean * sd.vae.config.scaling_factor))
    return prompts


def vocabulary(sd: StableDiffusion, special: bool) -> torch.Tensor:
    """The ids [V] that may be found: all, or those of words and parts of words."""
    ids = torch.arange(sd.text_encoder.config.vocab_size)
    if not special:
        ids = ids[~torch.isin(ids, torch.tensor(sd.tokenizer.all_special_ids))]
    return ids.to(sd.device)


def draws(prompts: list[Prompt], attack: Attack, t: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """For each gradient step at timestep t, on the CPU: noise [B,C,h,w], and normal numbers [B,k] by which
    words are chosen."""
    shapes = {"noise": prompts[0].latents.shape, "words": (attack.tokens,)}
    drawn = (
        torch.stack([noise_of((*p.cell, "attack", what, t), (attack.iterations, *shape)) for p in prompts], 1)
        for what, shape in shapes.items()
    )
    return zip(*drawn)


def improve(sd, act: Intervention, attack: Attack, prompts, rows: list[int], u, words, optimizer, t: int):
    """The gradient steps at timestep t on the `rows` of u [B,k,V], distributions over `words` [V], whose
    `prompts` are given; the optimizer has u."""
    table, where = sd.text_encoder.get_input_embeddings().weight[words], torch.tensor(rows, device=u.device)
    ids, latents = (torch.stack([getattr(p, name) for p in prompts]) for name in ("ids", "latents"))
    places, times = [p.place for p in prompts], torch.full((len(rows),), t, device=u.device)
    for noise, normals in draws(prompts, attack, t):
        noise, normals = to_device(noise, u.device), to_device(normals, u.device)
        chosen = words[textgrad.draw_words(u[where], normals)]
        x = sd.add_noise(latents, noise, times)
        by_rows = textgrad.gradient_by_words(sd, act, ids, chosen, places, x, times, noise, attack.loss)
        gradient = textgrad.straight_through(by_rows, table)
        textgrad.descend(optimizer, u, torch.zeros_like(u).index_copy(0, where, gradient))


def retokenised(sd: StableDiffusion, ids: torch.Tensor) -> torch.Tensor:
    """The ids [B,L] of what ids spell without start, end and padding, as the original code draws prompts."""
    return sd.tokens(sd.tokenizer.batch_decode(ids, skip_special_tokens=True))


def search(
    sd: StableDiffusion, act: Intervention, attack: Attack, prompts: list[Prompt], look: Callable, state: Path
) -> Iterator[list[Attacked]]:
    """Yields a row for each prompt: after the pictures of the plain prompts, and again after each timestep
    until all are drawn as their target. `state` is a file by which a stopped search goes on.

    `look(cells, ids)` draws and keeps the pictures of prompts [B,L], and gives what the judges see.
    """
    words = vocabulary(sd, attack.special)
    u = torch.full((len(prompts), attack.tokens, len(words)), 1 / len(words), device=sd.device)
    optimizer = torch.optim.Adam([u], attack.lr, weight_decay=attack.weight_decay)
    identity = digest([attack.hash, [(str(p.target), *p.cell) for p in prompts]])
    checkpoint = Checkpoint(state, identity, optimizer=optimizer)
    if kept := checkpoint.resume():
        u.copy_(kept["u"])
        rows = list(map(row_of, json.loads(kept["rows"])))
    else:
        rows = []
        for p, seen in zip(prompts, look(prompts, torch.stack([p.ids for p in prompts]))):
            shown = recognised(p.target, seen)
            rows.append(Attacked(str(p.target), *p.cell, shown, shown, 0, "", "", seen, seen))
    yield rows
    for number, t in enumerate(textgrad.timesteps(attack.timesteps), 1):
        left = [i for i, row in enumerate(rows) if not row.after]
        if not left or number <= kept.get("number", 0):
            continue
        part = [prompts[i] for i in left]
        improve(sd, act, attack, part, left, u, words, optimizer, t)
        found = words[u[left].argmax(-1)]
        ids = textgrad.insert(torch.stack([p.ids for p in part]), found, [p.place for p in part])
        seen = look(part, retokenised(sd, ids) if attack.retokenise else ids)
        for i, p, token_ids, last in zip(left, part, found.tolist(), seen):
            rows[i] = rows[i]._replace(
                after=recognised(p.target, last),
                steps=number * attack.iterations,
                ids=" ".join(map(str, token_ids)),
                text=sd.tokenizer.decode(token_ids),
                last=last,
            )
        checkpoint.save(u=u, number=number, rows=json.dumps(list(map(values_of, rows))))
        yield rows
