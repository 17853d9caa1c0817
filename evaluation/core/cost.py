"""What something costs: seconds, bytes of memory, bytes on disk."""

import resource
import sys
from pathlib import Path

import torch


def peak_memory(device: torch.device | str) -> int:
    """Bytes: the most torch's allocator held on a GPU, or this process's largest resident size on a CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def stored(folder: str | Path) -> int:
    """Bytes of the weights that one request adds to disk; its log and record are left out."""
    return sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))


def synchronize(device: torch.device | str) -> None:
    """Waits for the GPU, so that a clock read next tells the truth."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
