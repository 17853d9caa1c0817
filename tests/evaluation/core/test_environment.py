"""By what a number was made."""

import json
import sys

import pytest
import torch

from evaluation.core.environment import find_device, made_with, no_tf32, peak_memory, reset_peak_memory


def test_made_with(monkeypatch):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    assert made_with("cpu")["tf32"] is True
    no_tf32()
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    made = made_with("cpu")
    assert made["tf32"] is False and made["device"] == "cpu"
    assert made["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert json.loads(json.dumps(made)) == made
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)  # a process's own, not of what it makes
    assert made_with(torch.device("cpu")) == made


def test_a_device_becomes_the_current_one_without_tf32(monkeypatch):
    current = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    for name in ("cuda:1", "cuda", "cpu"):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        assert find_device(name) == name and made_with("cpu")["tf32"] is False
    assert current == [1]  # of a kind, the current one stays: a launch gives every process its own


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is counted anew on Linux only")
def test_peak_memory_is_of_what_follows_its_reset():
    torch.ones(100_000_000).sum()  # 400 MB, given back at once
    before = peak_memory("cpu")
    reset_peak_memory("cpu")
    assert peak_memory("cpu") < before - 200e6
    torch.ones(100_000_000).sum()
    assert peak_memory("cpu") > before - 100e6
