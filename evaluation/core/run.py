"""A run folder: seeds, progress bar, log, clocks and, when all went well, the record.

    with Run(args, method="esd", model=fingerprint) as run:
        for _ in run.steps(1000):
            loss.backward()
            run.step(optimizer, loss=loss)

The record is written last. A run that fails or is stopped leaves no record and is simply done again.
"""

import contextlib
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from evaluation.core.environment import find_device, made_with, peak_memory, reset_peak_memory, synchronize
from evaluation.core.errors import Finished, UserError
from evaluation.core.files import append_json
from evaluation.core.owner import alone
from evaluation.core.record import ACTING, RECORD, now, read_record, write_record

LOG = "log.jsonl"


class Run:
    """`args` has target, out, seed, device, variant, settings, model, data, start (earlier run or None; then
    `earlier`, what was asked before)."""

    def __init__(self, args, method: str):
        self.args, self.method = args, method
        self.out, self.device = Path(args.out), torch.device(find_device(args.device))
        settings, start = OmegaConf.to_container(args.settings), str(args.start) if args.start else None
        self.asked = {"method": method, "target": args.target, "variant": args.variant, "settings": settings}
        self.asked |= {"seed": args.seed, "model_path": str(args.model), "data": args.data, "from": start}
        self.asked |= {"earlier": [request._asdict() for request in args.earlier]} if start else {}
        self.model = None  # fingerprint of the base model
        self.results = {}  # what a method finds out beside its weights, JSON-like: goes into the record
        self.finished = read_record(self.out) if (self.out / RECORD).exists() else None
        self._refuse_or_skip()
        random.seed(args.seed)
        np.random.seed(args.seed)  # noqa: NPY002  libraries draw from the global state
        torch.manual_seed(args.seed)
        self.generator = torch.Generator().manual_seed(args.seed)  # a CPU's: the same draws on every device

    def _refuse_or_skip(self):
        """Another path may lead to the same model: then `starts_from` tells whether it does."""
        if not self.finished:
            return
        asked = self.asked | {"model": self.model or self.finished["model"]}
        differing = [k for k, v in asked.items() if k != "model_path" and v != self.finished.get(k)]
        if differing:
            there = f"--out {self.out}: holds a finished run with another {differing[0]}"
            raise UserError(f"{there}; choose another folder or remove this one")
        if self.model or self.finished["model_path"] == str(self.args.model):
            raise Finished(f"{self.out}: already finished")

    def __enter__(self):
        self.out.mkdir(parents=True, exist_ok=True)
        if not self.finished:
            self.locks = contextlib.ExitStack()
            self.locks.enter_context(alone(self.out))
            (self.out / LOG).write_bytes(b"")
        reset_peak_memory(self.device)
        self.started, self.began = time.perf_counter(), None
        return self

    def starts_from(self, model: str) -> None:
        """Told the fingerprint of the base model, now loaded.

        Raises Finished if the folder holds this very run, UserError if it holds another model's.
        """
        self.model = model
        self._refuse_or_skip()

    def begin(self) -> None:
        """Set-up is over: what follows counts as unlearning."""
        synchronize(self.device)
        self.began = time.perf_counter()

    def steps(self, count: int):
        """Begins, and yields 0 ... count - 1 with a progress bar."""
        self.begin()
        self.bar = tqdm(range(count), f"{self.method} {self.args.target}", disable=None)
        yield from self.bar

    def step(self, optimizer: torch.optim.Optimizer, **numbers) -> None:
        """Steps the optimizer, clears the gradients, logs the numbers; a number not finite is a UserError."""
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.note(**numbers)

    def note(self, **numbers) -> None:
        """One line of the log."""
        tensors = {name: value.detach().float() for name, value in numbers.items() if torch.is_tensor(value)}
        read = torch.stack([*tensors.values()]).tolist() if tensors else []  # waits for a GPU once
        line = {name: round(float(value), 6) for name, value in (numbers | dict(zip(tensors, read))).items()}
        append_json(self.out / LOG, line)
        for name, value in line.items():
            if not math.isfinite(value):
                raise UserError(f"{self.out}: {name} is {value}; lower lr, or train in float32")
        if hasattr(self, "bar"):
            self.bar.set_postfix(line, refresh=False)

    def __exit__(self, kind, error, trace):
        if self.finished:
            return
        with self.locks:
            if kind is None:
                self._write_record()

    def _write_record(self) -> None:
        synchronize(self.device)
        ended = time.perf_counter()
        began = self.began or ended
        stored = [*self.out.glob("*.safetensors"), *self.out.glob(f"{ACTING}/*/*.safetensors")]
        record = self.asked | {
            "model": self.model,
            "results": self.results,
            "seconds": {"setup": round(began - self.started, 3), "unlearn": round(ended - began, 3)},
            "peak_memory_bytes": peak_memory(self.device),
            "stored_bytes": sum(path.stat().st_size for path in stored),
            "finished": now(),
        }
        write_record(self.out, record | made_with(self.device) | {"threads": torch.get_num_threads()})
