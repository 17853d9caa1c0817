"""What outputs cost: every process that made some leaves a line in their folder, `costs.jsonl`

    outputs          made, a batch done anew counted anew
    seconds          from the first image read to the last output written, without loading the weights
    seconds_network  of these, within the network: encoding and decoding
    peak_memory      bytes (evaluation.cost), weights and PyTorch included
    stored_bytes     of the files with the weights
    device           the GPU's name, or cpu

Several processes on one CPU slow each other down; their seconds are summed as they were.
"""

import contextlib
import time
from pathlib import Path

import torch

from evaluation.core.environment import device_name, peak_memory, synchronize
from evaluation.core.files import append_json, read_json_lines

FILE = "costs.jsonl"
NUMBERS = ("outputs", "seconds", "seconds_network", "peak_memory", "stored_bytes")  # of a line


class Meter:
    """Runs from when it is made; `outputs` is counted by the one who makes them."""

    def __init__(self, device: torch.device | str):
        self.device = torch.device(device)
        self.outputs, self.seconds_network, self.start = 0, 0.0, time.perf_counter()

    @contextlib.contextmanager
    def network(self):
        """The seconds within are the network's."""
        synchronize(self.device)
        start = time.perf_counter()
        try:
            yield
        finally:
            synchronize(self.device)
            self.seconds_network += time.perf_counter() - start

    def write(self, folder: Path, stored: int) -> None:
        """Adds the line of this process, if it made anything."""
        if not self.outputs:
            return
        seconds = time.perf_counter() - self.start
        numbers = (self.outputs, seconds, self.seconds_network, peak_memory(self.device), stored)
        append_json(folder / FILE, dict(zip(NUMBERS, numbers)) | {"device": device_name(self.device)})


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())


def summed(folder: Path) -> dict:
    """{"cost": of all lines of a folder, seconds an output, the largest memory and storage}; {} without."""
    lines = [line for line in read_json_lines(folder / FILE) if _is_whole(line)]
    if not lines:
        return {}
    outputs = sum(line["outputs"] for line in lines)
    seconds = {key: sum(line[key] for line in lines) / outputs for key in ("seconds", "seconds_network")}
    largest = {key: max(line[key] for line in lines) for key in ("peak_memory", "stored_bytes")}
    devices = sorted({str(line.get("device")) for line in lines})
    return {"cost": {"outputs": outputs} | seconds | largest | {"devices": devices}}


def _is_whole(line: dict) -> bool:
    numbers = [line.get(name) for name in NUMBERS]
    return all(isinstance(number, int | float) and number >= 0 for number in numbers) and numbers[0] > 0
