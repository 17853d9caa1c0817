"""SHS's scores, what it draws anew, and its projection against the conditions of its programme."""

import json
import math

import pytest
import torch
from torch import nn

from diffusion_model_finetuning.core.sd import load_sd
from evaluation.core import config
from machine_unlearning.core import embeddings, params
from machine_unlearning.core.forget import denoising_loss
from machine_unlearning.shs import train as shs
from machine_unlearning.shs import trim
from tests import tiny
from tests.machine_unlearning.test_salun import batch


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path_factory.getbasetemp() / "embeddings")


def unlearn(model, out, *overrides):
    quick = "steps=2 score_steps=2 batch=2 size=16 images=1 retain_images=1 retain_all=false lr=1e-3".split()
    words = ["--target", "Sketch", "--model", str(model), "--out", str(out), "--device", "cpu"]
    shs.main([*words, *quick, *overrides])
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return tiny.weights_of(model), tiny.weights_of(model, out), log


def test_scores(tiny_sd):
    unet = load_sd(tiny_sd).unet
    batches = [batch(unet, seed=i) for i in range(2)]
    scores = trim.sensitivity(unet, batches)
    weights = params.trainable(unet, "full")
    gradients = [torch.autograd.grad(denoising_loss(unet, b), list(weights.values())) for b in batches]
    for (name, weight), g, h in zip(weights.items(), *gradients, strict=True):
        torch.testing.assert_close(scores[name], (weight * (g.abs() + h.abs())).abs().detach())
        assert weight.grad is None


def test_what_is_drawn_anew():
    scores = {"a": torch.arange(6.0).view(2, 3), "b": torch.arange(6.0, 10.0)}
    for keep, above in ((0.0, 10), (0.5, 5), (0.55, 5), (0.9, 1), (1.0, 0)):
        tau = trim.threshold(scores, keep)
        weights = {"a": nn.Parameter(torch.ones(2, 3)), "b": nn.Parameter(torch.ones(4))}
        assert trim.trim(weights, scores, tau, lambda name, weight: torch.zeros_like(weight)) == above
        left = torch.cat([weight.detach().flatten() for weight in weights.values()])
        assert left.tolist() == [1.0] * (10 - above) + [0.0] * above
    same = {"a": torch.ones(8)}
    assert trim.threshold(same, 0.0) == -math.inf and not (same["a"] > trim.threshold(same, 0.5)).any()


def test_new_values():
    weight = torch.zeros(200, 100)

    def draw(name, seed=0):
        return trim.fresh(name, weight, torch.Generator().manual_seed(seed))

    values = draw("attn2.to_q.weight")
    assert abs(values.mean()) < 1e-3 and abs(values.std() - 0.02) < 1e-3
    assert torch.equal(values, draw("attn2.to_q.weight")) and not torch.equal(values, draw("a.weight", 1))
    assert not draw("attn2.to_out.0.bias").any()


@pytest.mark.parametrize("memories", [1, 2, 4])
def test_projection_solves_its_programme(memories):
    """v >= margin; the programme's slope is zero where v is free and not negative where it is not."""
    torch.manual_seed(memories)
    for _ in range(10):
        G, g = torch.randn(memories, 9, dtype=torch.float64), 3 * torch.randn(9, dtype=torch.float64)
        v = shs.multipliers(g, G, 0.5, 1e-3)
        slope = (G @ G.T + 1e-3 * torch.eye(memories)) @ v + G @ g
        free = v > 0.5
        assert (v >= 0.5).all() and (slope > -1e-8).all() and slope[free].abs().sum() < 1e-8
        if memories == 1:
            closed = max(0.5, float(-(G[0] @ g) / (G[0] @ G[0] + 1e-3)))
            assert v.item() == pytest.approx(closed, rel=1e-12)
        torch.testing.assert_close(shs.project(g, G), g + v @ G)


def test_projection_only_where_there_is_a_conflict():
    weights = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(3))]
    G = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0]])
    for sign, conflict in ((1.0, False), (-1.0, True)):
        for weight in weights:
            weight.grad = torch.full_like(weight, sign)
        assert shs.project_gradients(weights, G) == conflict
        g = shs.gradient(weights)
        # what conflicts is taken out, up to the ridge
        assert g[0] == pytest.approx(1.0 if sign > 0 else 0.0, abs=2e-3) and (g[1:] == sign).all()


def test_a_step_against_a_memory_forgets(tiny_sd):
    unet = load_sd(tiny_sd).unet
    weights, b = list(params.trainable(unet, "xattn").values()), batch(unet)
    loss, direction = denoising_loss(unet, b).item(), shs.memory(unet, weights, b)
    with torch.no_grad():
        for weight, part in zip(weights, direction.split([w.numel() for w in weights]), strict=True):
            weight -= part.view_as(weight) * 1e-2
    assert denoising_loss(unet, b) > loss


def test_trimming_alone(tiny_sd, tmp_path, monkeypatch):
    monkeypatch.setitem(config.LIMITS, "steps", (0, math.inf))
    before, after, log = unlearn(tiny_sd, tmp_path / "run", "steps=0", "keep=0.9")
    assert all(params.SCOPES["xattn"](name) for name in tiny.changed(before, after))
    drawn = {name: after[name][before[name] != after[name]] for name in before}
    assert log == [{"trimmed": float(sum(values.numel() for values in drawn.values()))}]
    assert 0 < log[0]["trimmed"] < 0.5 * sum(weight.numel() for weight in before.values())
    assert torch.cat([*drawn.values()]).abs().max() < 0.15


def test_terms_and_projection_of_the_variants(tiny_sd, tmp_path):
    _, _, (_, *log) = unlearn(tiny_sd, tmp_path / "paper", "steps=4", "project_every=2")
    assert all(line["forget"] < 0 < line["retain"] for line in log)  # ascent
    assert {line["projected"] for line in log[1::2]} == {0}
    _, _, (_, *log) = unlearn(tiny_sd, tmp_path / "port", "ascent=false", "project_every=0", "alpha=0.1")
    for line in log:
        assert line["forget"] >= 0 and not line["projected"]
        assert line["loss"] == pytest.approx(line["retain"] + 0.1 * line["forget"], abs=2e-6)


def test_trims_only_what_is_trained(tiny_sd, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        unlearn(tiny_sd, tmp_path / "run", "scope=selfattn")
    assert exit.value.code == 2
    assert "trim_scope=xattn: has weights that scope=selfattn does not train" in capsys.readouterr().err


def test_a_run_projects_what_conflicts(tiny_sd, tmp_path, monkeypatch):
    signs = iter([1.0, -1.0] * 2)  # of a memory and its opposite, one always conflicts

    def memory(unet, weights, batch):
        return torch.full((sum(weight.numel() for weight in weights),), next(signs))

    monkeypatch.setattr(shs, "memory", memory)
    _, projected, log = unlearn(tiny_sd, tmp_path / "projected", "steps=1", "memories=2")
    assert log[-1]["projected"] == 1
    monkeypatch.setattr(shs, "project_gradients", lambda weights, G: False)
    _, unprojected, _ = unlearn(tiny_sd, tmp_path / "unprojected", "steps=1", "memories=2")
    assert tiny.changed(projected, unprojected)
