"""Trainings and the sampler when they are stopped, started twice, or given a model of no numbers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluation.core import owner
from machine_unlearning.esd import train as esd
from machine_unlearning.uce import train as uce

ROOT = Path(__file__).parent.parent.parent
QUICK = ["walk=3", "batch=2", "size=16"]


def words(model, out, *more):
    return ["--target", "Sketch", "--model", str(model), "--out", str(out), "--device", "cpu", *more]


def start(module, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def stop(process, begun, number):
    """Signals a process that has `begun()`: it says one sentence, at once, and ends."""
    while not begun():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(number)
    began = time.monotonic()
    said = next(line for line in process.stderr if "%|" not in line)
    assert time.monotonic() - began < 2
    assert said == "stopped; the same command, run again, goes on\n"
    assert process.communicate()[1] == "" and process.returncode == 128 + number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_is_stopped_and_done_again(tiny_sd, tmp_path, number):
    run, log = tmp_path / "run", tmp_path / "run/log.jsonl"
    arguments = words(tiny_sd, run, *QUICK, "steps=300")
    process = start("machine_unlearning.esd.train", *arguments)
    stop(process, lambda: log.exists() and log.read_text().count("\n") > 2, number)
    assert [path.name for path in run.iterdir()] == ["log.jsonl"]
    esd.main([*arguments, "steps=2"])
    assert (run / "record.json").exists() and log.read_text().count("\n") == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_sampling_is_stopped_and_goes_on(tiny_sd, tmp_path, number):
    out = tmp_path / "answers"
    drawn = lambda: [*out.glob("[!.]*.png")]  # noqa: E731
    arguments = ["--model", str(tiny_sd), "--out", str(out), "--batch", "2", "--device", "cpu"]
    process = start("machine_unlearning.sample", *arguments)
    stop(process, drawn, number)
    kept = {path: path.read_bytes() for path in drawn()}
    assert not [*out.glob(".*")]
    again = start("machine_unlearning.sample", *arguments)
    stop(again, lambda: len(drawn()) > len(kept) + 2, number)
    assert kept == {path: path.read_bytes() for path in kept}


def test_two_trainings_of_one_folder(tiny_sd, tmp_path, capsys):
    run = tmp_path / "run"
    process = start("machine_unlearning.esd.train", *words(tiny_sd, run, *QUICK, "steps=40"))
    while not (run / "log.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.02)
    with pytest.raises(SystemExit) as exit:
        esd.main(words(tiny_sd, run, *QUICK, "steps=40"))
    assert exit.value.code == 2 and "another process is at work here" in capsys.readouterr().err
    assert process.wait(60) == 0
    assert len((run / "log.jsonl").read_text().splitlines()) == 40
    assert json.loads((run / "record.json").read_text())["settings"]["steps"] == 40
    assert {path.name for path in run.iterdir()} == {"record.json", "log.jsonl", "weights.safetensors"}


def test_a_folder_at_work_is_left_alone(tiny_sd, tmp_path, capsys):
    with owner.alone(tmp_path / "run"):
        (tmp_path / "run/log.jsonl").write_text("{}\n")
        with pytest.raises(SystemExit) as exit:
            uce.main(words(tiny_sd, tmp_path / "run"))
    assert exit.value.code == 2 and "another process is at work here" in capsys.readouterr().err
    assert (tmp_path / "run/log.jsonl").read_text() == "{}\n"


@pytest.mark.parametrize("method, more", [(uce, []), (esd, [*QUICK, "steps=1"])])
def test_a_base_model_of_no_numbers_gives_no_run(method, more, tiny_sd, tmp_path, capsys):
    model = shutil.copytree(tiny_sd, tmp_path / "model")
    path = model / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("attn2.to_k.weight"))
    save_file(tensors | {name: tensors[name] * torch.nan}, path, {"format": "pt"})
    with pytest.raises(SystemExit) as exit:
        method.main(words(model, tmp_path / "run", *more))
    error = capsys.readouterr().err
    assert exit.value.code == 2 and "error: " in error and "nan" in error.lower()
    assert not (tmp_path / "run/record.json").exists()
