"""SA's penalty and Fisher information, by hand and by autograd; its captions, and what it rehearses."""

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from diffusion_model_finetuning.core.sd import eps, load_sd
from evaluation import canvas
from evaluation.core.errors import UserError
from evaluation.core.tensors import read_tensors
from machine_unlearning.core import cli, embeddings, params
from machine_unlearning.sa import fisher
from machine_unlearning.sa import train as sa
from tests import tiny

SETTINGS = {
    "walk": 2, "guidance": 3.0, "image_seed": 42, "precision": "float32", "size": 16, "times": 4, "chunk": 3,
    "scope": "xattn_kv",
}  # fmt: skip
QUICK = ["steps=3", "batch=2", "lr=1e-3", "size=16", "images=4", "surrogates=2", "times=2", "walk=2"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path / "cache")


@pytest.fixture
def model(tiny_sd):
    """-> sd, trained weights, VAE moments and prompt embeddings of three images."""
    sd = load_sd(tiny_sd)
    generator = torch.Generator().manual_seed(0)
    moments, text = torch.randn(3, 8, 8, 8, generator=generator), torch.randn(3, 32, 16, generator=generator)
    return sd, params.trainable(sd.unet, "xattn_kv"), moments, text


def parse(model, *words):
    return cli.parse(sa.__doc__, sa.__file__, ["--model", str(model), "--out", "o", *words])


def test_penalty_is_autograd_s():
    generator = torch.Generator().manual_seed(0)
    draw = lambda: {n: torch.randn(s, generator=generator) for n, s in (("a", (4, 3)), ("b", (5,)))}  # noqa: E731
    reference, first, information = draw(), draw(), {n: x.abs() for n, x in draw().items()}
    weights = {name: (reference[name] + 0.1 * draw()[name]).requires_grad_() for name in reference}
    penalty = 7.0 * sum((information[n] * (w - reference[n]) ** 2).sum() for n, w in weights.items())
    expected = torch.autograd.grad(penalty, [*weights.values()])
    for name, weight in weights.items():
        weight.grad = first[name].clone()
    torch.testing.assert_close(sa.add_ewc(weights, reference, information, 7.0), penalty.detach())
    for (name, weight), gradient in zip(weights.items(), expected, strict=True):
        torch.testing.assert_close(weight.grad, first[name] + gradient)
    start = {name: weight.detach() for name, weight in weights.items()}
    assert sa.add_ewc(weights, start, information, 7.0) == 0


def test_timesteps():
    assert fisher.timesteps(1000, 1000).tolist() == [*range(1000)]
    assert fisher.timesteps(4, 1000).tolist() == [125, 375, 625, 875]


def information(model, folder, rows=range(3)):
    """What those of the three images add to F."""
    part = folder / "part.safetensors"
    fisher.save_part(*model, OmegaConf.create(SETTINGS), part, rows)
    assert [*folder.iterdir()] == [part]
    return read_tensors(part)


def test_fisher_by_hand(model, tmp_path):
    """Sum over timesteps, scale, square, mean over images; each timestep's gradient taken alone."""
    sd, weights, moments, text = model
    got = information(model, tmp_path)
    expected = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for n in range(3):
        generator = torch.Generator().manual_seed(42 * 1_000_003 + n)
        x0 = sd.sample_moments(moments[n : n + 1], generator)
        noise = torch.randn(4, *x0.shape[1:], generator=generator)
        summed = [torch.zeros_like(weight) for weight in weights.values()]
        for t, e in zip((125, 375, 625, 875), noise.split(1), strict=True):
            predicted = eps(sd.unet, sd.add_noise(x0, e, torch.tensor([t])), t, text[n : n + 1])
            for total, gradient in zip(
                summed, torch.autograd.grad(F.mse_loss(predicted, e), [*weights.values()]), strict=True
            ):
                total += gradient
        for name, total in zip(weights, summed, strict=True):
            expected[name] += (1000 / 4 * total) ** 2 / 3
    for name in weights:
        scale = expected[name].max().item()
        torch.testing.assert_close(got[name], expected[name], rtol=1e-3, atol=1e-5 * scale)
        assert weights[name].grad is None


def test_recomputed_activations_give_the_same_fisher(model, tmp_path):
    plain = information(model, tmp_path)
    model[0].unet.enable_gradient_checkpointing()
    again = information(model, tmp_path)
    for name in model[1]:
        torch.testing.assert_close(again[name], plain[name], rtol=1e-3, atol=1e-5 * plain[name].max().item())


