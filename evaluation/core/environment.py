"""By what a number was made: commit, libraries, device. Written beside it and never compared."""

import subprocess
from importlib.metadata import version
from pathlib import Path

import torch


def made_with(device: torch.device | str) -> dict:
    """For manifests, predictions and records; JSON-like."""
    return {
        "device": device_name(torch.device(device)),
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        "commit": commit(),
    }


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu x {torch.get_num_threads()}"


def commit() -> str | None:
    """The code's git commit, with `+` if files differ from it; None outside a checkout."""
    here = Path(__file__).parent

    def git(*words):
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
