"""The sampler: the same bytes whatever happens on the way."""

import json
import multiprocessing
import os
import socket
import subprocess
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from diffusion_model_finetuning.core import drawing
from diffusion_model_finetuning.core.sd import load_sd
from evaluation import canvas, protocol
from machine_unlearning import sample as sampler
from machine_unlearning.esd import train as esd
from tests import tiny


@pytest.fixture(scope="module")
def protocol_file(tmp_path_factory):
    small = replace(
        protocol.load("mini"),
        themes=("Rust", "Sketch"),
        objects=("Cats", "Sea"),
        targets=("Sketch",),
        steps=4,
        size=16,
    )
    content = {
        key: list(value) if isinstance(value, tuple) else value for key, value in asdict(small).items()
    }
    path = tmp_path_factory.mktemp("protocol") / "small.yaml"
    OmegaConf.save(OmegaConf.create({key: content[key] for key in content if key != "name"}), path)
    return path


@pytest.fixture
def arguments(tiny_sd, protocol_file):
    def make(out, batch=3, *more):
        texts = [
            "--model",
            tiny_sd,
            "--protocol",
            protocol_file,
            "--out",
            out,
            "--batch",
            batch,
            "--device",
            "cpu",
        ]
        return [*map(str, texts), *map(str, more)]

    return make


def pictures(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


@pytest.fixture
def whole(arguments, tmp_path):
    sampler.main(arguments(tmp_path / "whole"))
    found = pictures(tmp_path / "whole")
    assert len(found) == 8 and len(set(found.values())) == 8  # every cell has a picture of its own
    return found


def test_killed_and_restarted(arguments, whole, tmp_path, monkeypatch):
    out = tmp_path / "again"
    monkeypatch.setattr(drawing, "sample", tiny.interrupt(drawing.sample, 1))
    with pytest.raises(SystemExit) as exit:
        sampler.main(arguments(out))
    assert exit.value.code == 130
    assert len(pictures(out)) == 3
    monkeypatch.undo()
    (out / "Rust_Sea_seed188.png").unlink()
    sampler.main(arguments(out, 2))  # the block size asked for first stays
    assert pictures(out) == whole


def test_another_block_size_stays_within_one_level(arguments, whole, tmp_path):
    sampler.main(arguments(tmp_path / "one", 1))
    for path in (tmp_path / "one").glob("*.png"):
        a, b = (np.asarray(Image.open(file)).astype(int) for file in (path, tmp_path / "whole" / path.name))
        assert np.abs(a - b).max() <= 1, path.name


def logged(arguments, together, log):
    """The sampler as one process of a pool, which begin together; notes every cell before it is drawn."""
    draw, fill = drawing.sample, sampler.fill

    def noted(sd, prompts, cells, *rest):
        with open(log, "a") as file:
            file.write("".join(f"{os.getpid()} {canvas.answer_name(*cell)}\n" for cell in cells))
        return draw(sd, prompts, cells, *rest)

    def at_once(*args):
        together.wait(120)  # all have loaded the model
        fill(*args)

    drawing.sample, sampler.fill = noted, at_once
    sampler.main(arguments)


@pytest.mark.parametrize("left_behind", [False, True])
def test_a_pool_of_four_draws_no_cell_twice(arguments, whole, tmp_path, left_behind):
    """On an empty folder, and on one in which a killed pool has left a claim on every block."""
    out, log = tmp_path / "shared", tmp_path / "log"
    if left_behind:
        out.mkdir()
        with subprocess.Popen(["true"]) as process:
            process.wait()
        for number in range(8):
            (out / f".claim-{number}").write_text(f"{socket.gethostname()} {process.pid}")
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["machine_unlearning.sample"])
    together = processes.Barrier(4)
    pool = [processes.Process(target=logged, args=(arguments(out, 1), together, log)) for _ in range(4)]
    for process in pool:
        process.start()
    for process in pool:
        process.join(120)
    assert [process.exitcode for process in pool] == 4 * [0]
    drawn = [line.split() for line in log.read_text().splitlines()]
    assert sorted(name for _, name in drawn) == sorted(whole)
    assert len({pid for pid, _ in drawn}) > 1  # they did share the work
    assert sum(json.loads(line)["images"] for line in (out / "sampling.jsonl").open()) == len(whole)
    sampler.main(arguments(tmp_path / "alone", 1))
    assert pictures(out) == pictures(tmp_path / "alone") and not list(out.glob(".*"))


def test_a_run_is_sampled_and_not_mixed_with_the_base(tiny_sd, arguments, whole, tmp_path, capsys):
    run = tmp_path / "run"
    texts = ["--target", "Sketch", "--model", tiny_sd, "--out", run, "--device", "cpu"]
    esd.main([*map(str, texts), "steps=1", "walk=2", "batch=1", "size=16", "lr=0.05"])
    sampler.main(arguments(tmp_path / "edited", 3, "--run", run))
    edited = pictures(tmp_path / "edited")
    assert edited.keys() == whole.keys() and edited != whole
    with pytest.raises(SystemExit) as exit:
        sampler.main(arguments(tmp_path / "whole", 3, "--run", run))
    assert exit.value.code == 2 and "another run" in capsys.readouterr().err
    assert pictures(tmp_path / "whole") == whole


def test_base_model_needs_out(tiny_sd, capsys):
    with pytest.raises(SystemExit):
        sampler.main(["--model", str(tiny_sd)])
    assert "--out is missing" in capsys.readouterr().err


def test_what_acts_while_sampling_keeps_its_weights_in_float32(tiny_sd):
    for methods, dtype in ((["uce", "esd"], torch.bfloat16), (["uce", "seot"], torch.float32)):
        sd, runs = load_sd(tiny_sd), {name: {"method": name, "target": "Sketch"} for name in methods}
        sampler.hasten(sd, "bfloat16", False, runs)
        assert sd.unet.conv_in.weight.dtype == dtype
