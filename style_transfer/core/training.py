"""What the trainings of all methods share: batches and bookkeeping. Losses and loop are the method's.

    for step, content, style in run.batches(network=network, optimizer=optimizer):
        losses = ...
        run.step(optimizer, weigh(losses, s.weights), **losses)
    run.save(network, FILES)

Step n draws from (seed, n) alone, so that a stopped command goes on, when it is run again, as if it had not
been stopped. OUT then holds files laid out as released, and named so but for the number of steps,
`log.jsonl`, and `record.json`, which is written last.
"""

import math
import re
import time
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import nn
from tqdm import tqdm

from evaluation.core.checkpoint import Checkpoint
from evaluation.core.environment import find_device, made_with, peak_memory, reset_peak_memory
from evaluation.core.errors import Finished, UserError
from evaluation.core.files import append_json, digest, file_digest, keep_json_lines, read_json
from evaluation.core.record import RECORD, write_record
from evaluation.judges.training_data import generator
from style_transfer.core import vgg, weights
from style_transfer.core.images import crops
from style_transfer.core.training_data import streams

LOG_STEPS = 20  # between lines of the log
LOG = "log.jsonl"


def decayed(lr: float, decay: float, step: int) -> float:
    """lr / (1 + decay step), the learning rate of most of the methods."""
    return lr / (1 + decay * step)


def descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor, clip: float = math.inf) -> None:
    """A step along the gradients of the loss, of a norm of at most `clip`."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if clip < math.inf:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip)
    optimizer.step()


class Training:
    """One training, begun or gone on with. Finished if OUT holds its result, UserError if another's."""

    def __init__(self, args):
        self.args, self.settings, self.out = args, args.settings, args.out
        self.device = torch.device(find_device(args.device))
        self.identity = {
            "method": args.method,
            "variant": args.variant,
            "settings": OmegaConf.to_container(args.settings),
            "seed": args.seed,
            "data": args.data or {"contents": args.contents, "styles": args.styles},
            "held_out": sorted(args.hold_out or []),
            "encoder": file_digest(args.encoder) if args.encoder else None,
            "init": file_digest(args.init) if args.init else None,
        }
        self.kept = self.out / ".training.pt"
        if (self.out / RECORD).exists():
            record = read_json(self.out / RECORD)
            if differing := [key for key, value in self.identity.items() if record.get(key) != value]:
                there = f"--out {self.out}: holds weights of a training with another {differing[0]}"
                raise UserError(f"{there}; choose another folder or remove this one")
            self.kept.unlink(missing_ok=True)  # of a command killed in its last moment
            raise Finished(f"{self.out}: already trained")
        reset_peak_memory(self.device)
        torch.manual_seed(args.seed)

    def encoder(self) -> vgg.Encoder:
        """The frozen VGG-19 that the losses see with, on the device; raises UserError for another file."""
        return vgg.load_encoder(self.args.encoder).to(self.device)

    def begin(self, decoder: nn.Module, widths) -> None:
        """Lets a decoder begin as that of --init, if there is one."""
        if self.args.init:
            name = Path(self.args.init).name
            state = weights.read({name: self.args.init}, [name], "the decoder to begin with")
            vgg.copy(weights.fill(vgg.decoder(widths), state, {name: ""}), decoder)

    def cooled(self, lr: float) -> float:
        """The learning rate of this step; over the last steps, `cooldown` of all, it falls to 0."""
        left, cooldown = 1 - self.number / self.settings.steps, self.settings.cooldown
        return lr * min(1, left / cooldown) if cooldown else lr

    def batches(self, **state):
        """Yields step, contents and styles [B,3,crop,crop] in [0,1]; `state` is what is kept and resumed."""
        self.checkpoint = Checkpoint(self.kept, digest(self.identity), **state)
        s, self.since, kept = self.settings, [], self.checkpoint.resume()
        first = kept.get("step", 0)
        if kept:
            keep_json_lines(self.out / LOG, lambda line: line.get("step", first) < first)
        else:
            (self.out / LOG).unlink(missing_ok=True)
        images = streams(self.args, first)
        began = time.monotonic() - kept.get("seconds", 0)
        self.bar = tqdm(range(first, s.steps), self.args.method, s.steps, initial=first, disable=None)
        for number in self.bar:
            self.number = number
            torch.manual_seed(self.args.seed * 1_000_003 + number)  # dropout, noise
            chance = generator(self.args.seed, number)
            pair = (crops(next(stream), s.crop, s.flip, chance).to(self.device) for stream in images)
            yield number, *pair
            if self.checkpoint.due():
                self._check_finite()
                self.checkpoint.save(step=number + 1, seconds=time.monotonic() - began)
        self.seconds = time.monotonic() - began

    def step(self, optimizer: torch.optim.Optimizer, loss: torch.Tensor, clip: float = math.inf, **numbers):
        """Gradients of the loss, of a norm of at most `clip`, and a step; every 20th and the last are logged.
        UserError there if the loss or a number of this step, or of one since the last line, is not finite."""
        descend(optimizer, loss, clip)
        numbers = {"loss": loss, **numbers}
        line = {name: torch.as_tensor(value).detach().float() for name, value in numbers.items()}
        self.since.append((self.number, line))
        if self.number % LOG_STEPS and self.number + 1 < self.settings.steps:
            return
        self._check_finite()
        rounded = {name: round(float(value), 6) for name, value in line.items()}
        append_json(self.out / LOG, {"step": self.number, **rounded})
        self.bar.set_postfix(loss=f"{rounded['loss']:.3f}", refresh=False)

    def _check_finite(self) -> None:
        """Of all steps since the last look, which the GPU is waited for at looks alone."""
        for number, line in self.since:
            for name, value in zip(line, torch.stack(list(line.values())).tolist()):
                if not math.isfinite(value):
                    raise UserError(f"{self.out}: {name} of step {number} is {value}; lower lr")
        self.since = []

    def save(self, network: nn.Module, files: dict[str, str]) -> None:
        """Writes the released files, {name: part of the network}, but for the encoder's, and the record.
        Names that tell the training's steps tell this one's."""
        stored = 0
        for name, part in files.items():
            if name != vgg.ENCODER:
                path = self.out / re.sub(r"_iter_\d+", f"_iter_{self.settings.steps}", name)
                weights.save_file(path, network.get_submodule(part), self.settings.half)
                stored += path.stat().st_size
        about = {"seconds": round(self.seconds, 1), "peak_memory_bytes": peak_memory(self.device)}
        about |= {"stored_bytes": stored, "threads": torch.get_num_threads()}
        write_record(self.out, self.identity | about | made_with(self.device))
        self.checkpoint.remove()
