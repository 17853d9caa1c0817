"""Bookkeeping around a training loop on accelerate. The script owns forward, loss, backward and step.

Step n draws from (seed, n) alone, always for the batches of all processes together, of which each takes its
part. So a resumed run continues the interrupted one, and N processes train what one with an N times larger
batch trains, up to rounding.

    OUT/.training/NAME/step-N     all that is needed to go on; the newest `keep` of them, gone when finished
    OUT/.training/NAME.jsonl      every `log_every` steps: mean loss since the line before, learning rate
    OUT/.training/NAME.json       settings, `batch` that of all processes: only the same go on from a state;
                                  by what they were trained
    OUT/.training/NAME-images/    pictures of the averaged weights, every `validate.every` steps
"""

import argparse
import contextlib
import importlib.util
import math
import os
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from diffusers.training_utils import EMAModel
from omegaconf import OmegaConf
from PIL import Image
from tqdm import tqdm

from diffusion_model_finetuning.core import damage, states, training
from diffusion_model_finetuning.core.card import MODEL
from diffusion_model_finetuning.core.data import forever
from evaluation.core.environment import find_device, made_with
from evaluation.core.errors import Finished, UserError, brief
from evaluation.core.files import (
    append_json,
    atomic,
    keep_json_lines,
    named_errors,
    read_json,
    remove,
    write_json,
)
from evaluation.core.owner import alone
from evaluation.core.tensors import check_finite

FREE = {"save_every", "keep", "log_every", "validate", "workers", "gradient_checkpointing", "half", "card"}


@contextlib.contextmanager
def alone_in(args: argparse.Namespace, name: str):
    """The Loop of a training, in whose folder no other is at work; Finished if the model is there."""
    loop = Loop(name, args)
    with alone(args.out) if loop.accelerator.is_main_process else contextlib.nullcontext():
        loop.begin(args)
        yield loop


