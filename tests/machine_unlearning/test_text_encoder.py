"""Runs that edit the text encoder: their weights go in and out of the model, and no cache is mistaken."""

import pytest
import torch
from safetensors.torch import save_file

from diffusion_model_finetuning import convert
from diffusion_model_finetuning.core.load import load_run, swapped
from diffusion_model_finetuning.core.sd import load_sd, sample
from evaluation.core.record import write_record
from machine_unlearning.core import embeddings
from machine_unlearning.core.embeddings import cached_embeddings
from machine_unlearning.core.text_encoder import layer, projected
from machine_unlearning.uce import train as uce
from tests import tiny

NAME = "text_encoder.encoder.layers.0.self_attn.out_proj.weight"
PROMPTS = ["A Cats image in Sketch style.", ""]


@pytest.fixture
def run(tiny_sd, tmp_path):
    """One whose text encoder has another matrix in its first layer."""
    sd, folder = load_sd(tiny_sd), tmp_path / "run"
    folder.mkdir()
    save_file({NAME: sd.weights()[NAME].flip(0)}, folder / "weights.safetensors", {"model": sd.fingerprint()})
    record = {
        "method": "toy",
        "target": "Sketch",
        "variant": "mini",
        "settings": {},
        "seed": 0,
        "seconds": {},
    }
    cost = {"peak_memory_bytes": None, "stored_bytes": None}
    write_record(folder, record | cost | {"model": sd.fingerprint()})
    return folder


def test_it_is_loaded_put_in_and_taken_out(tiny_sd, run):
    sd, edited = load_sd(tiny_sd), load_sd(tiny_sd)
    load_run(edited, run)
    assert tiny.changed(sd.weights(), edited.weights()) == {NAME}
    plain = sd.embed(PROMPTS)
    with swapped(sd, run, sd.fingerprint()) as names:
        assert names == [NAME] and torch.equal(sd.embed(PROMPTS), edited.embed(PROMPTS))
        assert not torch.allclose(sd.embed(PROMPTS), plain, atol=1e-3)
    assert torch.equal(sd.embed(PROMPTS), plain)


@pytest.mark.parametrize("name", ["folder", "file.safetensors"])
def test_an_export_has_it(tiny_sd, run, tmp_path, name):
    convert.main([str(tiny_sd), str(tmp_path / name), "--run", str(run)])
    edited, config = load_sd(tiny_sd), None if name == "folder" else tiny_sd
    load_run(edited, run)
    exported = load_sd(tmp_path / name, config=config)
    assert exported.fingerprint() == edited.fingerprint() != load_sd(tiny_sd).fingerprint()
    draw = PROMPTS, [0, 1], 2, 4.0
    assert (sample(exported, *draw) == sample(edited, *draw)).all()


def test_embeddings_are_those_of_the_encoder_in_use(tiny_sd, run, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path / "cache")
    sd, edited = load_sd(tiny_sd), load_sd(tiny_sd)
    load_run(edited, run)
    for model in (sd, edited, sd, edited):  # the second time from the cache
        assert torch.equal(cached_embeddings(model, PROMPTS), model.embed(PROMPTS))
    assert len([*(tmp_path / "cache").glob("text-*")]) == 2


def test_a_method_that_goes_on_from_it_keeps_the_edit(tiny_sd, run, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path / "cache")
    for name, start in (("second", ["--from", str(run)]), ("alone", [])):
        words = [
            "--target",
            "Rust",
            "--model",
            str(tiny_sd),
            "--out",
            str(tmp_path / name),
            "--device",
            "cpu",
        ]
        uce.main([*words, *start])
    base, second, alone = (
        tiny.weights_of(tiny_sd, tmp_path / n if n else n) for n in (None, "second", "alone")
    )
    assert NAME in tiny.changed(base, second) and NAME not in tiny.changed(base, alone)
    assert tiny.changed(second, alone) == tiny.changed(base, second)  # the edit is of other embeddings


def test_a_pass_ends_at_the_projection_that_is_read(tiny_sd):
    sd = load_sd(tiny_sd)
    ids, plain, called = sd.tokens(PROMPTS), sd.embed(PROMPTS), []
    name, last = layer(sd.text_encoder, -1)
    assert (name, last) == layer(sd.text_encoder, 1) and f"text_encoder.{name}.mlp.fc1.weight" in sd.weights()
    last.mlp.register_forward_hook(lambda *_: called.append(1))
    for number in (0, 1):
        received, given = projected(sd.text_encoder, ids, number)
        projection = layer(sd.text_encoder, number)[1].self_attn.out_proj
        torch.testing.assert_close(given, projection(received))
        assert given.shape == plain.shape and not called
    assert torch.equal(sd.embed(PROMPTS), plain) and called
