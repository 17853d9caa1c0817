"""A compiled UNet: one graph for all answer sets of a process, blind to no method."""

import importlib
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch._dynamo.utils import counters

from diffusion_model_finetuning.core.drawing import drawing, fill, open_answers
from diffusion_model_finetuning.core.intervention import NOTHING
from diffusion_model_finetuning.core.sd import load_sd
from evaluation import protocol
from evaluation.core.record import read_record
from machine_unlearning.core import cli, weights
from machine_unlearning.sample import intervention
from tests.tiny import METHODS

SMALL = "images=2 walk=2 epochs=1 latents=64 k=3 patches=32 lookup_walk=3 gamma=-100"
QUICK = {  # a method without an intervention, and all that have one
    "uce": [], "spm": ["steps=4", "lr=0.3"], "seot": ["map_size=4"], "saeuron": SMALL.split(),
    "semantic_surgery": ["beta=1"],
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tiny_sd, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for method, words in QUICK.items():
        train, out = importlib.import_module(f"machine_unlearning.{method}.train"), str(root / method)
        train.main(["--target", "Sketch", "--model", str(tiny_sd), "--out", out, "--device", "cpu", *words])
    return root


@pytest.fixture
def traced(monkeypatch):
    """Graphs as they are compiled for a GPU, without the minutes that machine code for them takes."""
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    return lambda: counters["stats"]["unique_graphs"]


def drawn(sd, model: str, root, folder, method: str):
    """Pixels of a run's four answers, drawn three at once; of the base model's if `method` is ''."""
    p = replace(
        protocol.load("mini"), themes=("Rust", "Sketch"), objects=("Cats", "Sea"), targets=(), seeds=(188,),
        steps=3, size=16,
    )  # fmt: skip
    answers = open_answers(folder, p, sd, model, {"method": method} if method else None, 3)
    act = intervention(sd, root / method, read_record(root / method)) if method else NOTHING
    how = drawing(sd, answers, act, even=True)
    assert fill(how, answers) == 4
    return {path.name: np.asarray(Image.open(path)).astype(int) for path in folder.glob("*.png")}


def test_one_graph_for_base_and_runs(tiny_sd, runs, tmp_path, traced):
    """The last block of each is smaller. No graph break either: the whole UNet is one graph or an error."""
    assert {method for method in METHODS if cli.intervenes(method)} < QUICK.keys()
    pictures = {}
    for compiled in (False, True):
        sd = load_sd(tiny_sd)
        model = sd.fingerprint()
        sd.hasten("float32", compiled)
        folder = tmp_path / str(compiled)
        pictures[compiled] = [drawn(sd, model, runs, folder / "base", "")]
        for method in QUICK:
            with weights.swapped(sd, runs / method, model):
                pictures[compiled].append(drawn(sd, model, runs, folder / method, method))
        pictures[compiled].append(drawn(sd, model, runs, folder / "again", ""))
        assert traced() == int(compiled)
    for plain, fast in zip(pictures[False], pictures[True]):
        assert plain.keys() == fast.keys() and all(np.abs(plain[n] - fast[n]).max() <= 1 for n in plain)
    name, (base, *edited, again) = "Sketch_Cats_seed188.png", pictures[True]
    assert all(np.abs(base[name] - run[name]).max() > 1 for run in edited)
    assert np.array_equal(base[name], again[name])
