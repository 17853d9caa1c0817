"""LPIPS by numpy and by torchmetrics, ArtFID from its parts, and what there is without files."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.models import inception_v3

from evaluation.canvas import PHOTO
from evaluation.core.errors import UserError
from evaluation.judges.features import load_extractor
from evaluation.judges.judging import MINI
from evaluation.metrics.frechet import frechet
from evaluation.mini import dataset as mini
from style_transfer import evaluate
from style_transfer.core import judges, opening, perceptual, vgg
from tests.style_transfer import narrow

FEW = ["--data", "mini", "--styles", "Rust", "--objects", "Cats", "Sea"]


@pytest.fixture(scope="module")
def images():
    """Two batches of two, [2,2,3,64,64] in [0,1]."""
    return torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def released(reference, folder):
    """Writes torchvision's file of the layers of torchmetrics' LPIPS."""
    state = reference.net.state_dict()
    features = {"features." + name.partition(".")[2]: tensor for name, tensor in state.items()}
    torch.save(features | {"classifier.0.weight": torch.zeros(2, 2)}, folder / "backbone.pth")
    return folder / "backbone.pth"


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_by_torchmetrics(net, images, tmp_path, monkeypatch):
    """Images are encoded once and compared later; the linear weights are the released ones, and nothing is
    downloaded."""
    torch.manual_seed(0)
    reference = _LPIPS(net=net, pnet_rand=True)
    for layer in reference.net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)
    judge = judges.lpips(perceptual.load_lpips(released(reference, tmp_path)), 64)
    x, y = (judge.encode["output"](batch) for batch in images)
    wanted = reference(*images, normalize=True).flatten()
    columns = judge.compare(output=x, photo=y, truth=x)
    assert list(columns) == ["LPIPS", "LPIPS_truth"] and (wanted > 0.01).all()
    torch.testing.assert_close(columns["LPIPS"], wanted, rtol=1e-4, atol=0)
    assert (columns["LPIPS_truth"] == 0).all()


def test_mini_perceptual_by_numpy(images):
    """Mean of squared differences of unit vectors = (2 - 2 cosine) / channels."""
    torch.manual_seed(0)
    encoder = narrow.lively(vgg.Encoder((4, 6, 8, 8, 8))).eval().requires_grad_(False)
    wanted, weights = np.zeros(2), perceptual.equal_weights(encoder)
    for one, other in zip(*(encoder(batch) for batch in images)):
        for i in range(2):
            a, b = (x[i].flatten(1).double().numpy() for x in (one, other))
            lengths = [np.sqrt((x**2).sum(0) + 1e-8) for x in (a, b)]
            units = [x / length for x, length in zip((a, b), lengths)]
            wanted[i] += sum((x**2).sum(0) for x in units).mean() / len(a)
            wanted[i] -= 2 * (units[0] * units[1]).sum(0).mean() / len(a)
    x, y = (perceptual.units(encoder(batch)) for batch in images)
    np.testing.assert_allclose(perceptual.distance(x, y, weights), wanted, rtol=1e-4)
    assert (perceptual.distance(x, x, weights) == 0).all()


def test_the_inception_of_art_fid(images, tmp_path):
    """Images go in as they are: neither resized nor normalised."""
    torch.manual_seed(0)
    reference = inception_v3(weights=None, init_weights=False, aux_logits=False).eval()
    state = {name: tensor for name, tensor in reference.state_dict().items() if not name.startswith("fc.")}
    heads = {f"{name}.weight": torch.zeros(2, 2) for name in ("fc1", "fc2", "AuxLogits1.fc", "AuxLogits2.fc")}
    torch.save(state | heads, tmp_path / "art_inception.pth")
    caught, pixels = [], torch.nn.functional.interpolate(images[0], (96, 96))
    reference.avgpool.register_forward_hook(lambda module, inputs, output: caught.append(output))
    reference(pixels)
    extract = perceptual.extractor(tmp_path / "art_inception.pth", "cpu")
    torch.testing.assert_close(extract(pixels), caught[0].flatten(1))


def test_unfit_files(tmp_path):
    for name, content in {
        "empty.pth": {"weight": torch.zeros(2)},
        "cut.pth": {"features.0.weight": torch.zeros(64, 3, 11, 11)},
    }.items():
        torch.save(content, tmp_path / name)
    for backbone, text in (
        ("empty.pth", r"--lpips .*empty.pth: neither torchvision's VGG-16 nor its AlexNet"),
        ("cut.pth", r"--lpips .*cut.pth: not all layers are there"),
        ("none.pth", "none.pth: no such file"),
    ):
        with pytest.raises(UserError, match=text):
            perceptual.load_lpips(tmp_path / backbone)
    with pytest.raises(UserError, match=r"--inception .*empty.pth: no Inception v3"):
        perceptual.extractor(tmp_path / "empty.pth", "cpu")


# --- in the command ---------------------------------------------------------------------------------------


@pytest.fixture
def judged(tmp_path):
    """Judges photos in place of outputs, in one style; -> what is in losses.json."""

    def judged(*flags, source=lambda obj, content, reference: (PHOTO, obj, content)):
        out = tmp_path / "out" / "Rust"
        out.mkdir(parents=True, exist_ok=True)
        for obj in ("Cats", "Sea"):
            for content in (19, 20):
                for reference in (1, 2, 3):
                    picture = mini.image(*source(obj, content, reference))
                    picture.save(out / f"{obj}_test{content}_ref{reference}.png")
        evaluate.main([*map(str, (tmp_path / "out", *FEW, *flags))])
        return json.loads((tmp_path / "out" / "losses-partial.json").read_text())

    return judged


@pytest.fixture
def encoder(tmp_path):
    torch.manual_seed(0)
    torch.save(narrow.lively(vgg.Encoder((4, 6, 8, 8, 8))).state_dict(), tmp_path / vgg.ENCODER)
    return tmp_path / vgg.ENCODER


def test_art_fid_of_the_miniature(judged, encoder, tmp_path):
    """FID from all features at once."""
    extract = load_extractor("classifier", MINI, "cpu")
    about = judged("--vgg", encoder)["perceptual"]
    assert list(about) == ["mini-perceptual", "mini-FID", "mini-ArtFID"]
    photos = [mini.image(PHOTO, obj, n) for obj in ("Cats", "Sea") for n in (19, 20)] * 3
    styles = [mini.image("Rust", obj, n) for obj in ("Cats", "Sea") for n in (1, 2, 3)]
    moments = [(x.mean(0), np.cov(x.T)) for x in (extract(each).astype(float) for each in (photos, styles))]
    assert about["mini-FID"] == pytest.approx(frechet(*moments[0], *moments[1]), rel=1e-4)
    assert about["mini-perceptual"] == 0  # the photos themselves
    assert about["mini-ArtFID"] == pytest.approx(1 + about["mini-FID"])
    shutil.rmtree(tmp_path / "out")
    other = judged("--vgg", encoder, source=lambda obj, content, reference: ("Rust", obj, reference))
    found = other["perceptual"]
    assert found["mini-FID"] < about["mini-FID"] / 3  # the style images themselves
    assert found["mini-ArtFID"] == pytest.approx((1 + found["mini-perceptual"]) * (1 + found["mini-FID"]))
    assert found["mini-perceptual"] == pytest.approx(other["summary"]["mini-perceptual"]["mean"])


def test_without_files_nothing(judged, monkeypatch):
    monkeypatch.setitem(opening.DEFAULTS, True, ("none.pth", "none.safetensors", MINI[1]))
    assert "perceptual" not in judged()


def test_named_files(judged, encoder, tmp_path, capsys):
    torch.manual_seed(0)
    backbone = released(_LPIPS(net="alex", pnet_rand=True), tmp_path)
    torch.save(inception_v3(weights=None, init_weights=False).state_dict(), tmp_path / "inception.pth")
    about = judged("--vgg", encoder, "--lpips", backbone, "--inception", tmp_path / "inception.pth")
    assert list(about["perceptual"]) == ["LPIPS", "FID", "ArtFID"] and about["perceptual"]["FID"] > 0
    assert "mini-perceptual" not in about["summary"] and {"lpips", "inception"} < set(about["judges"])
    assert about["summary"]["LPIPS"]["mean"] == 0 < about["summary"]["LPIPS_truth"]["mean"]
    assert "ArtFID" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        judged("--vgg", encoder, "--lpips", backbone, "--variant", "published")
    assert "--lpips: the published losses know no such judge" in capsys.readouterr().err
