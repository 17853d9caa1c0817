"""Textual inversion: new tokens for a concept, learned from its images before anything is forgotten.

    L(v) = || eps_theta(x_t,t,c(v)) - eps ||^2              v [n,D]: the new tokens' embeddings, alone trained
    after each step  |v_i| <- |v_i| + k (m - |v_i|)         m: mean length of the model's own embeddings

c(v) is the embedding of a prompt that contains the new tokens; k = min(1, 100 lr).
"""

from typing import NamedTuple

import torch
from tqdm import tqdm

from diffusion_model_finetuning.core.data import forever
from diffusion_model_finetuning.core.sd import StableDiffusion, diffusion_loss
from evaluation.canvas import Target
from evaluation.core.environment import to_device
from evaluation.core.errors import UserError
from machine_unlearning.core import attention, concepts


class Prompt(NamedTuple):
    """A prompt with new tokens in it: its ids [L], and the positions [n] of the new ones among them."""

    ids: torch.Tensor
    places: torch.Tensor


def spell(sd: StableDiffusion, template: str, count: int) -> Prompt:
    """The prompt with `count` new tokens in place of {tokens}. The tokenizer learns <s1>, <s2>, ..."""
    names = [f"<s{i + 1}>" for i in range(count)]
    sd.tokenizer.add_tokens(names)
    prompt = template.format(tokens="".join(names))
    ids, places = sd.tokens([prompt])[0], attention.tokens_of(sd.tokenizer, prompt, "".join(names))
    if len(sd.tokenizer(prompt)["input_ids"]) > len(ids):
        raise UserError(
            f"tokens={count}: {template!r} is longer than the model's {len(ids)} tokens with them"
        )
    return Prompt(ids, torch.tensor(places, device=ids.device))


def encode(sd: StableDiffusion, prompt: Prompt, learned: torch.Tensor) -> torch.Tensor:
    """Text embedding [1,L,D] of a prompt whose new tokens are `learned` [n,D]; no weight is changed."""
    table = sd.text_encoder.get_input_embeddings().weight
    rows = table[prompt.ids.clamp(max=len(table) - 1)].index_copy(0, prompt.places, learned)
    return sd.embed_rows(rows[None])


def ordinary_length(sd: StableDiffusion) -> torch.Tensor:
    """Mean length of the model's token embeddings, about 0.4 in SD 1.5."""
    return sd.text_encoder.get_input_embeddings().weight.norm(dim=1).mean()


def initial(sd: StableDiffusion, target: Target, count: int, start: str, generator) -> torch.Tensor:
    """Embeddings [n,D] to start from: those of the target's name, then random ones.

    `words`: the words' own, and random ones of ordinary length. `port`, as the official port: the raw name
    between start- and end-of-text, and standard normal ones (nearly 28 long in SD 1.5).
    """
    port = start == "port"
    name = concepts.say("{style} {object}", target, underscores=port).strip()
    ids = sd.tokenizer(name, add_special_tokens=port)["input_ids"]
    if len(ids) > count:
        raise UserError(f"tokens={count}: the name of {target} takes {len(ids)}; give at least as many")
    known = sd.text_encoder.get_input_embeddings().weight[ids]
    rest = torch.randn(count - len(ids), known.shape[1], generator=generator).to(known.device)
    return torch.cat([known, rest if port else rest * ordinary_length(sd) / rest.norm(dim=1, keepdim=True)])


def pull(rows: torch.Tensor, length, strength: float) -> torch.Tensor:
    """Rows [n,D] whose lengths are moved towards `length` by a share `strength` of the way."""
    norm = rows.norm(dim=1, keepdim=True)
    return rows * (norm + strength * (length - norm)) / norm


def invert(sd: StableDiffusion, target: Target, moments: torch.Tensor, s, run) -> torch.Tensor:
    """Embeddings [n,D] of the target's tokens, learned from VAE moments [N,2C,h,w] of its images."""
    prompt, length = spell(sd, s.invert_prompt, s.tokens), ordinary_length(sd)
    learned = initial(sd, target, s.tokens, s.start, run.generator).requires_grad_()
    optimizer = torch.optim.AdamW([learned], s.invert_lr, weight_decay=0.1)
    batches = forever(len(moments), s.batch, run.args.seed)
    for _ in tqdm(range(s.invert_steps), f"invert {target}", disable=None):
        x0 = sd.sample_moments(moments[to_device(next(batches), sd.device)], run.generator)
        text = encode(sd, prompt, learned).expand(len(x0), -1, -1)
        loss = diffusion_loss(sd, x0, text, run.generator)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            learned.copy_(pull(learned, length, min(1.0, 100 * s.invert_lr)))
    return learned.detach()
