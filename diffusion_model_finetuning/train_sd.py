"""Fine-tune Stable Diffusion on text and images: what makes the model that will be unlearned

    loss = || eps - eps_theta(sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, t, c) ||^2,    t uniform, eps ~ N(0, I)

with c the caption, or the empty prompt for a share of the images, so that classifier-free guidance works
(Rombach et al. 2022; Ho & Salimans 2021). Images are encoded once; a frozen text encoder embeds every caption
once. Step n draws from (seed, n, process) alone, so a resumed run continues the interrupted one.

    accelerate launch -m diffusion_model_finetuning.train_sd --settings sd15 --model SD --data DATA --out OUT
    python -m diffusion_model_finetuning.train_sd --settings mini --data data/mini --out checkpoints/mini

With a section `scratch` in the settings, UNet and text encoder start at random around the VAE in OUT/vae.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import EMAModel
from tqdm import tqdm

from diffusion_model_finetuning.core import training
from diffusion_model_finetuning.core.data import Captions, cached_moments, forever
from diffusion_model_finetuning.core.sd import CARD, diffusion_loss, load_sd
from diffusion_model_finetuning.scratch import new_sd
from evaluation.errors import UserError, command
from evaluation.files import write_json


def save_pipeline(sd, out: Path, half: bool, card: dict) -> None:
    """Writes a folder that any StableDiffusionPipeline.from_pretrained loads, weights in safetensors."""
    modules = {"unet": sd.unet, "vae": sd.vae, "text_encoder": sd.text_encoder}
    if half:
        modules = {name: module.half() for name, module in modules.items()}
    StableDiffusionPipeline(
        **modules,
        tokenizer=sd.tokenizer,
        scheduler=sd.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(out)
    config = (
        out / "text_encoder" / "config.json"
    )  # transformers loads in the dtype named here, diffusers in float32
    write_json(config, json.loads(config.read_text()) | {"dtype": "float32"})
    if card:
        write_json(out / CARD, card)


def save_state(accelerator: Accelerator, folder: Path, step: int) -> None:
    """All that is needed to go on from `step`, put in place when complete; the state before it goes."""
    if accelerator.is_main_process:
        shutil.rmtree(folder / "writing", ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(folder / "writing"))
    if accelerator.is_main_process:
        older = list(folder.glob("step-*"))
        os.replace(folder / "writing", folder / f"step-{step}")
        for state in older:
            shutil.rmtree(state)


def load_state(accelerator: Accelerator, folder: Path) -> int:
    """Loads the newest state; returns its step, 0 if there is none."""
    steps = [int(path.name.removeprefix("step-")) for path in folder.glob("step-*")]
    if steps:
        accelerator.load_state(str(folder / f"step-{max(steps)}"))
    return max(steps, default=0)


class Trained(torch.nn.Module):
    """UNet and, if trained too, text encoder as one module: one optimizer, average and saved state."""

    def __init__(self, sd, with_text: bool):
        super().__init__()
        self.unet = sd.unet
        self.text_encoder = sd.text_encoder if with_text else None
        self.requires_grad_(True)

    def forward(self, sd, latents, captions, generator):
        """Loss of latents [B,C,h,w] and captions: embeddings [B,L,D], or (distinct ids [N,L], which [B])."""
        if self.text_encoder is not None:
            ids, which = captions
            captions = self.text_encoder(ids)[0][which]
        return diffusion_loss(sd, latents, captions, generator)


def train(sd, settings, args) -> None:
    accelerator = Accelerator(
        mixed_precision=settings.precision,
        gradient_accumulation_steps=settings.accumulate,
        cpu=args.device == "cpu",
    )
    data = training.images(args.data, settings.per_object, settings.size)
    moments = cached_moments(sd, data, Path(args.out) / ".training", settings.flip, workers=settings.workers)
    captions = Captions(settings.captions, data.rows)
    with_text = settings.text_encoder == "train"
    table = sd.tokens(captions.texts) if with_text else sd.embed(captions.texts)

    if settings.gradient_checkpointing:
        sd.unet.enable_gradient_checkpointing()
    model = Trained(sd, with_text).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), settings.lr, weight_decay=settings.weight_decay)
    average = EMAModel(model.parameters(), decay=settings.ema)
    average.to(accelerator.device)
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(average)
    folder = Path(args.out) / ".training" / "sd"
    start = load_state(accelerator, folder)

    per_step = settings.batch * settings.accumulate * accelerator.num_processes
    batches = forever(len(moments), per_step, settings.seed, start)
    bar = tqdm(range(start, settings.steps), "sd", settings.steps, initial=start, disable=None)
    smooth = None
    for step in bar:
        factor = training.one_cycle(step / settings.steps, settings.warmup) if settings.one_cycle else 1.0
        training.set_lr(optimizer, settings.lr * factor)
        mine = next(batches).chunk(accelerator.num_processes)[accelerator.process_index]
        seed = (settings.seed * 1_000_003 + step) * accelerator.num_processes + accelerator.process_index
        generator = torch.Generator().manual_seed(seed)
        for rows in mine.split(settings.batch):
            with accelerator.accumulate(model):
                latents = sd.sample_moments(moments[rows].to(accelerator.device), generator)
                drawn = captions.draw(rows % len(data), settings.caption_dropout, generator)
                distinct, which = drawn.unique(return_inverse=True)
                text = (table[distinct], which) if with_text else table[drawn]
                with accelerator.autocast():
                    loss = model(sd, latents, text, generator)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), settings.clip)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        average.step(model.parameters())
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        bar.set_postfix(loss=f"{smooth:.4f}", refresh=False)
        if (step + 1) % settings.save_every == 0:
            save_state(accelerator, folder, step + 1)
            with open(Path(args.out) / ".training" / "sd.jsonl", "a") as log:
                log.write(json.dumps({"step": step + 1, "loss": round(smooth, 5)}) + "\n")
    average.copy_to(model.parameters())
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        save_pipeline(sd, Path(args.out), settings.half, dict(settings.card or {}))
        shutil.rmtree(folder, ignore_errors=True)


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    training.arguments(parser)
    parser.add_argument(
        "--model", help="diffusers folder to start from (not for settings with a scratch section)"
    )
    args = parser.parse_intermixed_args(argv)
    settings = training.settings(args.settings, "sd", args.overrides)
    if (Path(args.out) / "model_index.json").exists():
        print(f"{args.out}: already trained")
        return
    training.seed_everything(settings.seed)
    if "scratch" in settings:
        sd = new_sd(args.out, settings.scratch, settings.captions, args.device)
    elif args.model:
        sd = load_sd(args.model, args.device)
    else:
        raise UserError(
            f"--model is missing: settings {args.settings} fine-tune a model; name its diffusers folder"
        )
    train(sd, settings, args)


if __name__ == "__main__":
    main()
