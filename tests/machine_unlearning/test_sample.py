"""The sampler: the same bytes whatever happens on the way."""

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from evaluation import protocol
from machine_unlearning import sample as sampler
from machine_unlearning.esd import train as esd
from tests import tiny

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def protocol_file(tmp_path_factory):
    small = replace(
        protocol.load("mini"), themes=("Rust", "Sketch"), objects=("Cats", "Sea"), steps=4, size=16
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
    monkeypatch.setattr(sampler, "sample", tiny.interrupt(sampler.sample, 1))
    with pytest.raises(KeyboardInterrupt):
        sampler.main(arguments(out))
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


def test_two_processes(arguments, whole, tmp_path):
    command = [sys.executable, "-m", "machine_unlearning.sample", *arguments(tmp_path / "both")]
    both = [subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert pictures(tmp_path / "both") == whole
    assert not list((tmp_path / "both").glob(".*"))


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
