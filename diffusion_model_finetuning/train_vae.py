"""Train a small autoencoder from nothing: the miniature's first stage.

    loss = |r| + |dr| + 0.5 r^2 + kl KL(q(z|x) || N(0, I))        r = x - D(z),  z ~ q(z|x) = E(x)

dr are the differences of neighbouring pixels of r: they keep edges sharp where a perceptual loss would.

Training on random crops costs a quarter of full images; the last part of the schedule sees full images, so
that borders are learned too. At the end the latent scale is set to 1 / std(z), as in latent diffusion
(Rombach et al. 2022), and stored where every Stable Diffusion keeps it: `vae/config.json`.

    python -m diffusion_model_finetuning.train_vae --settings mini --data data/mini --out checkpoints/mini
"""

import argparse
import math
from pathlib import Path

from diffusion_model_finetuning.core import settings
from evaluation.core.errors import Finished, UserError, command, early, refused


def parse(argv=None) -> argparse.Namespace:
    """The flags, with `settings` read and checked."""
    return settings.read(settings.parser(__doc__).parse_intermixed_args(argv), "vae")


early(__name__, parse)

import torch
from diffusers import AutoencoderKL
from omegaconf import OmegaConf
from tqdm import tqdm

from diffusion_model_finetuning.core import training
from diffusion_model_finetuning.core.data import forever
from evaluation.core.checkpoint import Checkpoint
from evaluation.core.environment import find_device
from evaluation.core.files import append_json, digest, keep_json_lines, temporary
from evaluation.core.owner import alone
from evaluation.core.tensors import check_finite

CONFIG = "config.json"


def vae_loss(vae, images: torch.Tensor, kl: float, generator=None) -> torch.Tensor:
    """The loss above for images [B,3,H,W] in [-1,1]; `kl` weighs the divergence per latent value."""
    posterior = vae.encode(images).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator).to(images.device)
    error = images - vae.decode(posterior.mean + posterior.std * noise).sample
    divergence = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + edges + 0.5 * error.pow(2).mean() + kl * divergence


def crops(images: torch.Tensor, side: int, generator: torch.Generator) -> torch.Tensor:
    """One random window per batch, half of the batches mirrored: [B,3,H,W] -> [B,3,side,side].

    Windows start at multiples of 16 pixels, so a style's lattice always meets the latent grid in phase.
    """
    top, left = (16 * torch.randint((images.shape[-1] - side) // 16 + 1, (2,), generator=generator)).tolist()
    window = images[:, :, top : top + side, left : left + side]
    return window.flip(-1) if torch.rand((), generator=generator) < 0.5 else window


@torch.no_grad()
def latent_scale(vae, images: torch.Tensor) -> float:
    """1 / standard deviation of the latents of images [N,3,H,W] in [-1,1]."""
    return float(1 / torch.cat([vae.encode(part).latent_dist.mean for part in images.split(64)]).std())


def train(args, out: Path, state: Checkpoint, vae, optimizer, pixels: torch.Tensor) -> None:
    """The loop, from the saved state on."""
    s, log = args.settings, state.path.with_suffix(".jsonl")
    start = state.resume().get("step", 0)
    keep_json_lines(log, lambda line: isinstance(line.get("step"), int) and line["step"] <= start)
    batches = forever(len(pixels), s.batch, s.seed, start)
    full = s.steps * (1 - s.full_size_share)
    for step in tqdm(range(start, s.steps), "vae", s.steps, initial=start, disable=None):
        generator = torch.Generator().manual_seed(s.seed * 1_000_003 + step)
        side = s.crop if step < full else s.size
        batch = next(batches)[: max(8, s.batch * s.crop**2 // side**2)]
        images = crops(pixels[batch].to(vae.device).float() / 127.5 - 1, side, generator)
        loss = vae_loss(vae, images, s.kl, generator)
        training.set_lr(optimizer, s.lr * training.one_cycle(step / s.steps))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % s.save_every == 0:
            if not math.isfinite(loss.item()):
                raise UserError(f"{out}: the loss is {loss.item()} at step {step + 1}; lower lr")
            check_finite(dict(vae.named_parameters()), out)
            append_json(log, {"step": step + 1, "loss": round(loss.item(), 6)})
            state.save(step=step + 1)


def save(vae, out: Path) -> None:
    """Writes the folder `out` in half precision; its settings come last."""
    check_finite(vae.half().state_dict(), out)
    with temporary(out) as draft:
        vae.save_pretrained(draft)
        training.put_in_place(draft, out, CONFIG)


@command
def main(argv=None):
    args = parse(argv)
    s, device, out = args.settings, find_device(args.device), Path(args.out) / "vae"
    with alone(args.out):
        training.seed_everything(s.seed)
        with refused("settings: vae.model makes no autoencoder", Exception):  # diffusers fails in many ways
            vae = AutoencoderKL(**OmegaConf.to_container(s.model)).to(device)
        optimizer = torch.optim.AdamW(vae.parameters(), s.lr, weight_decay=0)
        decisive = {key: value for key, value in s.items() if key != "save_every"}
        identity = digest([OmegaConf.to_container(OmegaConf.create(decisive)), args.data])
        state = Checkpoint(Path(args.out) / ".training" / "vae.pt", identity, vae=vae, optimizer=optimizer)
        if (out / CONFIG).exists():
            state.remove()
            raise Finished(f"{out}: already trained")
        pixels = training.load_pixels(training.images(args.data, s.per_object, s.size))
        train(args, out, state, vae, optimizer, pixels)
        some = pixels[torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))[:1024]]
        vae.register_to_config(scaling_factor=latent_scale(vae, some.to(device).float() / 127.5 - 1))
        save(vae, out)
        state.remove()


if __name__ == "__main__":
    main()
