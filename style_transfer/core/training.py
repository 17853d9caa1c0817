"""What the trainings of all methods share: flags, batches, bookkeeping. Losses and loop are the method's.

    python -m style_transfer.METHOD.train --data DATA|mini --out DIR [--variant canvas|mini] [steps=1000 ...]

    with Training(args) as run:
        for step, content, style in run.batches(network=network, optimizer=optimizer):
            losses = ...
            run.step(optimizer, weigh(losses, s.weights), **losses)
        run.save(network, FILES)

Photos and paintings 1 to 18 are trained on. Step n draws from (seed, n) alone, so that a stopped command goes
on, when it is run again, as if it had not been stopped. OUT then holds files named and laid out as released,
`log.jsonl`, and `record.json`, which is written last.
"""

import argparse
import itertools
import json
import math
import time
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import nn
from tqdm import tqdm

from evaluation import canvas
from evaluation.core.checkpoint import Checkpoint
from evaluation.core.config import override
from evaluation.core.environment import commit, device_name, peak_memory
from evaluation.core.errors import Finished, UserError
from evaluation.core.files import digest, file_digest
from evaluation.core.record import RECORD, read_record, write_record
from evaluation.data.images import CanvasImages
from evaluation.judges.training_data import Labelled, batches, generator, in_memory, order
from style_transfer import protocol as protocols
from style_transfer.core import losses, vgg, weights
from style_transfer.core.images import crops

LOG_STEPS = 20  # between lines of the log
ENCODER = {True: "checkpoints/mini/style_transfer/vgg_normalised.pth", False: None}  # whether it is mini


def parse(doc: str, train_file: str, argv=None) -> argparse.Namespace:
    """The flags, `method` (the folder's name) and `settings`: `canvas` of its config.yaml, and what `mini`
    says instead. Raises UserError for an unknown setting."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the weights to write")
    parser.add_argument("--data", default="mini", help="folder {style}/{object}/{number}.jpg, or mini")
    parser.add_argument("--encoder", help="normalised VGG-19 (default: the miniature's for its data)")
    parser.add_argument("--variant", choices=["canvas", "mini"], help="default: mini for --data mini")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that read images (2)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of config.yaml to change")
    args = parser.parse_intermixed_args(argv)
    mini = args.data.partition(":")[0] == "mini"
    args.method = Path(train_file).parent.name
    args.variant = args.variant or ("mini" if mini else "canvas")
    args.encoder = args.encoder or ENCODER[args.variant == "mini"]
    args.world = protocols.load("transfer-mini" if mini else "transfer")
    config = OmegaConf.load(Path(train_file).parent / "config.yaml")
    settings = OmegaConf.merge(config.canvas, config[args.variant])
    args.settings = override(settings, args.overrides)
    return args


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
        self.device = torch.device(args.device)
        self.asked = {
            "method": args.method,
            "variant": args.variant,
            "settings": OmegaConf.to_container(args.settings),
            "seed": args.seed,
            "data": args.data,
            "encoder": file_digest(self._encoder()) if args.encoder else None,
        }
        if (self.out / RECORD).exists():
            record = read_record(self.out)
            differing = [key for key, value in self.asked.items() if record.get(key) != value]
            if differing:
                raise UserError(
                    f"--out {self.out}: holds weights of a training with another {differing[0]}; "
                    "choose another folder or remove this one"
                )
            raise Finished(f"{self.out}: already trained")
        if self.settings.crop > self.settings.load:
            raise UserError(f"crop={self.settings.crop}: the images are smaller, load={self.settings.load}")
        self.kept = self.out / ".training.pt"
        torch.manual_seed(args.seed)

    def _encoder(self) -> Path:
        path = Path(self.args.encoder or "")
        if not path.is_file():
            raise UserError(
                f"--encoder {path}: no such file; give vgg_normalised.pth, or train the miniature's with "
                "python -m style_transfer.train_encoder"
            )
        return path

    def encoder(self) -> nn.Module:
        """The frozen VGG-19 that the losses see with, on the device; raises UserError."""
        if not self.args.encoder:
            raise UserError("--encoder: name the file vgg_normalised.pth that the method's authors released")
        return losses.load_encoder(self._encoder()).to(self.device)

    def cooled(self, lr: float) -> float:
        """The learning rate of this step; over the last steps, a share `cooldown`, it falls to 0."""
        left, share = 1 - self.number / self.settings.steps, self.settings.cooldown
        return lr * min(1, left / share) if share else lr

    def mirror(self, decoder: nn.Module, widths) -> None:
        """Begins a decoder with the weights of the one beside --encoder, if the setting `mirror` says so."""
        if not self.settings.mirror:
            return
        path = self._encoder().parent / losses.DECODER
        found = weights.read({losses.DECODER: path}, [losses.DECODER], "the encoder's mirror image")
        mirror = weights.fill(vgg.decoder(widths), found, {losses.DECODER: ""})
        vgg.copy(mirror, decoder)

    def __enter__(self):
        self.out.mkdir(parents=True, exist_ok=True)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        return self

    def __exit__(self, kind, error, trace):
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
        with open(self.out / "log.jsonl", "a" if self.first else "w", buffering=1) as self.log:
            for number in self.bar:
                self.number = number
                torch.manual_seed(self.args.seed * 1_000_003 + number)  # dropout, noise
                chance = generator(self.args.seed, number)
                pair = (crops(next(stream)[0], s.crop, s.flip, chance).to(self.device) for stream in streams)
                yield number, *pair
                if self.checkpoint.due():
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
        if self.number % LOG_STEPS and self.number + 1 < self.settings.steps:
            return
        line = {"step": self.number, "loss": loss, **numbers}
        line = {name: round(float(torch.as_tensor(value).detach()), 6) for name, value in line.items()}
        if not all(map(math.isfinite, line.values())):
            raise UserError(f"{self.out}: the loss of step {self.number} is not finite; lower lr")
        self.log.write(json.dumps(line) + "\n")
        self.bar.set_postfix(loss=f"{line['loss']:.3f}", refresh=False)

    def _resume(self) -> int:
        kept = self.checkpoint.resume()
        if not kept:
            return 0
        self.seconds = kept["seconds"]
        log = self.out / "log.jsonl"
        lines = [line for line in log.read_text().splitlines(True) if json.loads(line)["step"] < kept["step"]]
        log.write_text("".join(lines))
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
            "device": device_name(self.device),
            "threads": torch.get_num_threads(),
            "commit": commit(),
        }
        write_record(self.out, self.asked | about)
