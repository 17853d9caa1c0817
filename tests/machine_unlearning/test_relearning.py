"""Relearning: what is tuned, on which images, and that the model is what it was afterwards."""

import pytest
import torch

from diffusion_model_finetuning.core.intervention import NOTHING, Intervention
from evaluation import canvas
from evaluation.probes import Relearning
from machine_unlearning.core import relearning
from tests.machine_unlearning.test_evaluate_runs import protocol_file

SKETCH = canvas.parse_targets("Sketch")


@pytest.fixture
def probe(tmp_path, own_cache):
    rates = {"lora": 0.01, "full": 0.001}
    world = protocol_file(tmp_path)
    return Relearning("small", world, (188,), (0, 3), ("lora", "full"), 2, rates, 4, (1, 3), 1)


def state(sd):
    return {name: weight.clone() for name, weight in sd.unet.state_dict().items()}


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_the_model_is_asked_after_every_budget_and_is_then_what_it_was(sd, probe, weights):
    before, x = state(sd), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text, predicted = sd.embed(["Cats"]), []
    with torch.no_grad():
        predicted.append(sd.unet(x, 500, text).sample)
    names = []
    for name in relearning.relearned(sd, NOTHING, probe, SKETCH, "mini", 3, weights):
        names.append(name)
        with torch.no_grad():
            predicted.append(sd.unet(x, 500, text).sample)
    assert names == [f"3 {weights} 1", f"3 {weights} 3"]
    assert not any(torch.equal(predicted[0], other) for other in predicted[1:])
    assert not torch.equal(predicted[1], predicted[2])
    after = state(sd)
    assert {*after} == {*before} and all(torch.equal(before[name], after[name]) for name in before)
    assert not any(weight.requires_grad for weight in sd.unet.parameters())


def test_it_ends_early_as_well(sd, probe):
    before = state(sd)
    for _ in relearning.relearned(sd, NOTHING, probe, SKETCH, "mini", 0, "lora"):
        break
    assert all(torch.equal(before[name], weight) for name, weight in state(sd).items())


def test_lora_is_of_rank_r_and_of_attention_alone(sd, probe):
    before = state(sd)
    run = relearning.relearned(sd, NOTHING, probe, SKETCH, "mini", 3, "lora")
    next(run)
    next(run)
    layers = {name: layer for name, layer in sd.unet.named_modules() if hasattr(layer, "parametrizations")}
    projections = ("to_q", "to_k", "to_v", "to_out.0")
    attention = [name for name, _ in sd.unet.named_modules() if "attn" in name and name.endswith(projections)]
    assert sorted(layers) == sorted(attention) and len(attention) == 2 * 4 * 7
    for name, layer in layers.items():
        update = layer.weight - before[f"{name}.weight"]
        assert 0 < torch.linalg.matrix_rank(update, rtol=1e-3) <= probe.rank
    run.close()


def test_images(probe):
    few = relearning.images_of(probe, SKETCH, "mini", 3)
    assert [row[:2] for row in few.rows] == [("Sketch", "Cats"), ("Sketch", "Cats"), ("Sketch", "Sea")]
    kept = relearning.images_of(probe, SKETCH, "mini", 0)
    assert len(kept.rows) == 3 * 4  # steps x batch
    assert {row[:2] for row in kept.rows} == {("Rust", "Cats"), ("Rust", "Sea")}
    assert {row[2] for row in (*few.rows, *kept.rows)} <= {*canvas.TRAIN}


def test_a_method_goes_on_acting(sd, probe):
    """Where a method gives every prompt the same embedding, the tuning's prompts make no difference."""
    fixed = sd.embed(["Rust"])

    def tuned(act):
        run = relearning.relearned(sd, act, probe, SKETCH, "mini", 3, "full")
        next(run)
        next(run)
        weights = state(sd)
        run.close()
        return weights

    acted = tuned(Intervention(text=lambda ids, text: fixed.expand(len(ids), -1, -1)))
    plain = tuned(NOTHING)
    assert any(not torch.equal(acted[name], plain[name]) for name in acted)
    again = tuned(NOTHING)
    assert all(torch.equal(plain[name], again[name]) for name in plain)
