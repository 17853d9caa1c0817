"""Stable Diffusion in its parts: load it, embed prompts, encode and decode images, predict noise, sample.

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps         abar: the scheduler's cumulative alphas
    guided eps = eps(x,t,null) + s (eps(x,t,c) - eps(x,t,null))
    DDIM, eta 0 (Song et al. 2021, eq. 12): x_prev = sqrt(abar_prev) x_0(x,eps) + sqrt(1 - abar_prev) eps

Sizes, channels, latent scale, prompt length come from the model, so the miniature and SD 1.5 share all code.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch.func import functional_call
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from diffusion_model_finetuning.core.card import read_card
from diffusion_model_finetuning.core.fingerprint import fingerprint
from diffusion_model_finetuning.core.intervention import NOTHING
from diffusion_model_finetuning.core.load import Float32Conv, load_parts
from evaluation.core.environment import to_device

for library in (diffusers_logging, transformers_logging):  # our own bars and messages say enough
    library.set_verbosity_error()
    library.disable_progress_bar()

# pixels that the autoencoder makes at once: at its full size it takes most of the memory
DECODED = 8 * 512 * 512


@dataclass
class StableDiffusion:
    """The parts of one model, in evaluation mode and without gradients."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler
    path: str
    card: dict = field(default_factory=dict)
    compiled: Callable | None = None  # the UNet as `sample` calls it, once it is hastened so

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def abar(self) -> torch.Tensor:
        """Cumulative alphas, float32 [1000], on the model's device, where they stay."""
        self.scheduler.alphas_cumprod = self.scheduler.alphas_cumprod.to(self.device)
        return self.scheduler.alphas_cumprod

    @property
    def size(self) -> int:
        """Pixels of a side at the UNet's native resolution."""
        return self.unet.config.sample_size * self.downscale

    @property
    def downscale(self) -> int:
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def tokens(self, prompts: list[str]) -> torch.Tensor:
        """-> ids [B,L], padded and cut to the tokenizer's length (77 for SD)."""
        length = self.tokenizer.model_max_length
        ids = self.tokenizer(prompts, padding="max_length", max_length=length, truncation=True)["input_ids"]
        return torch.tensor(ids, device=self.device)

    @torch.no_grad()
    def embed(self, prompts: list[str] | torch.Tensor, batch: int = 256) -> torch.Tensor:
        """-> [B,L,D], the text encoder's last hidden state for prompts, or for ids [B,L]."""
        ids = prompts if torch.is_tensor(prompts) else self.tokens(prompts)
        return torch.cat([self.text_encoder(part)[0] for part in ids.split(batch)])

    def embed_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """What `embed` gives for ids whose entries in the encoder's table are `rows` [B,L,E]: [B,L,D].

        It can be differentiated by the rows; no weight is changed. For this call the table is the rows
        themselves, so the ids count them.
        """
        table = self.text_encoder.get_input_embeddings().weight
        key = next(name for name, weight in self.text_encoder.named_parameters() if weight is table)
        ids = torch.arange(rows.shape[0] * rows.shape[1], device=rows.device).view(rows.shape[:2])
        return functional_call(self.text_encoder, {key: rows.flatten(0, 1)}, (ids,))[0]

    @torch.no_grad()
    def encode(self, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Images [B,3,H,W] in [0,1] -> latents [B,C,h,w], a posterior sample (drawn on the CPU), scaled."""
        return self.sample_moments(self.moments(images), generator)

    @torch.no_grad()
    def moments(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B,3,H,W] in [0,1] -> posterior mean and log variance [B,2C,h,w], unscaled."""
        return self.vae.encode(images.to(self.device) * 2 - 1).latent_dist.parameters

    def sample_moments(self, moments: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """What `encode` returns, from moments computed before."""
        mean, logvar = moments.float().chunk(2, dim=1)
        noise = to_device(torch.randn(mean.shape, generator=generator), mean.device)
        return self.vae.config.scaling_factor * (mean + noise * (logvar.clamp(-30, 20) / 2).exp())

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B,C,h,w] -> images [B,3,H,W] in [0,1]."""
        return (self.vae.decode(latents / self.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """x_t of latents [B,C,h,w] at timesteps t [B]."""
        a = self.abar[t].view(-1, 1, 1, 1)
        return a.sqrt() * latents + (1 - a).sqrt() * noise

    def weights(self) -> dict[str, torch.Tensor]:
        """All that a run may change, without copies: the UNet's tensors by name, and the text encoder's with
        `text_encoder.` before it."""
        text = self.text_encoder.state_dict(prefix="text_encoder.")
        return self.unet.state_dict() | text

    def fingerprint(self) -> str:
        """16 digits that tell base models apart by all that changes a pixel. Before `hasten`."""
        return fingerprint(self)

    def hasten(self, precision: str, compiled: bool = False) -> None:
        """Prepares for drawing many images in `precision`; the model is then for nothing else.

        Weights are cast once to what autocast would make of them in every call, which changes no pixel; a GPU
        gets its convolutions' channels last. `compiled`: so is the UNet, once for every size of a batch.
        """
        for network in (self.unet, self.vae, self.text_encoder):
            cast_frozen(network, precision)
        if self.device.type == "cuda":
            self.unet.to(memory_format=torch.channels_last)
            self.vae.to(memory_format=torch.channels_last)
        if compiled:
            self.compiled = torch.compile(self.unet)


def load_sd(
    path: str | Path, device="cpu", dtype=torch.float32, config=None, weights="raw", ignore_objects=False
) -> StableDiffusion:
    """Loads a diffusers folder, or a CompVis file whose tokenizer and sizes the folder `config` tells.

    `dtype` None keeps every network's own. `weights` is raw or ema, of a file that has both; `ignore_objects`
    as in `core.read`. Raises UserError if a part is missing or unfit, or the model does not predict eps.
    """
    parts = load_parts(path, device, dtype, config, weights, ignore_objects)
    return StableDiffusion(*parts, str(path), read_card(path, config))


def cast_frozen(network: torch.nn.Module, precision: str) -> None:
    """Casts once what autocast would cast in every call: frozen weights of layers that multiply or convolve.

    Norms, and the UNet's last layer, stay float32. The results are the same to the bit.
    """
    for layer in network.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) and not isinstance(layer, Float32Conv):
            for weight in layer.parameters(recurse=False):
                if not weight.requires_grad:
                    weight.data = weight.data.to(getattr(torch, precision))


def eps(unet, x: torch.Tensor, t: torch.Tensor | int, text: torch.Tensor) -> torch.Tensor:
    """Predicted noise [B,C,h,w] of latents x [B,C,h,w] at timesteps t ([B] or a number), text [B,L,D]."""
    return unet(x, t, encoder_hidden_states=text).sample


def guided_eps(unet, x, t, text, null, guidance: float) -> torch.Tensor:
    """Classifier-free guidance in one batch of 2B; `null` is the empty prompt's embedding [B or 1,L,D]."""
    if guidance == 1:
        return eps(unet, x, t, text)
    if torch.is_tensor(t) and t.ndim:
        t = torch.cat([t, t])
    both = eps(unet, torch.cat([x, x]), t, torch.cat([null.expand_as(text), text]))
    unconditional, conditional = both.chunk(2)
    return unconditional + guidance * (conditional - unconditional)


def ddim_grid(steps: int, train_steps: int = 1000) -> list[int]:
    """Ascending DDIM timesteps, leading spacing and offset 1: 1, 11, ... 991 for 100 steps."""
    return [i * (train_steps // steps) + 1 for i in range(steps)]


def ddim_step(x, e, a, a_prev) -> torch.Tensor:
    """One deterministic step from noise level a = abar_t to a_prev, given the predicted noise e."""
    x0 = (x - (1 - a).sqrt() * e) / a.sqrt()
    return a_prev.sqrt() * x0 + (1 - a_prev).sqrt() * e


def noisy_step(x, e, a, a_prev, eta: float, z) -> torch.Tensor:
    """DDIM's step with eta (eq. 12 and 16) and noise z like x, for eta = 0 `ddim_step`.

    sigma = eta sqrt((1 - a_prev) / (1 - a)) sqrt(1 - a / a_prev). An eta above 1 may ask for more noise than
    there is at a_prev: then nothing of e is left.
    """
    x0 = (x - (1 - a).sqrt() * e) / a.sqrt()
    sigma = eta * ((1 - a_prev) / (1 - a) * (1 - a / a_prev)).sqrt()
    return a_prev.sqrt() * x0 + (1 - a_prev - sigma**2).clamp(min=0).sqrt() * e + sigma * z


@cache
def _times(grid: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """A grid on the device: reading an entry there waits for nothing."""
    return torch.tensor(grid, device=device)


def ddim(unet, x, text, null, guidance: float, grid: list[int], abar, i: int, step=ddim_step) -> torch.Tensor:
    """One DDIM step of x [B,C,h,w], from entry i of the ascending `grid` to the one below (0: to abar_0)."""
    t = _times(tuple(grid), abar.device)[i]
    e = guided_eps(unet, x, t, text, null, guidance)
    return step(x, e, abar[grid[i]], abar[grid[i - 1]] if i else abar[0])


@torch.no_grad()
def denoise_until(unet, x, text, null, guidance: float, grid: list[int], abar, stop=0) -> torch.Tensor:
    """Walks DDIM down the ascending `grid`, from its last entry through entry `stop` (a number, or [B]).

    x [B,C,h,w] starts as pure noise and ends at the noise level of entry stop - 1 (of abar_0 if stop = 0).
    text [B,L,D], `null` [B or 1,L,D]. Raises ValueError if a stop is negative.
    """
    stop, null = torch.as_tensor(stop).expand(len(x)), null.expand_as(text)
    if stop.min() < 0:
        raise ValueError(f"stop {int(stop.min())} is negative; 0 walks the whole grid")
    for i in reversed(range(int(stop.min()), len(grid))):
        if (walking := stop <= i).all():
            x = ddim(unet, x, text, null, guidance, grid, abar, i)
        elif walking.any():
            rows = walking.nonzero().squeeze(1).to(x.device, non_blocking=True)
            moved = ddim(unet, x[rows], text[rows], null[rows], guidance, grid, abar, i)
            x = x.index_copy(0, rows, moved)
    return x


def noise_of(key, shape) -> torch.Tensor:
    """Standard normal float32 of this shape, a function of the key (a number or a tuple) alone."""
    words = key if isinstance(key, tuple) else (key,)
    number = int.from_bytes(hashlib.sha256("/".join(map(str, words)).encode()).digest()[:8], "big") >> 1
    return torch.randn(shape, generator=torch.Generator().manual_seed(number))


def starting_noise(sd: StableDiffusion, seeds: list, size: int | None = None) -> torch.Tensor:
    """Latents [B,C,h,w] of pure noise for images of `size` pixels, one a seed, on the model's device."""
    side = (size or sd.size) // sd.downscale
    shape = (sd.unet.config.in_channels, side, side)
    return torch.stack([noise_of(seed, shape) for seed in seeds]).to(sd.device)


def to_pixels(images: torch.Tensor):
    """Images [B,3,H,W] in [0,1] -> uint8 numpy [B,H,W,3]."""
    return (images.permute(0, 2, 3, 1).float() * 255).round().byte().cpu().numpy()


@torch.no_grad()
def sample(
    sd: StableDiffusion,
    prompts: list[str] | torch.Tensor,
    seeds: list,
    steps=50,
    guidance=7.5,
    size=None,
    precision="float32",
    intervention=NOTHING,
):
    """Images uint8 [B,H,W,3] for prompts, or ids [B,L], in one batch, each from noise of its own seed's.

    `precision` is float32, or the dtype of autocast: float16, bfloat16. `intervention`: what a method does.
    """
    ids = prompts if torch.is_tensor(prompts) else sd.tokens(prompts)
    x = starting_noise(sd, seeds, size)
    return picture(sd, walk(sd, ids, x, range(steps), steps, guidance, precision, intervention), precision)


@torch.no_grad()
def walk(
    sd,
    ids,
    x,
    part: range,
    steps: int,
    guidance: float,
    precision="float32",
    intervention=NOTHING,
    noise=None,
):
    """Latents x [B,C,h,w] of prompts, ids [B,L], led through a `part` of the steps 0 ... `steps` - 1.

    `noise(step)` -> {"eta": eta, "z": [B,C,h,w]} for steps that are not deterministic, see `noisy_step`.
    """
    act, grid, abar = intervention, ddim_grid(steps), sd.abar
    scale = guidance if act.guidance is None else act.guidance
    # a compiled UNet is blind to hooks that come later
    unet = sd.unet if sd.compiled is None or act.around is not NOTHING.around else sd.compiled
    with autocast(sd, precision):
        null, plain = sd.embed([act.null]), sd.embed(ids)
        text = act.text(ids, plain)
        edit = act.step(ids, text, steps) if act.step else None
        with act.around(ids, plain):
            for number in part:
                advance = partial(
                    ddim, unet, null=null, guidance=scale, grid=grid, abar=abar, i=steps - 1 - number
                )
                step = partial(noisy_step, **noise(number)) if noise else ddim_step
                x = advance(x, edit(number, x, advance) if edit else text, step=step)
    return x


def autocast(sd: StableDiffusion, precision: str):
    dtype = getattr(torch, precision)
    return torch.autocast(sd.device.type, dtype, enabled=dtype != torch.float32)


@torch.no_grad()
def picture(sd: StableDiffusion, x: torch.Tensor, precision="float32"):
    """Images uint8 [B,H,W,3] of latents x [B,C,h,w] at the end of their walk, a few at once."""
    at_once = max(1, DECODED // (x.shape[-2] * x.shape[-1] * sd.downscale**2))
    with autocast(sd, precision):
        images = torch.cat([sd.decode(part) for part in x.split(at_once)])
    return to_pixels(images)


def draw_noise(sd: StableDiffusion, latents: torch.Tensor, generator: torch.Generator):
    """-> uniform timesteps [B] and normal noise like the latents [B,C,h,w], both on the CPU."""
    t = torch.randint(len(sd.abar), (len(latents),), generator=generator)
    return t, torch.randn(latents.shape, generator=generator)


def diffusion_loss(sd: StableDiffusion, latents, text, generator: torch.Generator) -> torch.Tensor:
    """SD's training loss: MSE of the noise at uniform timesteps. Latents [B,C,h,w], text [B,L,D]."""
    t, noise = (to_device(drawn, latents.device) for drawn in draw_noise(sd, latents, generator))
    return F.mse_loss(eps(sd.unet, sd.add_noise(latents, noise, t), t, text), noise)
