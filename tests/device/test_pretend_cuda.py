"""The pretended GPU refuses what a GPU would, and notes what it would wait for."""

import subprocess
import sys

import pytest
import torch

from tests.device.worker import ROOT

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(not torch.version.cuda, reason="this torch has no CUDA build"),
]
SCRIPT = """
import torch
from tests.device import pretend_cuda
kept = pretend_cuda.install()
x, layer = torch.ones(2, 2, device="cuda"), torch.nn.Linear(2, 2)

def error(function):
    try:
        function()
    except (RuntimeError, TypeError) as error:
        return str(error)

assert "one device" in error(lambda: x + torch.ones(2, 2))
assert "can't convert cuda:0" in error(x.numpy)
assert "generator" in error(lambda: torch.rand(2, device="cuda", generator=torch.Generator()))
assert "TF32" in error(lambda: layer.to("cuda")(x))
torch.backends.cudnn.allow_tf32 = False
assert error(lambda: layer(x)) is None and layer(x).device.type == "cuda"
with torch.autocast("cuda", torch.bfloat16):
    assert layer(x).dtype == torch.bfloat16 and layer(x).exp().dtype == torch.float
pretend_cuda.forget()
assert "did you call init" in error(lambda: torch.cuda.reset_peak_memory_stats("cuda:0"))
torch.cuda.set_device(0)
torch.cuda.reset_peak_memory_stats("cuda:0")
x.sum().item(), torch.randn_like(x)
assert sorted(kind for kind, *_ in pretend_cuda.seen) == ["rng", "sync"]
"""


def test_faults_and_waits():
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, check=True, timeout=300)
