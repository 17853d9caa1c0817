"""SalUn's mask: how many, which, and that it holds. The scopes and helpers it uses."""

import json

import pytest
import torch
from diffusers import UNet2DConditionModel

from diffusion_model_finetuning.core.sd import load_sd
from evaluation.core.errors import UserError
from machine_unlearning.core import embeddings, params
from machine_unlearning.core.forget import Batch
from machine_unlearning.salun import mask as pre_pass
from machine_unlearning.salun import train as salun
from tests import tiny


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path_factory.getbasetemp() / "embeddings")


def unlearn(model, out, *overrides):
    quick = "steps=2 mask_steps=1 batch=2 size=16 images=1 retain_images=1 retain_all=false lr=1e-3".split()
    words = ["--target", "Sketch", "--model", str(model), "--out", str(out), "--device", "cpu"]
    salun.main([*words, *quick, *overrides])
    return tiny.weights_of(model), tiny.weights_of(model, out)


def batch(unet, count=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, count, unet.config.in_channels, 8, 8, generator=g)
    text, pseudo = torch.randn(2, count, 5, unet.config.cross_attention_dim, generator=g)
    return Batch(x, torch.randint(1000, (count,), generator=g), noise, text, pseudo)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("ties", [False, True])
def test_exactly_the_largest(share, ties):
    torch.manual_seed(0)
    scores = {"a": torch.rand(30, 7), "b": torch.rand(5), "c": torch.rand(3, 4, 5)}
    if ties:
        scores = {name: (4 * score).floor() for name, score in scores.items()}
    flat = torch.cat([score.flatten() for score in scores.values()])
    # a stable sort keeps equal entries in their order
    order = flat.sort(descending=True, stable=True).indices[: int(share * len(flat))]
    expected = torch.zeros(len(flat), dtype=torch.bool)
    expected[order] = True
    mask = pre_pass.largest(scores, share)
    assert {name: m.shape for name, m in mask.items()} == {name: s.shape for name, s in scores.items()}
    assert torch.equal(torch.cat([m.flatten() for m in mask.values()]), expected)


def test_kth_smallest():
    parts = [torch.tensor([[3.0, -1.0]]), torch.tensor([2.0, 2.0, 9.0])]
    assert [params.kth_smallest(parts, k) for k in range(1, 6)] == [-1, 2, 2, 3, 9]


def test_mask_marks_large_gradients_and_moves_nothing(tiny_sd):
    unet = load_sd(tiny_sd).unet
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    null = torch.randn(1, 5, unet.config.cross_attention_dim)
    batches = [batch(unet, seed=i) for i in range(2)]
    mask = pre_pass.saliency_mask(unet, batches, null, 7.5, 0.5, "full")
    assert not tiny.changed(before, unet.state_dict())
    weights = params.trainable(unet, "full")
    assert mask.keys() == weights.keys() and all(weight.grad is None for weight in weights.values())
    sum(pre_pass.saliency_loss(unet, b, null, 7.5) for b in batches).backward()
    inside = torch.cat([w.grad[mask[name]].abs() for name, w in weights.items()])
    outside = torch.cat([w.grad[~mask[name]].abs() for name, w in weights.items()])
    assert len(inside) == (len(inside) + len(outside)) // 2
    assert inside.min() > 0.999 * outside.max()


def test_guidance_needs_another_prompt(tiny_sd):
    """With the prompt itself in place of the empty one, as in the port, guidance cancels."""
    unet = load_sd(tiny_sd).unet
    b = batch(unet)
    plain = pre_pass.saliency_loss(unet, b, b.text, 0.0)
    torch.testing.assert_close(pre_pass.saliency_loss(unet, b, b.text, 7.5), plain)
    null = torch.zeros_like(b.text[:1])
    assert abs(pre_pass.saliency_loss(unet, b, null, 7.5) - plain) > 1e-6


