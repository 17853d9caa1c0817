"""By what a number was made: commit, libraries, device, precision. Written beside it and never compared."""

import subprocess
from importlib.metadata import version
from pathlib import Path

import torch


def no_tf32() -> None:
    """From here on this process multiplies and convolves float32 numbers as such.

    By default, GPUs round the factors of convolutions to TF32's 10 bits, which moves pixels and features. So
    it is called before images are drawn, judged, or turned into features, and before `made_with`.
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