def test_parts_of_fisher_add_up(model, tmp_path, monkeypatch):
    """As two processes make them: the last image's part is there, the first two are a process's own."""
    whole, (sd, weights, moments, text) = information(model, tmp_path), model
    s, prompts = OmegaConf.create(SETTINGS), ["a", "b", "c"]
    monkeypatch.setattr(fisher, "BLOCK", 2)
    save_part, blocks = fisher.save_part, []

    def saved(*args):
        blocks.append(args[-2])
        save_part(*args)

    monkeypatch.setattr(fisher, "save_part", saved)
    added = fisher.cached_fisher(sd, weights, moments, text, prompts, s)
    assert blocks == [range(2), range(2, 3)]
    for name, value in whole.items():
        torch.testing.assert_close(added[name], value.bfloat16(), rtol=1e-2, atol=0)
    s.chunk = 1  # decides about memory alone
    again = fisher.cached_fisher(sd, weights, moments, text, prompts, s)
    assert len(blocks) == 2 and all(torch.equal(again[name], added[name]) for name in added)


def test_fisher_goes_on_after_a_stop_and_is_kept(model, tmp_path, monkeypatch):
    sd, weights, moments, text = model
    s, prompts = OmegaConf.create(SETTINGS), ["a", "b", "c"]

    def cached():
        return fisher.cached_fisher(sd, weights, moments, text, prompts, s)

    monkeypatch.setattr(fisher, "EVERY", 1)
    with monkeypatch.context() as patch:
        patch.setattr(fisher, "add_squares", tiny.interrupt(fisher.add_squares, 2))
        with pytest.raises(KeyboardInterrupt):
            cached()
    for weight in weights.values():
        weight.grad = None
    with monkeypatch.context() as patch:
        patch.setattr(fisher, "add_squares", tiny.interrupt(fisher.add_squares, 1))  # one image is left
        resumed = cached()
        (file,) = (tmp_path / "cache").glob("*.safetensors")
        assert cached().keys() == weights.keys()  # no image is left
    content = file.read_bytes()
    file.unlink()
    whole = cached()
    assert file.read_bytes() == content
    assert all(
        torch.equal(resumed[name], whole[name]) and whole[name].dtype == torch.bfloat16 for name in weights
    )
    file.write_bytes(content[:100])
    cached()
    assert file.read_bytes() == content  # a damaged file is made again


def test_captions_of_the_target_and_what_is_drawn_instead(tmp_path):
    expected = {
        "Van_Gogh": ("A Architectures image in Van Gogh style.", "A Architectures image in Photo style."),
        "Cats": ("A Cats image in Abstractionism style.", "A Dogs image in Abstractionism style."),
        "Van_Gogh+Cats": ("A Cats image in Van Gogh style.", "A Cats image in Photo style."),
    }
    for target, first in expected.items():
        captions, instead = sa.surrogates(parse(tmp_path, "--target", target))
        assert (captions[0], instead[0]) == first
        assert len(captions) == len(instead) == 1000 and not {*captions} & {*instead}
    captions, instead = sa.surrogates(parse(tmp_path, "--target", "Van_Gogh", "--variant", "published"))
    assert {*captions} == {"An image in Van_Gogh style"} and {*instead} == {"An image in Photo style."}
    sketch, rust = (sa.surrogates(parse(tmp_path, "--target", name))[1] for name in ("Sketch", "Rust"))
    assert sketch == rust  # one set of images serves all styles


def test_what_is_rehearsed(tmp_path):
    for target, shown in {"Van_Gogh": 20, "Cats": 51, "Van_Gogh+Cats": 1, "Van_Gogh,Monet": 40}.items():
        prompts, kept = sa.replayed(parse(tmp_path, "--target", target))
        assert len(prompts) == len({*prompts}) == 1020 and len(kept) == 1020 - shown
        names = [canvas.spoken(name) for name in target.replace("+", ",").split(",")]
        assert target == "Van_Gogh+Cats" or not [
            prompts[i] for i in kept for name in names if f" {name} " in prompts[i]
        ]
    prompts, kept = sa.replayed(parse(tmp_path, "--target", "Cats", "--variant", "published"))
    assert len(kept) == 1020  # the target is rehearsed too
    with pytest.raises(UserError, match="images=1: all of them show Abstractionism"):
        sa.replayed(parse(tmp_path, "--target", "Abstractionism", "images=1"))


def test_the_penalty_holds_the_weights(tiny_sd, tmp_path):
    before, moved = tiny.weights_of(tiny_sd), {}
    for lamb in (0.0, 1e9):
        out = tmp_path / str(lamb)
        words = ["--target", "Sketch", "--model", str(tiny_sd), "--out", str(out), "--device", "cpu"]
        sa.main([*words, *QUICK, "accumulate=2", f"lamb={lamb}"])
        after = tiny.weights_of(tiny_sd, out)
        moved[lamb] = sum((after[name] - before[name]).abs().sum().item() for name in before)
    assert moved[1e9] < 0.9 * moved[0.0]
