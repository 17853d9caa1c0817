"""Train InstructPix2Pix (Brooks et al., CVPR 2023) on photos and their stylised versions

    loss = || eps - eps_theta(x_t, E(photo), t, c) ||^2        x_t: the noised latents of the stylised image

with c the instruction "Transform the image to {style} style." and E(photo) the mode of the autoencoder's
posterior, beside x_t in a UNet of twice the input channels. A share of the images loses the instruction, the
photo, or both, so that sampling can be guided by each. Photo and stylised image are mirrored together.

    accelerate launch -m diffusion_model_finetuning.train_ip2p --settings sd15 --model SD --data DATA \\
        --out OUT
    python -m diffusion_model_finetuning.train_ip2p --settings mini --model checkpoints/mini \\
        --data data/mini-train --out runs/ip2p

The same command, given again, goes on from the newest saved state (--resume latest).
"""

import argparse
from pathlib import Path

from diffusion_model_finetuning.core import settings
from diffusion_model_finetuning.core.card import config_folder
from evaluation import canvas
from evaluation.core.errors import UserError, command, early


def parse(argv=None) -> argparse.Namespace:
    """The flags, with `settings` read and checked."""
    parser = settings.loop_parser(__doc__)
    parser.add_argument(
        "--model", required=True, help="model to start from: text to image, or InstructPix2Pix"
    )
    args = settings.read(parser.parse_intermixed_args(argv), "ip2p")
    config_folder(args.model, None)
    edited_cells(args.settings)
    return args


def edited_cells(settings) -> list[canvas.Target]:
    """Style and object of each of `validate.edits`, such as Rust+Cats."""
    targets = [canvas.parse_targets(str(text), "validate.edits")[0] for text in settings.validate.edits]
    if lone := [target for target in targets if target.kind != "pair"]:
        raise UserError(f"validate.edits {lone[0]}: name a style and an object, such as Rust+Cats")
    return targets


early(__name__, parse)

import torch
from diffusers import StableDiffusionInstructPix2PixPipeline

from diffusion_model_finetuning.core import ip2p, loop, training
from diffusion_model_finetuning.core.data import cached_moments
from diffusion_model_finetuning.core.sd import draw_noise, eps, load_sd
from diffusion_model_finetuning.core.training import noise_loss, save_pipeline
from evaluation.data.images import CanvasImages


class Pairs:
    """Every stylised image beside its photo: row numbers `image` and `photo` [N], `style` [N] of `styles`."""

    def __init__(self, rows):
        number = {row: i for i, row in enumerate(rows)}
        painted = [row for row in rows if row[0] != canvas.PHOTO]
        self.styles = sorted({style for style, *_ in painted})
        self.image = torch.tensor([number[row] for row in painted])
        self.photo = torch.tensor([number[canvas.PHOTO, obj, index] for _, obj, index in painted])
        self.style = torch.tensor([self.styles.index(style) for style, *_ in painted])


def ip2p_loss(model, x, photo, t, text, noise, abar_t, min_snr=None) -> torch.Tensor:
    """The loss above: x, photo, noise [B,C,h,w], t and its noise level abar_t [B], text [B,L,D]."""
    return noise_loss(eps(model, torch.cat([x, photo], 1), t, text), noise, abar_t, min_snr)


def validation(sd, args):
    """What draws held-out photos in the styles of `validate.edits`; UserError if one is missing."""
    settings = args.settings
    if not settings.validate.every:
        return None
    targets = edited_cells(settings)
    prompts = [ip2p.instruction(target.style, settings.instruction) for target in targets]
    cells = [(canvas.PHOTO, target.object) for target in targets]
    photos = CanvasImages(args.data, cells, canvas.TEST[:1], settings.size)

    def draw():
        images = torch.stack([photos[i]["image"] for i in range(len(photos))])
        return ip2p.edit(sd, images, prompts, range(len(prompts)), steps=20)

    return draw


def train(sd, run: loop.Loop, args) -> None:
    accelerator, settings = run.accelerator, args.settings
    draw = validation(sd, args)
    data = training.images(args.data, settings.per_object, settings.size)
    with accelerator.main_process_first():
        moments = cached_moments(
            sd, data, Path(args.out) / ".training", settings.flip, workers=settings.workers
        )
    pairs = Pairs(data.rows)
    table = sd.embed(["", *(ip2p.instruction(style, settings.instruction) for style in pairs.styles)])
    ip2p.inflate(sd)
    if settings.gradient_checkpointing:
        sd.unet.enable_gradient_checkpointing()
    unet = sd.unet.requires_grad_(True).train().to(memory_format=torch.channels_last)
    unet, optimizer, average = run.prepare(unet)

    for step, generator, batches in run.steps(len(pairs.image) * (2 if settings.flip else 1)):
        for rows in batches:
            # the second half of the rows, and of the moments, is mirrored
            pair, mirrored = rows % len(pairs.image), rows // len(pairs.image) * len(data)
            latents = sd.sample_moments(moments[pairs.image[pair] + mirrored], generator)
            photo = ip2p.photo_latents(moments[pairs.photo[pair] + mirrored])
            no_text, no_photo = ip2p.dropped(torch.rand(len(rows), generator=generator), settings.dropout)
            said = torch.where(no_text, 0, pairs.style[pair] + 1)
            photo[no_photo] = 0
            t, noise = draw_noise(sd, latents, generator)
            latents, photo, said, t, noise = run.mine(latents, photo, said, t, noise)
            with accelerator.accumulate(unet):
                x = sd.add_noise(latents, noise, t)
                run.backward(ip2p_loss(unet, x, photo, t, table[said], noise, sd.abar[t], settings.min_snr))
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        average.step(unet.parameters())
        run.pictures(step, draw)

    if run.finish():
        card = dict(settings.card or {})
        save_pipeline(sd, Path(args.out), settings.half, card, StableDiffusionInstructPix2PixPipeline)
        run.forget()


@command
def main(argv=None):
    args = parse(argv)
    training.seed_everything(args.settings.seed)
    with loop.alone_in(args, "ip2p") as run:
        train(load_sd(args.model, run.accelerator.device), run, args)


if __name__ == "__main__":
    main()
