"""Train a small autoencoder from nothing: the miniature's first stage.

    loss = |r| + |dr| + 0.5 r^2 + kl KL(q(z|x) || N(0, I))        r = x - D(z),  z ~ q(z|x) = E(x)

dr are the differences of neighbouring pixels of r: they keep edges sharp where a perceptual loss would.

Training on random crops costs a quarter of full images; the last part of the schedule sees full images, so
that borders are learned too. At the end the latent scale is set to 1 / std(z), as in latent diffusion
(Rombach et al. 2022), and stored where every Stable Diffusion keeps it: `vae/config.json`.

    python -m diffusion_model_finetuning.train_vae --settings mini --data data/mini --out checkpoints/mini
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from omegaconf import OmegaConf
from tqdm import tqdm

from diffusion_model_finetuning.core import training
from diffusion_model_finetuning.core.data import forever
from evaluation.core.errors import command


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


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    training.arguments(parser)
    args = parser.parse_intermixed_args(argv)
    settings = training.settings(args.settings, "vae", args.overrides)
    out = Path(args.out)
    if (out / "vae" / "config.json").exists():
        print(f"{out / 'vae'}: already trained")
        return
    training.seed_everything(settings.seed)
    vae = AutoencoderKL(**OmegaConf.to_container(settings.model)).to(args.device)
    data = training.images(args.data, settings.per_object, settings.size)
    pixels = training.load_pixels(data)
    optimizer = torch.optim.AdamW(vae.parameters(), settings.lr, weight_decay=0)
    state = training.Checkpoint(out / ".training" / "vae.pt", vae=vae, optimizer=optimizer)
    batches = forever(len(data), settings.batch, settings.seed, state.step)
    full = settings.steps * (1 - settings.full_size_share)
    for step in tqdm(
        range(state.step, settings.steps), "vae", settings.steps, initial=state.step, disable=None
    ):
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        side = settings.crop if step < full else data.size
        batch = next(batches)[: max(8, settings.batch * settings.crop**2 // side**2)]
        images = crops(pixels[batch].to(args.device).float() / 127.5 - 1, side, generator)
        loss = vae_loss(vae, images, settings.kl, generator)
        training.set_lr(optimizer, settings.lr * training.one_cycle(step / settings.steps))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        state.tick(step + 1, every=settings.save_every, loss=loss)
    some = pixels[torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))[:1024]]
    vae.register_to_config(scaling_factor=latent_scale(vae, some.to(args.device).float() / 127.5 - 1))
    vae.half().save_pretrained(out / "vae")
    state.remove()


if __name__ == "__main__":
    main()