class Loop:
    """`settings` has seed, steps, batch (of one process), accumulate, lr, ema and the rest of `sd15.yaml`."""

    def __init__(self, name: str, args: argparse.Namespace):
        self.settings, self.resume, self.losses = args.settings, args.resume, []
        self.states = states.folder(args.out, name)
        if args.track and not importlib.util.find_spec(args.track):
            raise UserError(f"--track {args.track}: is not installed; pip install {args.track}")
        device = find_device(args.device)
        if ":" in device and int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise UserError(
                f"--device {device}: every process of a launch has a device of its own; name its kind"
            )
        try:
            self.accelerator = Accelerator(  # on the current device
                mixed_precision=self.settings.precision,
                gradient_accumulation_steps=self.settings.accumulate,
                cpu=device == "cpu",
                log_with=args.track,
                project_dir=self.states.parent,
                # the others wait while the first encodes the data set
                kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=6))],
            )
        except ValueError as error:
            raise UserError(f"precision={self.settings.precision}: {error}") from error

    def begin(self, args: argparse.Namespace) -> None:
        """Finds the step to start at. Raises Finished if the model is there, UserError if it is another's."""
        self.start = states.start(self.resume, self.states, self.settings.steps)
        finished = (Path(args.out) / MODEL).exists()
        self._check_settings(finished)
        if finished:
            self.forget()
            raise Finished(f"{args.out}: already trained; a longer training starts from scratch, elsewhere")
        if args.track:
            os.environ.setdefault("WANDB_MODE", "offline")
            self.states.parent.mkdir(parents=True, exist_ok=True)
            self.accelerator.init_trackers(
                f"{self.states.name}-track",
                config={"settings": OmegaConf.to_yaml(self.settings)},
                init_kwargs={"wandb": {"dir": str(self.states.parent)}},
            )

    def prepare(self, model: torch.nn.Module):
        """-> the model as accelerate wraps it, AdamW, the averaged weights; all as in the state to resume."""
        s = self.settings
        fused = self.accelerator.device.type == "cuda"
        optimizer = torch.optim.AdamW(model.parameters(), s.lr, weight_decay=s.weight_decay, fused=fused)
        average = EMAModel(model.parameters(), decay=s.ema)
        model, optimizer = self.accelerator.prepare(model, optimizer)
        self.accelerator.register_for_checkpointing(average)
        self.model, self.optimizer, self.average = model, optimizer, average
        self._load_state()
        average.to(self.accelerator.device)
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
        with atomic(folder / f"step-{step + 1}.png") as temporary:
            Image.fromarray(np.concatenate(images, axis=1)).save(temporary)
        for tracker in self.accelerator.trackers:
            form = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"validation": images}, step + 1, **form)

    def finish(self) -> bool:
        """Puts the averaged weights into the model; whether this process is the one to write it."""
        self.average.copy_to(self.model.parameters())
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return self.accelerator.is_main_process

    def forget(self) -> None:
        """Removes the saved states, once the model is there; not what else lies beside them."""
        if self.accelerator.is_main_process:
            for folder in (self.states / "writing", *states.saved(self.states).values()):
                remove(folder)
            with contextlib.suppress(OSError):  # others' files
                self.states.rmdir()

    def _end_step(self, step: int) -> None:
        s = self.settings
        self.bar.update()
        if all(step % every for every in (s.log_every, s.save_every, s.steps)):
            return
        loss = self.accelerator.reduce(torch.stack(self.losses).mean(), "mean").item()
        if not math.isfinite(loss):
            raise UserError(
                f"{self.states}: the loss is {loss} at step {step}; lower lr, or set precision=no"
            )
        if step % s.log_every == 0:
            self.losses, lr = [], self.optimizer.param_groups[0]["lr"]
            self.bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            self.accelerator.log({"loss": loss, "lr": lr}, step)
            if self.accelerator.is_main_process:
                append_json(
                    self.states.with_suffix(".jsonl"), {"step": step, "loss": round(loss, 6), "lr": lr}
                )
        if step % s.save_every == 0:
            self._save_state(step)

    def _save_state(self, step: int) -> None:
        """A state takes its place when it is complete; then the oldest ones go."""
        state, writing = self.states / f"step-{step}", self.states / "writing"
        check_finite(dict(self.model.named_parameters()), state)
        if self.accelerator.is_main_process:
            remove(writing)
        self.accelerator.wait_for_everyone()
        with named_errors(state, writing):
            self.accelerator.save_state(str(writing))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            remove(state)
            os.replace(writing, state)
            for old in [*states.saved(self.states).values()][: -self.settings.keep]:
                shutil.rmtree(old)

    def _load_state(self) -> None:
        """What was saved or logged after the step to start at is forgotten."""
        if self.start:
            state = states.saved(self.states)[self.start]
            try:
                damage.check_average(state, self.start)
                self.accelerator.load_state(str(state))
                damage.check_shapes(self.model, self.average, self.optimizer)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # a damaged file ends in any of many
                advice = states.earlier(self.states, self.start)
                raise UserError(f"{damage.unreadable(state)}: damaged ({brief(error)}); {advice}") from error
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            for step, state in states.saved(self.states).items():
                if step > self.start:
                    shutil.rmtree(state)
            keep_json_lines(self.states.with_suffix(".jsonl"), self._is_kept)
            made = {"made_with": made_with(self.accelerator.device)}
            write_json(self.states.with_suffix(".json"), self._decisive() | made)

    def _is_kept(self, line: dict) -> bool:
        return isinstance(line.get("step"), int) and line["step"] <= self.start

    def _decisive(self) -> dict:
        """The settings that change what is learned; `batch` that of all processes."""
        s = OmegaConf.to_container(self.settings)
        decisive = {key: value for key, value in s.items() if key not in FREE}
        return decisive | {"batch": s["batch"] * self.accelerator.num_processes}

    def _check_settings(self, finished: bool) -> None:
        """Only the settings that a state was trained with go on from it, the FREE ones excepted; and more
        steps, where the learning rate is constant."""
        path, now = self.states.with_suffix(".json"), self._decisive()
        known = (finished or self.start) and path.exists()
        before = read_json(path) if known else now
        for key in now:
            if before.get(key) == now[key] or (key == "steps" and not finished and not now["one_cycle"]):
                continue
            trained = f"was trained with {key}={before.get(key)}, not {now[key]}"
            if finished:
                out = path.parent.parent
                raise UserError(
                    f"--out {out}: {trained}, and is finished; it can be lengthened or changed from scratch "
                    "only: name another folder"
                )
            raise UserError(
                f"--resume {self.resume}: {self.states} {trained}; give the same settings, or --resume never "
                "to start anew"
            )
