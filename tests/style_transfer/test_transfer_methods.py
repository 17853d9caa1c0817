"""Every method's command with a narrow network of random weights, from files as its authors released them."""

import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_model_finetuning.scratch import train_tokenizer
from style_transfer import transfer
from tests.style_transfer import blip_release, narrow
from tests.style_transfer.test_networks import build
from tests.style_transfer.test_transfer import FEW, outputs, pixels

ROOT = Path(__file__).parents[2]
METHODS = sorted(path.parent.name for path in ROOT.glob("style_transfer/*/model.py"))
QUICK = {"blip": ["steps=1", "guidance=1"]}
WIDTHS = (4, 5, 6, 8, 8)


def network(method, model):
    if method == "cast":
        return narrow.lively(model.CAST(WIDTHS[:4]))
    if method == "stytr2":
        return visible(narrow.lively(model.StyTr2((4, 5, 6, 16), hidden=24)))
    if method in ("artflow", "mast"):
        return build(method)
    if method in ("sanet", "mccnet", "adaattn"):
        return visible(build(method))
    (kind,) = (k for k in vars(model).values() if inspect.isclass(k) and hasattr(k, "stylise"))
    return visible(narrow.lively(kind(WIDTHS)))


@torch.no_grad()
def visible(network):
    """Changes the decoder's last layer so that images lie in [0,1] instead of being black or white."""
    *_, last = (layer for layer in network.decoder.modules() if isinstance(layer, torch.nn.Conv2d))
    made = network.stylise(*narrow.images())
    last.bias -= made.mean((0, 2, 3))
    for weight in (last.weight, last.bias):
        weight *= 0.15 / made.std()
    last.bias += 0.5
    return network


@pytest.fixture(scope="module", params=METHODS)
def method(request, tmp_path_factory):
    """-> name, folder of its files."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    model = importlib.import_module(f"style_transfer.{name}.model")
    if name == "blip":
        tokenizer = train_tokenizer(["a Cats image, a Sea image", model.OPTIONS["negative"]], 24)
        blip_release.build(folder, blip_release.TINY, tokenizer)
    else:
        for file, state in narrow.released(network(name, model), model.FILES).items():
            torch.save(state, folder / file)
    return name, folder


@pytest.fixture
def run(method, tmp_path, capsys):
    name, folder = method

    def run(*flags, out="out"):
        flags = ["--weights", folder, "--out", tmp_path / out, *flags, *QUICK.get(name, [])]
        code = 0
        try:
            transfer.main([name, *map(str, flags)])
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        return code, outputs(tmp_path / out), said.out + said.err

    return run


def test_benchmark(run):
    flags = ("--data", "mini", *FEW, "--batch", 4, "--limit", 6)
    code, whole, said = run(*flags)
    assert code == 0 and not said and len(whole) == 6
    for made in whole.values():
        assert pixels(made).shape == (64, 64, 3) and pixels(made).std() > 0
    assert len(set(whole.values())) > 3  # of two contents and three references, both matter
    run(*flags[:-1], 1, out="parts")
    assert run(*flags, out="parts")[1] == whole
    single = run(*flags[:-3], 1, *flags[-2:], out="single")[1]
    for name in whole:
        assert np.abs(pixels(single[name]) - pixels(whole[name])).max() <= 1, name


def test_pictures_of_odd_sizes(run, tmp_path):
    random = np.random.default_rng(0)
    for name, size in {"content": (61, 94, 3), "style": (57, 83, 3), "dot": (1, 1, 3)}.items():
        Image.fromarray(random.integers(0, 255, size, np.uint8)).save(tmp_path / f"{name}.png")
    flags = ("--style", tmp_path / "style.png", "--content")
    code, made, _ = run(*flags, tmp_path / "content.png")
    assert code == 0 and pixels(made["style/content.png"]).shape == (61, 94, 3)
    code, made, _ = run(*flags, tmp_path / "dot.png", out="dot")
    assert code == 0 and pixels(made["style/dot.png"]).shape == (1, 1, 3)
    code, made, _ = run(*flags, tmp_path / "content.png", "--dtype", "bfloat16", "--channels-last", out="bf")
    assert code == 0 and len(made) == 1


def test_another_methods_files(run, method, tmp_path):
    _, folder = method
    for path in folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(b"no weights")
    code, made, said = run("--data", "mini", "--weights", tmp_path)
    assert code == 2 and not made and said.startswith("error: ") and said.count("\n") == 1