def test_masks_of_ones_and_zeros():
    weights = {"a": torch.nn.Parameter(torch.randn(4, 3)), "b": torch.nn.Parameter(torch.randn(5))}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizer = torch.optim.Adam(weights.values(), 0.1, fused=True)
    for value in (True, False):
        for weight in weights.values():
            weight.grad = torch.randn_like(weight)
        gradients = {name: weight.grad.clone() for name, weight in weights.items()}
        params.mask_gradients(weights, {name: torch.full(w.shape, value) for name, w in weights.items()})
        assert all(torch.equal(w.grad, value * gradients[name]) for name, w in weights.items())
    optimizer.step()  # the gradients are zero now
    assert not tiny.changed(before, {name: weight.detach() for name, weight in weights.items()})


def test_weights_outside_the_mask_stay(tiny_sd, tmp_path):
    before, after = unlearn(tiny_sd, tmp_path / "tenth", "mask_share=0.1", "mask_full=false")
    trained = [name for name in before if params.SCOPES["xattn"](name)]
    moved = sum(int((before[name] != after[name]).sum()) for name in trained)
    count = sum(before[name].numel() for name in trained)
    assert moved == int(0.1 * count)
    shares = {name: int((before[name] != after[name]).sum()) / before[name].numel() for name in trained}
    line = json.loads((tmp_path / "tenth/log.jsonl").read_text().splitlines()[0])
    least, most = min(shares.values()), max(shares.values())
    assert line == pytest.approx({"mask": 0.1, "mask_least": least, "mask_most": most}, abs=1e-4)


def test_a_mask_of_none_is_an_error(tiny_sd, tmp_path):
    with pytest.raises(SystemExit):
        unlearn(tiny_sd, tmp_path / "zero", "mask_share=0.0")
    with pytest.raises(SystemExit):  # so few of all weights that none is left of those trained
        unlearn(tiny_sd, tmp_path / "few", "mask_share=1.0e-6")
    weights = {"a": torch.nn.Parameter(torch.zeros(4)), "b": torch.nn.Parameter(torch.zeros(2))}
    mask = {"a": torch.tensor([True, False, False, False]), "b": torch.ones(2, dtype=torch.bool)}
    assert params.coverage(weights, mask) == {"mask": 0.5, "mask_least": 0.25, "mask_most": 1}
    with pytest.raises(UserError, match="the mask lets none of 6 weights move"):
        params.coverage(weights, {name: torch.zeros_like(part) for name, part in mask.items()})


def test_without_a_mask_there_is_no_pre_pass(tiny_sd, tmp_path, monkeypatch):
    monkeypatch.setattr(salun, "saliency_mask", tiny.interrupt(salun.saliency_mask, 0))
    before, after = unlearn(tiny_sd, tmp_path / "run", "mask_share=1")
    assert tiny.changed(before, after) == {name for name in before if params.SCOPES["xattn"](name)}


def test_checkpointing_changes_nothing(tiny_sd, tmp_path):
    (_, plain), (_, saving) = (
        unlearn(tiny_sd, tmp_path / value, f"checkpointing={value}") for value in ("false", "true")
    )
    assert not tiny.changed(plain, saving)


def test_forgetting_goes_on(tiny_sd, tmp_path):
    unlearn(tiny_sd, tmp_path / "run", "steps=30", "alpha=0.0", "batch=8")
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    losses = torch.tensor([line["forget"] for line in log[1:]])  # the first is of the mask
    assert len(losses) == 30 and losses[-10:].mean() < 0.5 * losses[:3].mean()


def test_scopes_of_sd15():
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8
        )
    tensors = {"full": 686, "xattn": 80, "selfattn": 80, "noxattn": 598, "notime": 678}
    tensors |= {"xlayer": 10, "selflayer": 10, "xattn_kv": 32}
    parameters = {"full": 859_520_964, "xattn": 43_962_560, "selfattn": 49_574_080}
    parameters |= {"noxattn": 813_495_680, "notime": 857_458_240}
    for scope in params.SCOPES:
        weights = params.trainable(unet, scope)
        assert len(weights) == tensors[scope]
        count = sum(weight.numel() for weight in weights.values())
        assert count == parameters.get(scope, count)


def test_scopes_that_select_nothing(tiny_sd):
    unet = load_sd(tiny_sd).unet
    with pytest.raises(UserError, match="scope=xlayer: selects no weight of this UNet"):
        params.trainable(unet, "xlayer")
