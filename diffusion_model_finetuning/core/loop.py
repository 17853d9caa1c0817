"""Bookkeeping around a training loop on accelerate. The script owns forward, loss, backward and step.

Step n draws from (seed, n) alone, always for the batches of all processes together, of which each takes its
part. So a resumed run continues the interrupted one, and N processes train what one with an N times larger
batch trains, up to rounding.

    OUT/.training/NAME/step-N     all that is needed to go on; the newest `keep` of them, gone when finished
    OUT/.training/NAME.jsonl      every `log_every` steps: mean loss since the line before, learning rate
    OUT/.training/NAME.json       settings, `batch` that of all processes: only the same go on from a state
    OUT/.training/NAME-images/    pictures of the averaged weights, every `validate.every` steps
"""

import argparse
import importlib.util
import json
import os
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from diffusers.training_utils import EMAModel
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tqdm import tqdm

from diffusion_model_finetuning.core import training
from diffusion_model_finetuning.core.data import forever
from evaluation.core.errors import UserError
from evaluation.core.files import atomic, write_json

FREE = {"save_every", "keep", "log_every", "validate", "workers", "gradient_checkpointing", "half", "card"}


def arguments(parser: argparse.ArgumentParser) -> None:
    training.arguments(parser)
    parser.add_argument(
        "--resume",
        default="latest",
        metavar="latest|never|STEP",
        help="latest (default): go on from the newest saved state, if any; never: start anew; a saved step",
    )
    parser.add_argument(
        "--track", choices=["tensorboard", "wandb"], help="also log there (wandb: offline); default: neither"
    )


