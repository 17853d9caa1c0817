"""FIA: what is pruned and what is spared, what is observed, and requests in turn as if made at once."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file

from diffusion_model_finetuning.core.sd import load_sd
from machine_unlearning.core import embeddings
from machine_unlearning.esd import train as esd
from machine_unlearning.fia import activations, pruning, train
from machine_unlearning.fia.masks import MASKS
from tests import tiny

QUICK = ["walk=3", "images=3", "observed=0.4", "batch=2", "r2=0.2"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path_factory.getbasetemp() / "embeddings")


def unlearn(tiny_sd, target, out, *more, method=train, quick=QUICK):
    words = ["--target", target, "--model", str(tiny_sd), "--out", str(out), "--device", "cpu", *quick, *more]
    method.main(words)
    return out


def zeros(before, after):
    """Name -> the entries that were pruned, where there are any; all others are as they were."""
    pruned = {name: (after[name] == 0) & (before[name] != 0) for name in before}
    assert all(torch.equal(after[n][~pruned[n]], before[n][~pruned[n]]) for n in before)
    return {name: mask for name, mask in pruned.items() if mask.any()}


def bits(run, target, shapes):
    tensors = load_file(run / MASKS)
    return {
        f"{name}.weight": torch.from_numpy(np.unpackbits(tensors[f"{target}/{name}"].numpy()))
        .bool()
        .view(shape)
        for name, shape in shapes.items()
    }


@pytest.fixture
def shapes(tiny_sd):
    return {name: layer.weight.shape for name, layer in activations.layers(load_sd(tiny_sd).unet).items()}


def test_masks_of_two_targets_at_once_and_in_turn(tiny_sd, shapes, tmp_path):
    """What both flag is spared. In turn the masks are the same, and some of what was pruned comes back."""
    base = tiny.weights_of(tiny_sd)
    runs = {
        "rust": unlearn(tiny_sd, "Rust", tmp_path / "rust"),
        "both": unlearn(tiny_sd, "Rust,Sketch", tmp_path / "both"),
    }
    runs["turn"] = unlearn(tiny_sd, "Sketch", tmp_path / "turn", "--from", str(runs["rust"]))
    runs["again"] = unlearn(tiny_sd, "Rust", tmp_path / "again", "--from", str(runs["turn"]))
    pruned = {name: zeros(base, tiny.weights_of(tiny_sd, run)) for name, run in runs.items()}
    rust, sketch = (bits(runs["both"], target, shapes) for target in ("Rust", "Sketch"))
    assert pruned["rust"].keys() == pruned["both"].keys() == rust.keys()
    for name in rust:
        assert torch.equal(pruned["rust"][name], rust[name])
        for run in ("both", "turn", "again"):
            assert torch.equal(pruned[run][name], rust[name] ^ sketch[name])
    assert any((rust[name] & sketch[name]).any() for name in rust)
    told = json.loads((runs["both"] / "record.json").read_text())["results"]
    count = sum(int(mask.sum()) for mask in pruned["both"].values())
    unet = sum(tensor.numel() for name, tensor in load_sd(tiny_sd).unet.named_parameters())
    assert told["zeroed"] == count and told["share_of_unet"] == count / unet
    assert told["share_of_layers"] == count / sum(mask.numel() for mask in rust.values())


def test_another_method_s_weights_are_those_that_are_pruned(tiny_sd, tmp_path):
    quick = ["steps=1", "walk=2", "batch=1", "size=16", "lr=0.05", "scope=noxattn"]
    first = unlearn(tiny_sd, "Winter", tmp_path / "esd", method=esd, quick=quick)
    second = unlearn(tiny_sd, "Rust", tmp_path / "second", "--from", str(first))
    third = unlearn(tiny_sd, "Sketch", tmp_path / "third", "--from", str(second))
    states = [tiny.weights_of(tiny_sd, run) for run in (first, second, third)]
    for after in states[1:]:
        assert all(name.endswith("ff.net.2.weight") for name in zeros(states[0], after))


def test_no_more_steps_are_taken_than_are_observed(tiny_sd):
    sd, calls = load_sd(tiny_sd), []
    sd.unet.register_forward_pre_hook(lambda unet, inputs: calls.append(len(inputs[0])))
    text, noise = sd.embed(["a", "b", "c"]), torch.randn(1, 4, 8, 8).expand(3, -1, -1, -1)
    u = activations.observed(sd, text, noise, 10, 2, 3.0, "both", 2)
    assert calls == [4, 4, 2, 2]  # both halves of two prompts, then of one
    assert not any(layer._forward_pre_hooks for layer in activations.layers(sd.unet).values())
    alone = activations.observed(sd, text[2:], noise[2:], 10, 2, 3.0, "both", 1)
    for name, value in u.items():
        assert value.shape == (2, 3, sd.unet.get_submodule(name).in_features)
        torch.testing.assert_close(alone[name], value[:, 2:])
    halves = [
        activations.observed(sd, text, noise, 10, 1, g, h, 3)
        for g, h in ((3.0, "conditional"), (1.0, "both"))
    ]
    for name in u:  # without guidance there is no other half
        torch.testing.assert_close(*(part[name].float() for part in halves))


def test_what_is_observed_is_what_diffusers_own_sampler_shows(tiny_sd):
    """Prompts by themselves, the two halves of guidance in calls of their own."""
    sd, texts = load_sd(tiny_sd), ["Cats in Sketch style", "Sea"]
    noise = torch.randn(2, 4, 8, 8)
    u = activations.observed(sd, sd.embed(texts), noise, 10, 3, 3.0, "both", 2)
    scheduler, inputs = DDIMScheduler.from_config(sd.scheduler.config), {name: [] for name in u}
    scheduler.set_timesteps(10)
    for name, seen in inputs.items():
        layer = sd.unet.get_submodule(name)
        layer.register_forward_hook(lambda _, given, __, seen=seen: seen.append(given[0]))
    for k, text in enumerate(texts):
        x = noise[k : k + 1]
        for step, t in enumerate(scheduler.timesteps[:3]):
            with torch.no_grad():
                null, conditional = (sd.unet(x, t, sd.embed([words])).sample for words in ("", text))
            for name, seen in inputs.items():
                X = torch.nn.functional.normalize(torch.cat(seen).flatten(0, 1).double(), dim=1)
                torch.testing.assert_close(u[name][step, k], X.norm(dim=0), rtol=1e-4, atol=1e-5)
                seen.clear()
            x = scheduler.step(null + 3 * (conditional - null), t, x, eta=0.0).prev_sample


def test_rows_count_by_their_direction_alone():
    X = torch.randn(2, 7, 5)
    u = activations.column_norms(X)
    torch.testing.assert_close(activations.column_norms(X * torch.rand(2, 7, 1)), u)
    torch.testing.assert_close(u.square().sum(-1), torch.full((2,), 7.0).double())  # positions


def test_nothing_is_flagged_whose_input_does_not_rise():
    W, gains = torch.randn(6, 8), torch.zeros(3, 8)
    assert not pruning.flagged(pruning.sensitivity(W, gains, 0.1), 0.5).any()
    gains[1, 5] = 1.0
    mask = pruning.flagged(pruning.sensitivity(W, gains, 0.1), 0.5)
    assert mask[:, 5].all() and mask.sum() == 6


def test_the_threshold_of_a_fusion_knows_no_rounding():
    masks = [torch.arange(20) > i for i in range(20)]  # entry i is flagged by i concepts
    assert pruning.fused(masks, 0.55).nonzero()[:, 0].tolist() == [
        *range(1, 11)
    ]  # 0.55 x 20 is above 11 in floats
    assert not pruning.fused(masks[:1], 0.6).any()  # the original's rule for one concept


def test_rules_and_halves_prune_other_weights(tiny_sd, tmp_path):
    base, ways = (
        tiny.weights_of(tiny_sd),
        (["r1=0.05"], ["halves=conditional"], ["rule=conceptprune", "ratio=0.2"]),
    )
    states = []
    for i, words in enumerate(ways):
        states.append(tiny.weights_of(tiny_sd, unlearn(tiny_sd, "Cats", tmp_path / str(i), *words)))
        assert zeros(base, states[-1])
        assert i == 0 or tiny.changed(states[0], states[-1])
    flags, s = (
        [torch.tensor(bits) for bits in ([[True, True, False]], [[True, False, False]])],
        SimpleNamespace,
    )
    for rule, alpha, names, expected in (
        ("conceptprune", None, "Rust Sketch", [True, True, False]),  # no fusion: the union
        ("fia", None, "Rust Sketch", [False, True, False]),
        ("fia", 1.0, "Rust Sketch", [False, True, False]),
        ("fia", None, "Rust", [True, True, False]),
    ):
        some = flags[: len(names.split())]
        assert train.pruned(some, names.split(), s(rule=rule, alpha=alpha))[0].tolist() == expected
    votes = [torch.tensor([[i < 7]]) for i in range(10)]  # 7 of 10: spared at 0.6, pruned at 0.8
    for names, expected in ((["Cats"] * 10, False), (["Cats"] * 9 + ["Rust+Cats"], True)):
        assert train.pruned(votes, names, s(rule="fia", alpha=None)).item() == expected


def test_prompts_differ_by_the_target_alone(tiny_sd):
    def sides(target, *words):
        _, prompts = train.parse(["--target", target, "--model", str(tiny_sd), "--out", "o", *words])
        assert [*prompts] == target.split(",")
        return [*prompts.values()]

    ((concept, base),) = sides("Sketch")
    assert [text.replace("Sketch", "Photo") for text in concept] == base and len(base) == 10
    ((concept, base),) = sides("Cats", "images=5")
    assert [text.replace("A Cats image", "An image") for text in concept] == base and len(base) == 5
    (_, base), _ = sides("Cats,Fishes", "base=['A {object} image in {theme} style.']")
    assert all("A Flame image" in text for text in base)  # Fishes, the next object, is a target as well
    assert sides("Sketch+Cats") == [(["A Cats image in Sketch style."], ["A Cats image in Photo style."])]
    ((concept, base),) = sides("Cats", "--variant", "published")
    assert concept[:2] == ["a Cats in a forest", "a Cats near the lake"] and base[:2] == [
        "a forest",
        "a lake",
    ]
    assert len(concept) == len(base) == 30


def test_what_cannot_be_is_refused(tiny_sd, tmp_path, capsys):
    def refused(*words):
        with pytest.raises(SystemExit) as exit:
            unlearn(tiny_sd, *words)
        assert exit.value.code == 2
        return capsys.readouterr().err

    nothing = "--target Rust,Sketch: no weight would be pruned; raise alpha"
    assert nothing in refused("Rust,Sketch", tmp_path / "none", "alpha=0.5")
    assert not (tmp_path / "none/record.json").exists()
    first = unlearn(tiny_sd, "Rust", tmp_path / "first")
    masks = load_file(first / MASKS)
    for damage in (lambda key: key.replace("down", "side"), lambda key: key.replace("weights/", "Rust/")):
        save_file({damage(key): tensor for key, tensor in masks.items()}, first / MASKS)
        assert "masks.safetensors: damaged" in refused("Sketch", tmp_path / "second", "--from", str(first))
    (first / MASKS).unlink()
    assert "masks.safetensors: no such file" in refused("Sketch", tmp_path / "second", "--from", str(first))
