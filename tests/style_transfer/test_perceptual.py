"""LPIPS by numpy and by torchmetrics, ArtFID from its parts, and what there is without files."""

import json

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
from style_transfer.core import losses, perceptual, vgg
from tests.style_transfer import narrow

FEW = ["--data", "mini", "--styles", "Rust", "--objects", "Cats", "Sea"]


@pytest.fixture(scope="module")
def images():
    """Two batches of two, [2,2,3,64,64] in [0,1]."""
    return torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def released(reference, folder):
    """Writes the files of torchmetrics' LPIPS as torchvision and the package of LPIPS name them."""
    features = {}
    for name, tensor in reference.net.state_dict().items():
        features["features." + name.partition(".")[2]] = tensor
    torch.save(features | {"classifier.0.weight": torch.zeros(2, 2)}, folder / "backbone.pth")
    torch.save({f"lin{i}.model.1.weight": lin.model[1].weight for i, lin in enumerate(reference.lins)},
               folder / "linear.pth")  # fmt: skip
    return folder / "backbone.pth", folder / "linear.pth"


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_by_torchmetrics(net, images, tmp_path):
    """Its linear weights are the released ones, the network's are random."""
    torch.manual_seed(0)
    reference = _LPIPS(net=net, pnet_rand=True)
    for layer in reference.net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    judge = perceptual.lpips(*released(reference, tmp_path), "cpu")
    x, y = (judge.look(batch) for batch in images)
    wanted = reference(*images, normalize=True).flatten()
    assert judge.name == "LPIPS" and (wanted > 0.01).all()
    torch.testing.assert_close(judge.distance(x, y), wanted, rtol=1e-4, atol=0)
    assert (judge.distance(x, x) == 0).all()


def test_mini_perceptual_by_numpy(images):
    """Mean of squared differences of unit vectors = (2 - 2 cosine) / channels."""
    torch.manual_seed(0)
    encoder = narrow.lively(vgg.Encoder((4, 6, 8, 8, 8))).eval().requires_grad_(False)
    judge, wanted = perceptual.miniature(encoder), np.zeros(2)
    for one, other in zip(*(encoder(batch) for batch in images)):
        for i in range(2):
            a, b = (x[i].flatten(1).double().numpy() for x in (one, other))
            lengths = [np.linalg.norm(x, axis=0) for x in (a, b)]
            cosine = (a * b).sum(0) / np.maximum(lengths[0] * lengths[1], 1e-12)
            alive = (lengths[0] > 0).astype(int) + (lengths[1] > 0)  # a vector of zeros stays one
            wanted[i] += ((alive - 2 * cosine) / len(a)).mean()
    x, y = (judge.look(batch) for batch in images)
    np.testing.assert_allclose(judge.distance(x, y), wanted, rtol=1e-4)
    assert judge.name == "mini-perceptual" and (judge.distance(x, x) == 0).all()


def test_unfit_files(tmp_path):
    for name, content in {
        "empty.pth": {"weight": torch.zeros(2)},
        "narrow.pth": {f"lin{i}.model.1.weight": torch.zeros(1, 8, 1, 1) for i in range(5)},
        "vgg.pth": {
            f"lin{i}.model.1.weight": torch.zeros(1, width, 1, 1) for i, width in enumerate(vgg.WIDTHS)
        },
    }.items():
        torch.save(content, tmp_path / name)
    for backbone, linear, text in (
        ("vgg.pth", "empty.pth", "empty.pth: no weights of LPIPS, which have a tensor 'lin0.model.1.weight'"),
        ("vgg.pth", "narrow.pth", "narrow.pth: weights neither for VGG-16 nor for AlexNet"),
        ("empty.pth", "vgg.pth", "empty.pth: does not fit LPIPS"),
        ("none.pth", "vgg.pth", "none.pth: no such file"),
    ):
        with pytest.raises(UserError, match=text):
            perceptual.lpips(tmp_path / backbone, tmp_path / linear, "cpu")
    with pytest.raises(UserError, match=r"--inception .*empty.pth: not torch-fidelity's"):
        perceptual.extractor([tmp_path / "empty.pth"], "cpu")


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
        return json.loads((tmp_path / "out" / "losses.json").read_text())

    return judged


@pytest.fixture
def encoder(tmp_path):
    torch.manual_seed(0)
    torch.save(narrow.lively(vgg.Encoder((4, 6, 8, 8, 8))).state_dict(), tmp_path / losses.ENCODER)
    return tmp_path / losses.ENCODER


def test_art_fid_of_the_miniature(judged, encoder):
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
    other = judged("--vgg", encoder, source=lambda obj, content, reference: ("Rust", obj, reference))
    found = other["perceptual"]
    assert found["mini-FID"] < about["mini-FID"] / 3  # the style images themselves
    assert found["mini-ArtFID"] == pytest.approx((1 + found["mini-perceptual"]) * (1 + found["mini-FID"]))
    assert found["mini-perceptual"] == pytest.approx(other["summary"]["mini-perceptual"]["mean"])


def test_without_files_nothing(judged, monkeypatch):
    monkeypatch.setitem(evaluate.DEFAULTS, True, ("none.pth", "none.safetensors", MINI[1]))
    assert "perceptual" not in judged()


def test_named_files(judged, encoder, tmp_path, capsys):
    torch.manual_seed(0)
    files = released(_LPIPS(net="alex", pnet_rand=True), tmp_path)
    torch.save(inception_v3(weights=None, init_weights=False).state_dict(), tmp_path / "inception.pth")
    about = judged("--vgg", encoder, "--lpips", *files, "--inception", tmp_path / "inception.pth")
    assert list(about["perceptual"]) == ["LPIPS", "FID", "ArtFID"] and about["perceptual"]["FID"] > 0
    assert "mini-perceptual" not in about["summary"] and {"lpips", "inception"} < set(about["judges"])
    assert "ArtFID" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        judged("--vgg", encoder, "--lpips", *files, "--variant", "published")
    assert "--lpips, --inception: the published losses know neither" in capsys.readouterr().err
