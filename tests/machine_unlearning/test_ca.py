"""CA's loss, the start token without gradient, and the captions of every variant."""

import pytest
import torch
import torch.nn.functional as F

from diffusion_model_finetuning.core.sd import eps, load_sd
from evaluation import canvas
from evaluation.core.errors import UserError
from machine_unlearning.ca import train as ca
from machine_unlearning.ca.prompts import CAPTIONS, caption_rows
from machine_unlearning.core import cli, embeddings, params
from tests import tiny

QUICK = ["steps=1", "batch=2", "size=16", "images=2", "walk=2", "lr=1e-3"]


def rows(model, *words):
    """The caption rows of a command line."""
    return caption_rows(cli.parse(ca.__doc__, ca.__file__, ["--model", str(model), "--out", "o", *words]))


@pytest.fixture
def real(tmp_path):
    """A model without a card: the benchmark's world and the variant `canvas`."""
    return tmp_path


def test_loss_by_hand():
    predicted, y = (torch.randn(3, 4, 6, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    mask = torch.ones(3, 1, 6, 6, dtype=torch.float64)
    loss = ca.ca_loss(predicted, y, mask)
    torch.testing.assert_close(loss, 4 * F.mse_loss(predicted, y))
    loss.backward()
    assert y.grad is None
    torch.testing.assert_close(predicted.grad, 2 * (predicted - y).detach() / (3 * 36))
    mask[1:, :, 2:] = 0
    per_image = [
        4 * F.mse_loss(predicted[0], y[0]),
        *(4 * F.mse_loss(predicted[i, :, :2], y[i, :, :2]) for i in (1, 2)),
    ]
    torch.testing.assert_close(ca.ca_loss(predicted, y, mask), torch.stack(per_image).mean())
    assert ca.ca_loss(y, y, mask) == 0


@pytest.mark.parametrize("checkpointing", [False, True])
def test_start_token_gets_no_gradient_and_nothing_else_changes(tiny_sd, checkpointing):
    unet = load_sd(tiny_sd).unet
    weights = params.trainable(unet, "xattn_kv")
    x, t, text = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.randn(2, 32, 16)

    def run():
        for weight in weights.values():
            weight.grad = None
        tokens = text.clone().requires_grad_()
        predicted = eps(unet, x, t, tokens)
        predicted.square().mean().backward()
        return predicted.detach(), tokens.grad, torch.cat([w.grad.flatten() for w in weights.values()])

    predicted, to_text, to_weights = run()
    ca.detach_start_token(unet)
    if checkpointing:
        unet.enable_gradient_checkpointing()
    again, to_text_detached, to_weights_detached = run()
    torch.testing.assert_close(again, predicted)
    assert to_text[:, 0].abs().max() > 0 and not to_text_detached[:, 0].any()
    torch.testing.assert_close(to_text_detached[:, 1:], to_text[:, 1:])
    assert to_weights_detached.any()
    assert not torch.allclose(to_weights, to_weights_detached, rtol=1e-3, atol=0)


def test_captions_are_many_distinct_and_name_nothing_of_the_benchmark():
    assert {name: len(set(captions)) for name, captions in CAPTIONS.items()} == {
        "paintings": 200,
        "scenes": 80,
    }
    assert all(caption.count("{object}") == 1 for caption in CAPTIONS["scenes"])
    names = [*canvas.STYLES, *canvas.UNUSED_STYLES, *canvas.OBJECTS]
    words = {canvas.spoken(name).lower() for name in names} | {
        name.lower().rstrip("s") for name in canvas.OBJECTS
    }
    for caption in CAPTIONS["paintings"] + CAPTIONS["scenes"]:
        said = f" {caption.replace('{object}', '').lower()} "
        assert not [word for word in words if f" {word} " in said], caption


def test_a_style_is_said_on_top_of_paintings(real):
    pairs = rows(real, "--target", "Van_Gogh")
    assert [anchor for anchor, _ in pairs] == CAPTIONS["paintings"]
    assert {len(said) for _, said in pairs} == {6}
    assert all("Van Gogh" in text and anchor in text for anchor, said in pairs for text in said)
    assert len(rows(real, "--target", "Van_Gogh", "images=1000")) == 1000
    assert len(rows(real, "--target", "Van_Gogh,Monet", "images=10")) == 20
    (_, said), *_ = rows(real, "--target", "Van_Gogh", "--variant", "published")
    assert said[0].endswith(", in the style of Van_Gogh Style")


def test_an_object_takes_the_next_one_s_place(real):
    pairs = rows(real, "--target", "Cats")
    assert len(pairs) == 80
    for anchor, said in pairs:
        assert "Dogs" in anchor and said == [anchor.replace("Dogs", "Cats")]
    # of targets, none stands in for another
    assert all("Fishes" in anchor for anchor, _ in rows(real, "--target", "Cats,Dogs"))
    for anchor, said in rows(real, "--target", "Cats", "--variant", "published"):
        assert "Cats" in anchor and all("An image of Cats" in text and anchor in text for text in said)


def test_a_pair_is_the_style_on_top_of_its_object(real):
    for anchor, said in rows(real, "--target", "Sketch+Cats"):
        assert "Cats" in anchor and "Sketch" not in anchor
        assert all("Cats" in text and "Sketch" in text for text in said)


def test_the_miniature_is_asked_in_its_own_words(tiny_sd):
    first = {target: rows(tiny_sd, "--target", target)[0] for target in ("Sketch", "Cats", "Sketch+Cats")}
    assert first["Sketch"] == (
        "A Architectures image in Photo style.",
        ["A Architectures image in Sketch style."],
    )
    assert first["Cats"] == ("A Fishes image in Cartoon style.", ["A Cats image in Cartoon style."])
    assert first["Sketch+Cats"] == ("A Cats image in Photo style.", ["A Cats image in Sketch style."])


@pytest.mark.parametrize(
    "words, message",
    [
        (["--target", "Sketch", "captions=paints"], "captions=paints: expected paintings, scenes"),
        (["--target", "Sketch", "word=", "captions=scenes"], "captions=scenes: none of them names Sketch"),
    ],
)
def test_refusals(real, words, message):
    with pytest.raises(UserError, match=message):
        rows(real, *words)


def test_objectives(tiny_sd, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path / "cache")
    runs = {
        "plain": ["prior=0"],
        "noise": ["prior=0", "noise_based=true"],
        "prior": ["prior=1.0"],
        "half": ["prior=0", "precision=bfloat16"],
    }
    seen = {}
    for name, more in runs.items():
        out = tmp_path / name
        words = ["--target", "Sketch", "--model", str(tiny_sd), "--out", str(out), "--device", "cpu"]
        ca.main([*words, *QUICK, *more])
        seen[name] = torch.cat(
            [w.flatten() for n, w in tiny.weights_of(tiny_sd, out).items() if ".attn2." in n]
        )
    for name in ("noise", "prior", "half"):
        assert not torch.allclose(seen["plain"], seen[name])


def test_a_run_detaches_the_start_token(tiny_sd, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path / "cache")

    def weights(name):
        words = ["--target", "Sketch", "--model", str(tiny_sd), "--out", str(tmp_path / name), *QUICK]
        ca.main([*words, "--device", "cpu"])
        return tiny.weights_of(tiny_sd, tmp_path / name)

    detached = weights("detached")
    monkeypatch.setattr(ca, "detach_start_token", lambda unet: None)
    assert tiny.changed(detached, weights("attached"))
