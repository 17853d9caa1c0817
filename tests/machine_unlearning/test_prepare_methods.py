"""prepare.py of every method that has one: what it makes once is what a training would make itself."""

import importlib

import pytest

from evaluation.core.errors import UserError
from machine_unlearning.ca import prepare as ca
from machine_unlearning.core import cli, embeddings, generated
from machine_unlearning.sa import fisher
from machine_unlearning.sa import prepare as sa
from machine_unlearning.saeuron import activations, selection
from tests import tiny

PREPARED = sorted(path.parent.name for path in cli.METHODS.glob("*/prepare.py"))
QUICK = {
    "ca": ["images=4", "walk=2", "size=16", "steps=1", "batch=2"],
    "sa": ["images=4", "surrogates=2", "times=2", "walk=2", "size=16", "steps=1", "batch=2"],
    "saeuron": "images=4 walk=2 epochs=1 latents=64 k=3 patches=32 lookup_walk=2".split(),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path / "cache")


def run(method, command, model, *words):
    main = importlib.import_module(f"machine_unlearning.{method}.{command}").main
    main(["--model", str(model), "--device", "cpu", *words, *QUICK[method]])


@pytest.mark.parametrize("method", PREPARED)
def test_trainings_draw_nothing_after_it(method, tiny_sd, tmp_path, monkeypatch):
    run(method, "prepare", tiny_sd, "--target", "Sketch,Rust,Cats")
    content = {path: path.read_bytes() for path in tmp_path.rglob("cache/**/*") if path.is_file()}
    makers = ((generated, "sample"), (fisher, "save_part"), (activations, "walk"), (selection, "walk"))
    for module, name in makers:
        monkeypatch.setattr(module, name, tiny.interrupt(getattr(module, name), 0))
    run(method, "prepare", tiny_sd, "--target", "Sketch,Rust,Cats")
    for target in ("Sketch", "Rust"):
        run(method, "train", tiny_sd, "--target", target, "--out", str(tmp_path / target))
    assert {path: path.read_bytes() for path in content} == content
    monkeypatch.undo()
    monkeypatch.setattr(embeddings, "CACHE", tmp_path / "other")
    run(method, "train", tiny_sd, "--target", "Rust", "--out", str(tmp_path / "alone"))
    rust, alone = (
        {p.name: p.read_bytes() for p in (tmp_path / n).glob("*.safetensors")} for n in ("Rust", "alone")
    )
    assert rust == alone


def test_what_is_shared(tiny_sd):
    words = ["--model", str(tiny_sd)]
    for prepare, count in ((ca, 1), (sa, 1)):
        *_, shared = prepare.parse([*words, "--target", "Sketch,Cats,Rust"])
        assert len(shared) == count and all("Photo" in prompt for prompt in shared[0][1])
        assert not prepare.parse([*words, "--target", "Sketch,Cats,Towers"])[-1]
        assert prepare.parse(words)[-1] == shared  # the protocol's targets


def test_settings_are_checked(tiny_sd):
    words = ["--model", str(tiny_sd), "--target"]
    with pytest.raises(UserError, match="did you mean Sketch"):
        ca.parse([*words, "Skecth"])
    with pytest.raises(UserError, match="walk=0"):
        sa.parse([*words, "Sketch", "walk=0"])


def test_the_model_of_an_earlier_run_has_its_own(tiny_sd, tmp_path):
    run("ca", "train", tiny_sd, "--target", "Mosaic", "--out", str(tmp_path / "first"))
    run("ca", "prepare", tiny_sd, "--target", "Sketch,Rust")
    sets = {path.name for path in (tmp_path / "cache").glob("images-*")}
    run("ca", "prepare", tiny_sd, "--target", "Sketch,Rust", "--from", str(tmp_path / "first"))
    later = {path.name for path in (tmp_path / "cache").glob("images-*")}
    assert len(later) == len(sets) + 1