class Loop:
    """`settings` has seed, steps, batch (of one process), accumulate, lr, ema and the rest of `sd15.yaml`."""

    def __init__(self, name: str, settings: DictConfig, args: argparse.Namespace):
        self.settings, self.resume, self.losses = settings, args.resume, []
        self.states = Path(args.out) / ".training" / name
        if args.track and not importlib.util.find_spec(args.track):
            raise UserError(f"--track {args.track}: is not installed; pip install {args.track}")
        try:
            self.accelerator = Accelerator(
                mixed_precision=settings.precision,
                gradient_accumulation_steps=settings.accumulate,
                cpu=args.device == "cpu",
                log_with=args.track,
                project_dir=self.states.parent,
                # the others wait while the first encodes the data set
                kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=6))],
            )
        except ValueError as error:
            raise UserError(f"precision={settings.precision}: {error}") from error
        if args.track:
            os.environ.setdefault("WANDB_MODE", "offline")
            self.states.parent.mkdir(parents=True, exist_ok=True)
            self.accelerator.init_trackers(
                f"{name}-track",
                config={"settings": OmegaConf.to_yaml(settings)},
                init_kwargs={"wandb": {"dir": str(self.states.parent)}},
            )

    def prepare(self, model: torch.nn.Module):
        """-> the model as accelerate wraps it, AdamW, the averaged weights; all as in the state to resume."""
        s = self.settings
        fused = self.accelerator.device.type == "cuda"
        optimizer = torch.optim.AdamW(model.parameters(), s.lr, weight_decay=s.weight_decay, fused=fused)
        average = EMAModel(model.parameters(), decay=s.ema)
        average.to(self.accelerator.device)
        model, optimizer = self.accelerator.prepare(model, optimizer)
        self.accelerator.register_for_checkpointing(average)
        self.model, self.optimizer, self.average = model, optimizer, average
        self._load_state()
        return model, optimizer, average

    def steps(self, count: int):
        """Yields (step, its generator, its accumulated batches) for every step still to do.

        A batch is row numbers below `count` for all processes together. Sets the step's learning rate.
        """
        s, per_batch = self.settings, self.settings.batch * self.accelerator.num_processes
        stream = forever(count, per_batch * s.accumulate, s.seed, self.start)
        hidden = None if self.accelerator.is_main_process else True  # None: where there is no terminal
        self.bar = tqdm(range(s.steps), self.states.name, initial=self.start, disable=hidden)
        for step in range(self.start, s.steps):
            factor = training.one_cycle(step / s.steps, s.warmup) if s.one_cycle else 1.0
            training.set_lr(self.optimizer, s.lr * factor)
            generator = torch.Generator().manual_seed(s.seed * 1_000_003 + step)
            yield step, generator, next(stream).split(per_batch)
            self._end_step(step + 1)

    def mine(self, *tensors: torch.Tensor):
        """This process's rows of tensors that were drawn for all processes, on its device."""
        number, index = self.accelerator.num_processes, self.accelerator.process_index
        return [tensor.chunk(number)[index].to(self.accelerator.device) for tensor in tensors]

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients of the loss, clipped when the accumulated batch is complete."""
        self.accelerator.backward(loss)
        if self.accelerator.sync_gradients:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.losses.append(loss.detach())

    def pictures(self, step: int, draw) -> None:
        """Every `validate.every` steps: `draw()` -> uint8 [N,H,W,3], by the averaged weights, in a row."""
        every = self.settings.validate.every
        if not every or (step + 1) % every or not self.accelerator.is_main_process:
            return
        self.average.store(self.model.parameters())
        self.average.copy_to(self.model.parameters())
        self.model.eval()
        images = draw()
        self.model.train()
        self.average.restore(self.model.parameters())
        folder = self.states.with_name(f"{self.states.name}-images")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(images, axis=1)).save(folder / f"step-{step + 1}.png")
        for tracker in self.accelerator.trackers:
            form = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"validation": images}, step + 1, **form)

    def finish(self) -> bool:
        """Puts the averaged weights into the model; whether this process is the one to write it."""
        self.average.copy_to(self.model.parameters())
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return self.accelerator.is_main_process

    def _end_step(self, step: int) -> None:
        self.bar.update()
        if step % self.settings.log_every == 0:
            loss = self.accelerator.reduce(torch.stack(self.losses).mean(), "mean").item()
            self.losses, lr = [], self.optimizer.param_groups[0]["lr"]
            self.bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            self.accelerator.log({"loss": loss, "lr": lr}, step)
            if self.accelerator.is_main_process:
                with open(self.states.with_suffix(".jsonl"), "a") as log:
                    log.write(json.dumps({"step": step, "loss": round(loss, 6), "lr": lr}) + "\n")
        if step % self.settings.save_every == 0:
            self._save_state(step)

    def _saved(self) -> dict[int, Path]:
        return {int(path.name.removeprefix("step-")): path for path in self.states.glob("step-*")}

    def _save_state(self, step: int) -> None:
        """A state takes its place when it is complete; then the oldest ones go."""
        writing = self.states / "writing"
        if self.accelerator.is_main_process:
            shutil.rmtree(writing, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(writing))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            shutil.rmtree(self.states / f"step-{step}", ignore_errors=True)
            os.replace(writing, self.states / f"step-{step}")
            for old in sorted(self._saved())[: -self.settings.keep]:
                shutil.rmtree(self.states / f"step-{old}")

    def _load_state(self) -> None:
        """Finds the step to start at; what was saved or logged after it is forgotten."""
        saved, log = self._saved(), self.states.with_suffix(".jsonl")
        starts = {"latest": max(saved, default=0), "never": 0} | {str(step): step for step in saved}
        if self.resume not in starts:
            raise UserError(
                f"--resume {self.resume}: no such state in {self.states}; choose {', '.join(starts)}"
            )
        self.start = starts[self.resume]
        self._check_settings()
        if self.start:
            self.accelerator.load_state(str(saved[self.start]))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            for step, state in saved.items():
                if step > self.start:
                    shutil.rmtree(state)
            lines = log.read_text().splitlines(keepends=True) if log.exists() else []
            kept = [line for line in lines if json.loads(line)["step"] <= self.start]
            with atomic(log) as temporary:
                temporary.write_text("".join(kept))

    def _check_settings(self) -> None:
        """Only the settings that a state was trained with go on from it, the FREE ones excepted."""
        path, s = self.states.with_suffix(".json"), OmegaConf.to_container(self.settings)
        now = {key: value for key, value in s.items() if key not in FREE}
        now["batch"] = s["batch"] * self.accelerator.num_processes
        before = json.loads(path.read_text()) if self.start and path.exists() else now
        for key in now:
            if before.get(key) != now[key]:
                raise UserError(
                    f"--resume {self.resume}: {self.states} was trained with {key}={before.get(key)}, not "
                    f"{now[key]}; give the same settings, or --resume never to start anew"
                )
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            write_json(path, now)
