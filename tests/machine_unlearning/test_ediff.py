"""EDiff's multiplier, its gradient, and what its two phases leave behind."""

import json
import math
from itertools import pairwise

import pytest
import torch

from evaluation.core import config
from machine_unlearning.core import embeddings
from machine_unlearning.ediff import train as ediff
from tests import tiny


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path_factory.getbasetemp() / "embeddings")


def unlearn(model, out, *overrides):
    quick = "steps=2 batch=2 size=16 images=1 retain_images=1 retain_all=false lr=1e-3".split()
    words = ["--target", "Sketch", "--model", str(model), "--out", str(out), "--device", "cpu"]
    ediff.main([*words, *quick, *overrides])
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return tiny.weights_of(model), tiny.weights_of(model, out), log


def test_multiplier():
    assert ediff.multiplier("constant", -3.0, 1.0, 2.0, 0.1, 0.7) == 0.7
    for kind in ("bome", "cosine"):
        assert ediff.multiplier(kind, 0.0, 1.0, 2.0, 0.1, 0.7) == 0.1  # orthogonal
        assert ediff.multiplier(kind, 2.0, 1.0, 2.0, 0.1, 0.7) == 0.0  # keeping forgets already
        assert ediff.multiplier(kind, 0.0, 1.0, 0.0, 0.1, 0.7) == 0.0  # nothing to forget
    assert ediff.multiplier("bome", -2.0, 1.0, 2.0, 0.1, 0.7) == pytest.approx(0.1 + 2 / 4)
    assert ediff.multiplier("cosine", -2.0, 1.0, 2.0, 0.1, 0.7) == pytest.approx(0.1 + 2 / 2)


def test_gradient_and_the_promise_of_bome():
    """<r + lambda q, q> >= eta |q|^2, with equality wherever lambda is positive."""
    torch.manual_seed(0)
    w = [torch.randn(3, 4, requires_grad=True), torch.randn(2, requires_grad=True)]
    for _ in range(20):
        a, b = ([torch.randn_like(x) for x in w] for _ in range(2))
        retain, forget = (sum((x * y).sum() for x, y in zip(w, side)) for side in (a, b))
        strength = ediff.ediff_gradient(w, retain, forget, "bome", 0.1, 0.0)
        products = ediff.inner_product(b, b), ediff.inner_product([x.grad for x in w], b)
        square, got = (product.item() for product in products)
        promised = 0.1 * square
        assert got == pytest.approx(promised, rel=1e-4, abs=1e-4) if strength else got > promised
        retain, forget = (sum((x * y).sum() for x, y in zip(w, side)) for side in (a, b))
        ediff.ediff_gradient(w, retain, forget, "constant", 0.0, 0.7)
        for x, r, q in zip(w, a, b):
            torch.testing.assert_close(x.grad, r + 0.7 * q)


def test_inner_steps_are_undone(tiny_sd, tmp_path, monkeypatch):
    monkeypatch.setitem(config.LIMITS, "steps", (0, math.inf))
    before, after, log = unlearn(tiny_sd, tmp_path / "run", "steps=0", "inner_steps=3")
    assert not tiny.changed(before, after)
    assert [set(line) for line in log] == [{"inner"}] * 3


def test_phases_of_the_port(tiny_sd, tmp_path):
    """Two passes an epoch, both from the epoch's start; the logged loss is f + lambda (g - v)."""
    phases = "epochs=2 passes=2 inner_steps=2 steps=1 multiplier=constant alpha=0.5".split()
    before, after, log = unlearn(tiny_sd, tmp_path / "run", *phases)
    assert tiny.changed(before, after)
    assert ["inner" in line for line in log] == [True, True, False] * 4
    for i in range(2, 12, 3):
        v = (log[i - 2]["inner"] + log[i - 1]["inner"]) / 2
        expected = log[i]["retain"] + 0.5 * (log[i]["forget"] - v)
        assert log[i]["loss"] == pytest.approx(expected, abs=3e-6)
        assert log[i]["multiplier"] == 0.5


def test_a_pass_starts_where_the_epoch_did(tiny_sd, tmp_path, monkeypatch):
    starts = []

    def restore(trained, start):
        starts.append([value.clone() for value in start])
        real(trained, start)
        assert all(torch.equal(weight, value) for weight, value in zip(trained, start))

    real = ediff.restore
    monkeypatch.setattr(ediff, "restore", restore)
    unlearn(tiny_sd, tmp_path / "run", *"epochs=2 passes=2 inner_steps=1 steps=1".split())
    same = [all(torch.equal(a, b) for a, b in zip(*pair)) for pair in pairwise(starts)]
    assert same == [True, False, True]


def test_unknown_multiplier(tiny_sd, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        unlearn(tiny_sd, tmp_path / "run", "multiplier=cosin")
    assert exit.value.code == 2 and "multiplier=cosin" in (error := capsys.readouterr().err)
    assert "did you mean cosine" in error and not (tmp_path / "run").exists()
