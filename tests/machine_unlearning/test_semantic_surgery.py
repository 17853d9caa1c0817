"""Semantic Surgery: its gate against a search by hand, whom it leaves alone, what a chain of runs erases."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from diffusion_model_finetuning.core.intervention import NOTHING
from diffusion_model_finetuning.core.sd import load_sd, sample
from evaluation.core.errors import UserError
from evaluation.core.record import read_record
from machine_unlearning.core import embeddings
from machine_unlearning.esd import train as esd
from machine_unlearning.sample import intervention
from machine_unlearning.semantic_surgery import train
from machine_unlearning.semantic_surgery.gates import Gate, detector
from machine_unlearning.semantic_surgery.intervene import erasing
from machine_unlearning.semantic_surgery.surgery import best_beta, directions, similarity

SKETCH, PLAIN = "A Cats image in Sketch style.", "A Sea image in Rust style."
LOOK = {"steps": 2, "guidance": 3.0, "size": 16}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path_factory.getbasetemp() / "embeddings")


@pytest.fixture
def sd(tiny_sd):
    return load_sd(tiny_sd)


def unlearn(tiny_sd, target, out, *more, method=train):
    words = ["--target", target, "--model", str(tiny_sd), "--out", str(out), "--device", "cpu", *more]
    method.main(words)
    return out


def results(run):
    return json.loads((run / "record.json").read_text())["results"]


def gate_for(sd, target, text, prompts, opens):
    """A gate that is open for prompts `opens` among `prompts`, on the most similar of which it is set."""
    look = lambda beta: detector(sd, [Gate(target, text, {text: beta})], 1.0)  # noqa: E731
    a = torch.logit(look(0.0)(sd.embed(prompts)))[:, 0]
    middle = (a[opens].min() + a[~opens].max()) / 2 if opens.any() else a.max() + 0.01
    return Gate(target, text, {text: -middle.item()})


def test_best_beta_is_that_of_a_search():
    """At every middle between two neighbours, by counting."""
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        a = torch.randn(30, generator=generator).mul(5).round() / 5  # some alike
        shown = torch.rand(30, generator=generator) < 0.3
        shown[:2] = torch.tensor([True, False])
        levels = a.double().unique()
        middles, widths = (levels[1:] + levels[:-1]) / 2, levels.diff()
        right = torch.stack(
            [((a > t)[shown].sum() * (~shown).sum() + (a <= t)[~shown].sum() * shown.sum()) for t in middles]
        )
        beta, accuracy = best_beta(a, shown)
        best = right == right.max()
        assert -beta == pytest.approx(middles[best][widths[best].argmax()].item())
        assert accuracy == pytest.approx(right.max().item() / (2 * shown.sum() * (~shown).sum()).item())
    assert best_beta(torch.tensor([0.0, 1.0]), torch.tensor([False, True])) == (-0.5, 1.0)
    for a, shown in (([1.0, 1.0], [True, False]), ([0.0, 1.0], [True, True]), ([0.0, 1.0], [False, False])):
        with pytest.raises(ValueError):
            best_beta(torch.tensor(a), torch.tensor(shown))


def test_similarity_knows_no_start_token_and_no_scale():
    text, concepts, neutral = torch.randn(2, 5, 4), torch.randn(3, 5, 4), torch.randn(5, 4)
    d = directions(concepts, neutral)
    assert (d[:, 0] == 0).all() and torch.equal(d[:, 1:], (concepts - neutral)[:, 1:])
    a = similarity(text, d)
    text[:, 0] = 7.0
    torch.testing.assert_close(similarity(3 * text, 2 * d), a)
    parallel = similarity(d[:1], d[:1])  # all positions but the first
    torch.testing.assert_close(parallel, torch.tensor([[4 / 5]]))


def test_only_rows_that_open_a_gate_change(sd):
    prompts = [PLAIN, SKETCH, "A Trees image.", SKETCH]
    opens = torch.tensor([False, True, False, True])
    gate = gate_for(sd, "Sketch", "Cats image in Sketch", prompts, opens)
    act, ids = erasing(sd, [gate], 1e-4, 0.5, 1.0), sd.tokens(prompts)
    text = sd.embed(ids)
    new = act.text(ids, text)
    assert [not torch.equal(a, b) for a, b in zip(new, text)] == opens.tolist() == act.touches(ids).tolist()
    away = directions(sd.embed([gate.concept]), sd.embed([""])[0])[0]
    torch.testing.assert_close(new[opens], text[opens] - away)
    torch.testing.assert_close(act.text(ids[1:2], text[1:2]), new[1:2])
    images, plain = (sample(sd, prompts, range(4), **LOOK, intervention=what) for what in (act, NOTHING))
    assert [not np.array_equal(a, b) for a, b in zip(images, plain, strict=True)] == opens.tolist()
    for scale in (0.0, 2.0):
        scaled = erasing(sd, [gate], 1e-4, 0.5, scale).text(ids, text)
        torch.testing.assert_close(scaled[opens], text[opens] - scale * away)


def test_concepts_that_are_there_are_subtracted_as_one_text(sd):
    ids = sd.tokens([SKETCH])
    text, gates = sd.embed(ids), [Gate(name, name, {name: 1.0}) for name in ("Sketch", "Rust", "Cats")]
    shut = gates[1]._replace(signs={"Rust": -1.0})
    new = erasing(sd, [gates[0], shut, gates[2]], 1e-4, 0.5, 1.0).text(ids, text)
    away = directions(sd.embed(["Sketch, Cats"]), sd.embed([""])[0])[0]
    torch.testing.assert_close(new[0], text[0] - away)


def test_a_pair_needs_both_of_its_signs(sd):
    """The presence of the least present one."""
    text = sd.embed([SKETCH, PLAIN])
    both = detector(sd, [Gate("Sketch+Cats", "x", {"Sketch style": 0.1, "A Cats": -0.2})], 0.5)(text)
    each = [
        detector(sd, [Gate("x", "x", {sign: beta})], 0.5)(text)
        for sign, beta in (("Sketch style", 0.1), ("A Cats", -0.2))
    ]
    torch.testing.assert_close(both, torch.minimum(*each))


def test_gradients_go_through_the_strength_and_stop_at_a_shut_gate(sd):
    ids, weight = sd.tokens([SKETCH]), torch.randn(1, sd.tokenizer.model_max_length, 16).double()
    # gamma of 1: a strength that moves with the embedding
    act = erasing(sd, [Gate("x", "Sketch style", {"Sketch style": 0.5})], 1.0, 0.5, 1.0)
    text = sd.embed(ids).requires_grad_()
    loss = lambda e: (act.text(ids, e).double() * weight).sum()  # noqa: E731
    (gradient,) = torch.autograd.grad(loss(text), text)
    assert not torch.allclose(gradient.double(), weight, atol=1e-3)  # that of a constant edit
    step = 0.01 * torch.randn_like(text)
    slope = (loss(text.detach() + step) - loss(text.detach() - step)) / 2
    torch.testing.assert_close((gradient * step).sum().double(), slope, rtol=0.01, atol=1e-3)
    shut = erasing(sd, [Gate("x", "Sketch style", {"Sketch style": -1.0})], 0.1, 0.5, 1.0)
    assert shut.text(ids, text) is text


def test_a_run_is_a_record_with_its_betas(tiny_sd, sd, tmp_path):
    run = unlearn(tiny_sd, "Sketch,Rust", tmp_path / "run")
    assert load_file(run / "weights.safetensors") == {}
    told = results(run)
    assert told.keys() == {"balanced_accuracy", "gates", "cells"}
    assert [gate["target"] for gate in told["gates"]] == ["Sketch", "Rust"]
    act, world = (
        intervention(sd, run, read_record(run)),
        train.parse(["--target", "Sketch", "--out", "o"])[0].world,
    )
    cells = [(theme, obj) for theme in world.themes for obj in world.objects]
    fires = act.touches(sd.tokens([world.prompt(*cell) for cell in cells])).tolist()
    shown = [theme in ("Sketch", "Rust") for theme, _ in cells]
    counted = {"shown": sum(shown), "shown_fired": sum(f and s for f, s in zip(fires, shown))}
    counted |= {
        "others": len(cells) - sum(shown),
        "others_fired": sum(f and not s for f, s in zip(fires, shown)),
    }
    assert told["cells"] == counted


def test_a_beta_that_is_given_is_taken(tiny_sd, tmp_path):
    run = unlearn(tiny_sd, "Sketch", tmp_path / "run", "--variant", "published")
    assert results(run)["gates"] == [{"target": "Sketch", "concept": "Sketch", "signs": {"Sketch": -0.3}}]
    assert "balanced_accuracy" not in results(run)
    run = unlearn(tiny_sd, "Sketch+Cats", tmp_path / "pair", "beta=1")
    assert results(run)["gates"][0]["signs"] == {"Sketch style": 1.0, "A Cats": 1.0}
    assert results(run)["cells"] == {"shown": 1, "shown_fired": 1, "others": 109, "others_fired": 109}


def test_the_targets_of_a_chain_with_their_own_betas(tiny_sd, tmp_path):
    quick = ["steps=1", "walk=2", "batch=1", "size=16", "lr=0.05"]
    first = unlearn(tiny_sd, "Winter", tmp_path / "esd", *quick, method=esd)
    second = unlearn(tiny_sd, "Sketch", tmp_path / "second", "--from", str(first), "beta=0.25")
    third = unlearn(tiny_sd, "Cats", tmp_path / "third", "--from", str(second))
    gates = results(third)["gates"]
    assert [gate["target"] for gate in gates] == ["Sketch", "Cats"]
    assert gates[0]["signs"] == {"Sketch style": 0.25}
    again = unlearn(tiny_sd, "Sketch", tmp_path / "again", "--from", str(third), "beta=0.5")
    assert [gate["signs"] for gate in results(again)["gates"]] == [{"Sketch style": 0.5}, gates[1]["signs"]]
    trained = load_file(first / "weights.safetensors")
    for run in (second, third, again):
        stored = load_file(run / "weights.safetensors")
        assert stored.keys() == trained.keys() and all(torch.equal(stored[n], trained[n]) for n in stored)


def test_concepts_are_embedded_by_the_encoder_in_use(sd, tiny_sd):
    gate = Gate("Sketch", "Sketch style", {"Sketch style": 0.0})
    before = detector(sd, [gate], 0.1)(sd.embed([SKETCH]))
    sd.weights()["text_encoder.encoder.layers.0.self_attn.out_proj.weight"].mul_(-20)
    after = detector(sd, [gate], 0.1)(sd.embed([SKETCH]))
    assert not torch.allclose(before, after, atol=1e-3)


def test_what_cannot_be_is_refused(tiny_sd, sd, tmp_path, capsys):
    for words, message in (
        (["signs=[style]"], "signs: 'style' names no part of Sketch"),
        (["beta=7"], "beta=7: "),
    ):
        with pytest.raises(SystemExit) as exit:
            unlearn(tiny_sd, "Sketch", tmp_path / "run", *words)
        assert exit.value.code == 2 and message in capsys.readouterr().err
    run = unlearn(tiny_sd, "Sketch", tmp_path / "run")
    record = json.loads((run / "record.json").read_text())
    gate = record["results"]["gates"][0]
    for changes in ({"results": {}}, *({"results": {"gates": gates}} for gates in (
        [], [{}], [gate | {"signs": {}}], [gate | {"signs": {"Sketch style": "1"}}], [gate | {"concept": 3}],
    ))):  # fmt: skip
        (run / "record.json").write_text(json.dumps(record | changes))
        with pytest.raises(UserError, match=r"record\.json: damaged \(its gates\); remove the run"):
            intervention(sd, run, read_record(run))
