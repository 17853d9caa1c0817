"""Ctrl-C and SIGTERM end a command in one sentence, within seconds, and leave no process behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
WEIGHTS = ROOT / "checkpoints/mini/style_transfer/sanet"
LARGE = ["load=2900", "crop=32", "batch=1"]  # too large to be kept: workers read all the time


def children(process):
    return psutil.Process(process.pid).children(recursive=True)


def stopped(module, words, ready, number, whole_group, tmp_path):
    """Sends the signal when the command is `ready(process)` -> what it says."""
    command = [sys.executable, "-m", f"style_transfer.{module}", "sanet", *map(str, words)]
    command += ["--device", "cpu", "--out", str(tmp_path / "out")]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        end = time.monotonic() + 120
        while not ready(process):
            assert process.poll() is None and time.monotonic() < end, process.stderr.read()
            time.sleep(0.05)
        below, began = children(process), time.monotonic()
        os.killpg(process.pid, number) if whole_group else process.send_signal(number)
        said = process.stderr.readline()
        assert time.monotonic() - began < 2, said
        said += process.communicate(timeout=30)[1]
        assert process.returncode == CODES[number], said
        _, alive = psutil.wait_procs(below, timeout=3)
        assert not alive
    finally:
        process.kill()
    return said


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_painting(number, tmp_path):
    words = ["--weights", WEIGHTS, "--data", "mini", "--batch", "2"]
    said = stopped("transfer", words, lambda _: list(tmp_path.glob("out/*/*.png")), number, False, tmp_path)
    assert said == "stopped; the same command, run again, goes on\n"


@pytest.mark.parametrize("whole_group", [False, True])
@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_training(number, whole_group, tmp_path):
    words = ["--data", "mini", "steps=100000", *LARGE]
    said = stopped(
        "train", words, lambda _: (tmp_path / "out/log.jsonl").exists(), number, whole_group, tmp_path
    )
    assert said == "stopped; the same command, run again, goes on\n"


def test_while_modules_are_imported(tmp_path):
    words = ["--weights", WEIGHTS, "--data", "mini"]

    def importing(process):
        return any("torch" in mapped.path for mapped in psutil.Process(process.pid).memory_maps())

    said = stopped("transfer", words, importing, signal.SIGTERM, False, tmp_path)
    assert said.startswith("stopped; ") and said.count("\n") == 1
