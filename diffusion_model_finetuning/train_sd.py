"""Fine-tune Stable Diffusion on text and images: what makes the model that will be unlearned

    loss = || eps - eps_theta(sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, t, c) ||^2,    t uniform, eps ~ N(0, I)

with c the caption, or the empty prompt for a share of the images, so that classifier-free guidance works
(Rombach et al. 2022; Ho & Salimans 2021). Images are encoded once; a frozen text encoder embeds every caption
once. The same command, given again, goes on from the newest saved state (--resume latest).

    accelerate launch -m diffusion_model_finetuning.train_sd --settings sd15 --model SD --data DATA --out OUT
    python -m diffusion_model_finetuning.train_sd --settings mini --data data/mini --out checkpoints/mini

Without --model, settings with a section `scratch` start a UNet and text encoder at random around OUT/vae.
"""

import argparse
from pathlib import Path

from diffusion_model_finetuning.core import settings
from diffusion_model_finetuning.core.card import config_folder
from evaluation.core.errors import UserError, command, early


def parse(argv=None) -> argparse.Namespace:
    """The flags, with `settings` read and checked."""
    parser = settings.loop_parser(__doc__)
    parser.add_argument("--model", help="model to start from; settings with a scratch section need none")
    args = settings.read(parser.parse_intermixed_args(argv), "sd")
    if args.model:
        config_folder(args.model, None)
    elif "scratch" not in args.settings:
        raise UserError("--model is missing: these settings fine-tune a model; name its folder")
    elif not (Path(args.out) / "vae" / "config.json").exists():
        build = "no vae/ to build on; run diffusion_model_finetuning.train_vae first"
        raise UserError(f"--out {args.out}: {build}")
    return args


early(__name__, parse)

import torch

from diffusion_model_finetuning.core import loop, training
from diffusion_model_finetuning.core.data import Captions, cached_moments
from diffusion_model_finetuning.core.sd import draw_noise, eps, load_sd, sample
from diffusion_model_finetuning.core.training import noise_loss, save_pipeline
from diffusion_model_finetuning.scratch import new_sd


class Trained(torch.nn.Module):
    """UNet and, if trained too, text encoder as one module: one optimizer, average and saved state."""

    def __init__(self, sd, with_text: bool):
        super().__init__()
        self.unet = sd.unet
        self.text_encoder = sd.text_encoder if with_text else None
        self.requires_grad_(True)

    def forward(self, x, t, captions):
        """Noise predicted in x [B,C,h,w] at t [B]; captions are embeddings [B,L,D], or token ids [B,L]."""
        if self.text_encoder is not None:
            distinct, which = captions.unique(dim=0, return_inverse=True)
            captions = self.text_encoder(distinct)[0][which]
        return eps(self.unet, x, t, captions)


def train(sd, run: loop.Loop, args) -> None:
    accelerator, settings = run.accelerator, args.settings
    data = training.images(args.data, settings.per_object, settings.size, settings.without)
    with accelerator.main_process_first():
        moments = cached_moments(
            sd, data, Path(args.out) / ".training", settings.flip, workers=settings.workers
        )
    captions = Captions(settings.captions, data.rows)
    with_text = settings.text_encoder == "train"
    table = sd.tokens(captions.texts) if with_text else sd.embed(captions.texts)
    if settings.gradient_checkpointing:
        sd.unet.enable_gradient_checkpointing()
    model = Trained(sd, with_text).train().to(memory_format=torch.channels_last)
    model, optimizer, average = run.prepare(model)

    for step, generator, batches in run.steps(len(moments)):
        for rows in batches:
            latents = sd.sample_moments(moments[rows], generator)
            drawn = captions.draw(rows % len(data), settings.caption_dropout, generator)
            t, noise = draw_noise(sd, latents, generator)
            latents, drawn, t, noise = run.mine(latents, drawn, t, noise)
            with accelerator.accumulate(model):
                predicted = model(sd.add_noise(latents, noise, t), t, table[drawn])
                run.backward(noise_loss(predicted, noise, sd.abar[t], settings.min_snr))
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        average.step(model.parameters())
        prompts = list(settings.validate.prompts)
        run.pictures(
            step, lambda prompts=prompts: sample(sd, prompts, range(len(prompts)), size=settings.size)
        )

    if run.finish():
        save_pipeline(sd, Path(args.out), settings.half, dict(settings.card or {}))
        run.forget()


@command
def main(argv=None):
    args = parse(argv)
    training.seed_everything(args.settings.seed)
    with loop.alone_in(args, "sd") as run:
        device = run.accelerator.device
        if args.model:
            sd = load_sd(args.model, device)
        else:
            with run.accelerator.main_process_first():  # it makes the tokenizer of all
                sd = new_sd(args.out, args.settings.scratch, args.settings.captions, device)
        train(sd, run, args)


if __name__ == "__main__":
    main()
