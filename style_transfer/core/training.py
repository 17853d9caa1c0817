"""What the trainings of all methods share: batches and bookkeeping. Losses and loop are the method's.

    with Training(args) as run:
        for step, content, style in run.batches(network=network, optimizer=optimizer):
            losses = ...
            run.step(optimizer, weigh(losses, s.weights), **losses)
        run.save(network, FILES)

Photos and paintings 1 to 18 are trained on. Step n draws from (seed, n) alone, so that a stopped command goes
on, when it is run again, as if it had not been stopped. OUT then holds files named and laid out as released,
`log.jsonl`, and `record.json`, which is written last.
"""

import contextlib
import itertools
import math
import time
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import nn
from tqdm import tqdm

from evaluation import canvas
from evaluation.core.checkpoint import Checkpoint
from evaluation.core.environment import find_device, made_with, peak_memory
from evaluation.core.errors import Finished, UserError
from evaluation.core.files import append_json, digest, file_digest, keep_json_lines, read_json
from evaluation.core.owner import alone
from evaluation.core.record import RECORD, write_record
from evaluation.data.images import CanvasImages
from evaluation.judges.training_data import Labelled, batches, generator, in_memory, order
from style_transfer.core import losses, vgg, weights
from style_transfer.core.images import crops

LOG_STEPS = 20  # between lines of the log
LOG = "log.jsonl"


def weigh(terms: dict[str, torch.Tensor], weights) -> torch.Tensor:
    """Sum of the losses, each times its weight."""
    return sum(weights[name] * term for name, term in terms.items() if weights[name])


def decayed(lr: float, decay: float, step: int) -> float:
    """lr / (1 + decay step), the learning rate of most of the methods."""
    return lr / (1 + decay * step)


class Training:
    """One training, begun or gone on with. Finished if OUT holds its result, UserError if another's."""

    def __init__(self, args):
        self.args, self.settings, self.out = args, args.settings, args.out
        self.device = torch.device(find_device(args.device))
        self.asked = {
            "method": args.method,
            "variant": args.variant,
            "settings": OmegaConf.to_container(args.settings),
            "seed": args.seed,
            "data": args.data,
            "encoder": file_digest(args.encoder) if args.encoder else None,
        }
        self.kept = self.out / ".training.pt"
        self._refuse_or_skip()
        torch.manual_seed(args.seed)

    def _refuse_or_skip(self) -> None:
        if not (self.out / RECORD).exists():
            return
        record = read_json(self.out / RECORD)
        differing = [key for key, value in self.asked.items() if record.get(key) != value]
        if differing:
            raise UserError(
                f"--out {self.out}: holds weights of a training with another {differing[0]}; "
                "choose another folder or remove this one"
            )
        self.kept.unlink(missing_ok=True)  # of a command killed in its last moment
        raise Finished(f"{self.out}: already trained")

    def encoder(self) -> nn.Module:
        """The frozen VGG-19 that the losses see with, on the device; raises UserError for another file."""
        return losses.load_encoder(self.args.encoder).to(self.device)

    def cooled(self, lr: float) -> float:
        """The learning rate of this step; over the last steps, a share `cooldown`, it falls to 0."""
        left, share = 1 - self.number / self.settings.steps, self.settings.cooldown
        return lr * min(1, left / share) if share else lr

    def mirror(self, decoder: nn.Module, widths) -> None:
        """Begins a decoder with the weights of the one beside --encoder, if the setting `mirror` says so."""
        if not self.settings.mirror:
            return
        path = Path(self.args.encoder).with_name(losses.DECODER)
        found = weights.read({losses.DECODER: path}, [losses.DECODER], "the encoder's mirror image")
        mirror = weights.fill(vgg.decoder(widths), found, {losses.DECODER: ""})
        vgg.copy(mirror, decoder)

    def __enter__(self):
        self.lock = contextlib.ExitStack()
        self.lock.enter_context(alone(self.out))
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        return self

    def __exit__(self, kind, error, trace):
        with self.lock:
            if kind is None:
                self.kept.unlink(missing_ok=True)

    def _stream(self, themes, start: int):
        """Endless uint8 batches [B,3,load,load] of images 1 to 18 of the themes."""
        s, objects = self.settings, list(self.args.world.objects)
        images = CanvasImages(self.args.data, itertools.product(themes, objects), canvas.TRAIN, s.load)
        labelled = in_memory(Labelled(images, list(themes), objects, s.load), 4, self.args.workers)
        numbers = order(len(labelled), s.batch, self.args.seed + len(themes), start)
        return batches(labelled, numbers, self.args.workers)

    def batches(self, **state):
        """Yields step, contents and styles [B,3,crop,crop] in [0,1]; `state` is what is kept and resumed."""
        self.checkpoint = Checkpoint(self.kept, digest(self.asked), **state)
        self.seconds, s = 0.0, self.settings
        self.first = self._resume()
        streams = [self._stream(themes, self.first) for themes in ([canvas.PHOTO], self.args.world.styles)]
        began = time.monotonic()
        self.bar = tqdm(
            range(self.first, s.steps), self.args.method, s.steps, initial=self.first, disable=None
        )
        for number in self.bar:
            self.number = number
            torch.manual_seed(self.args.seed * 1_000_003 + number)  # dropout, noise
            chance = generator(self.args.seed, number)
            pair = (crops(next(stream)[0], s.crop, s.flip, chance).to(self.device) for stream in streams)
            yield number, *pair
            if self.checkpoint.due():
                self._check_finite(loss=self.loss)
                self.checkpoint.save(step=number + 1, seconds=self.seconds + time.monotonic() - began)
        self.seconds += time.monotonic() - began

    def step(self, optimizer: torch.optim.Optimizer, loss: torch.Tensor, clip: float = math.inf, **numbers):
        """Gradients of the loss, of a norm of at most `clip`, and a step; every 20th and the last are logged.
        UserError for a loss that is not finite there."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if clip < math.inf:
            nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip)
        optimizer.step()
        self.loss = loss.detach()
        if self.number % LOG_STEPS and self.number + 1 < self.settings.steps:
            return
        line = self._check_finite(loss=loss, **numbers)
        append_json(self.out / LOG, {"step": self.number, **line})
        self.bar.set_postfix(loss=f"{line['loss']:.3f}", refresh=False)

    def _check_finite(self, **numbers) -> dict[str, float]:
        """The numbers rounded, as logged; UserError if one is not finite."""
        line = {name: round(float(torch.as_tensor(value).detach()), 6) for name, value in numbers.items()}
        for name, value in line.items():
            if not math.isfinite(value):
                raise UserError(f"{self.out}: {name} of step {self.number} is {value}; lower lr")
        return line

    def _resume(self) -> int:
        """-> the first step that is to be done."""
        kept = self.checkpoint.resume()
        if not kept:
            (self.out / LOG).unlink(missing_ok=True)
            return 0
        self.seconds = kept["seconds"]
        keep_json_lines(self.out / LOG, lambda line: line.get("step", kept["step"]) < kept["step"])
        return kept["step"]

    def save(self, network: nn.Module, files: dict[str, str]) -> None:
        """Writes the released files, {name: part of the network}, but for the encoder's, and the record."""
        for name, part in files.items():
            if name != losses.ENCODER:
                weights.save_file(self.out / name, network.get_submodule(part), self.settings.half)
        about = {
            "seconds": round(self.seconds, 1),
            "peak_memory_bytes": peak_memory(self.device),
            "stored_bytes": sum((self.out / name).stat().st_size for name in files if name != losses.ENCODER),
            "threads": torch.get_num_threads(),
        }
        write_record(self.out, self.asked | about | made_with(self.device))
