"""One step of each diffusers training script on Stable Diffusion 1.5's exact architecture, on a CPU in 24 GB.

Run by `bash scripts/smoke_sd15.sh training`.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.full_size import MEMORY

REPOSITORY = Path(__file__).parent.parent.parent
CODE = """
import importlib, sys
from evaluation.core import environment
importlib.import_module(sys.argv[1]).main(sys.argv[2:])
print(environment.peak_memory("cpu"))
"""


@pytest.mark.sd15
@pytest.mark.parametrize("script, channels", [("train_sd", 4), ("train_ip2p", 8)])
def test_one_training_step_at_full_size(script, channels, sd15, tmp_path):
    """In a process of its own, so that the memory measured is the script's."""
    settings = ["steps=1", "batch=1", "accumulate=1", "precision=no", "gradient_checkpointing=true"]
    settings += ["size=64", "per_object=1", "flip=false", "workers=0", "log_every=1"]
    words = ["--settings", "sd15", "--model", sd15, "--data", "mini", "--out", tmp_path, "--device", "cpu"]
    command = [
        sys.executable,
        "-c",
        CODE,
        f"diffusion_model_finetuning.{script}",
        *map(str, words),
        *settings,
    ]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    peak = int(done.stdout.split()[-1])
    print(f"{script}: {peak / 1e9:.1f} GB")
    assert peak < MEMORY
    with safe_open(tmp_path / "unet/diffusion_pytorch_model.safetensors", "pt") as unet:
        assert unet.get_slice("conv_in.weight").get_shape() == [320, channels, 3, 3]
    (line,) = (tmp_path / f".training/{script.removeprefix('train_')}.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 1
