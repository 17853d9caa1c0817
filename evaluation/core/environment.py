"""By what a number was made: commit, libraries, device, precision; what it cost. Never compared."""

import contextlib
import re
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from evaluation.core.errors import UserError


def find_device(name: str | None) -> str:
    """The device of a flag --device, by default a GPU if there is one. Raises UserError.

    From here on it is the process's current one, which libraries take, and computes float32 as such.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if int(index or 0) >= count.get(kind, 0):
        there = ", ".join(kind for kind, number in count.items() if number)
        raise UserError(f"--device {name}: there is no such device here; choose from {there}")
    no_tf32()
    if kind == "cuda" and index:
        torch.cuda.set_device(int(index))
    return name


def no_tf32() -> None:
    """From here on this process multiplies and convolves float32 numbers as such.

    By default, GPUs round the factors of convolutions to TF32's 10 bits, which moves pixels, features and
    weights. `find_device` calls it for every command that has a flag --device.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def made_with(device: torch.device | str) -> dict:
    """For manifests, predictions and records; JSON-like."""
    return {
        "device": device_name(torch.device(device)),
        "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        "commit": commit(),
    }


def device_name(device: torch.device) -> str:
    """A CPU's without its number of threads, which belongs to a process and not to what it makes."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def commit() -> str | None:
    """The code's git commit, with `+` if files differ from it; None outside a checkout."""
    describe = ["git", "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+"]
    options = {"cwd": Path(__file__).parent, "text": True, "stderr": subprocess.DEVNULL}
    try:
        return subprocess.check_output(describe, **options).strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def reset_peak_memory(device: torch.device | str) -> None:
    """What `peak_memory` tells from now on is of what follows."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):  # of Linux
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device | str) -> int:
    """Bytes: the most torch's allocator held on a GPU, or this process's largest resident size on a CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def synchronize(device: torch.device | str) -> None:
    """Waits for the GPU, so that a clock read next tells the truth."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def to_device(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """A tensor of the CPU on a device. A GPU gets it from pinned memory, so that the CPU does not wait."""
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
