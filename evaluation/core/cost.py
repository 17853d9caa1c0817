"""What something costs: seconds and bytes of memory."""

import resource
import sys

import torch


def peak_memory(device: torch.device | str) -> int:
    """Bytes: the most torch's allocator held on a GPU, or this process's largest resident size on a CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def synchronize(device: torch.device | str) -> None:
    """Waits for the GPU, so that a clock read next tells the truth."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
