import functools
import json
import pickle

import numpy as np
import pytest
import scipy.linalg
import torch
import torchvision
from PIL import Image
from torch_fidelity import feature_extractor_inceptionv3, metric_fid

from evaluation import canvas, fid
from evaluation import protocol as protocols
from evaluation.answers.answer_set import grid
from evaluation.core.errors import UserError
from evaluation.judges import features
from evaluation.judges.classifier import Classifier
from tests import synthetic


def activations(count, width=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + 3 * rng.random(width)


def gaussian(x):
    return np.mean(x, axis=0), np.cov(x, rowvar=False)


@pytest.mark.parametrize("counts", [(60, 50), (8, 9)])  # the second has singular covariances
def test_frechet_against_other_formulas(counts):
    (mean1, cov1), (mean2, cov2) = (gaussian(activations(n, seed=n)) for n in counts)
    ours = fid.frechet(mean1, cov1, mean2, cov2)
    root = scipy.linalg.sqrtm(cov1 @ cov2).real
    assert ours == pytest.approx(np.sum((mean1 - mean2) ** 2) + np.trace(cov1 + cov2 - 2 * root), rel=1e-6)
    statistics = [{"mu": mean, "sigma": cov} for mean, cov in ((mean1, cov1), (mean2, cov2))]
    theirs = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    assert fid.frechet(mean1, cov1, mean1, cov1) == pytest.approx(0, abs=1e-6 * np.trace(cov1))


@pytest.mark.parametrize("chunk", [1, 7, 100, 1000])
def test_moments_do_not_depend_on_chunks(chunk):
    x = activations(100).astype(np.float32)
    total = fid.moments(x, chunk)
    mean, covariance = gaussian(x.astype(np.float64))
    assert total.count == 100
    np.testing.assert_allclose(total.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(total.covariance, covariance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(  # specs/protocol.md, section 2.2: published counts of generated and real images
    ("target", "images"), [(None, 5100), ("Sketch", 5000), ("Cats", 4845), ("Sketch+Cats", 5095)]
)
def test_the_target_is_left_out_of_both_sets(target, images):
    protocol = protocols.load("canvas-published")
    targets = canvas.parse_targets(target) if target else []
    real = [(t, o, i) for t in protocol.themes for o in protocol.objects for i in protocol.fid_images]
    assert fid.kept(grid(protocol), targets).sum() == fid.kept(real, targets).sum() == images


@pytest.fixture
def judges(tmp_path):
    """Files of two tiny untrained classifiers."""
    torch.manual_seed(0)
    size = {"img_size": 16, "patch_size": 8, "embed_dim": 6, "depth": 1, "num_heads": 1}
    files = [tmp_path / f"{task}.safetensors" for task in ("style", "object")]
    for file in files:
        Classifier(file.stem, ["a", "b"], "vit_tiny_patch16_224", size).save(file)
    return files


@pytest.fixture
def data(tmp_path):
    """Real images of the small protocol."""
    rng = np.random.default_rng(0)
    for theme in synthetic.protocol().themes:
        for obj in synthetic.protocol().objects:
            for index in (1, 2):
                path = canvas.image_path(tmp_path / "data", theme, obj, index)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return tmp_path / "data"


def test_command_from_images_to_distance(tmp_path, judges, data, capsys, monkeypatch):
    protocol = synthetic.protocol()
    answers = synthetic.run_folder(tmp_path, "esd", "Sketch", protocol, images=True) / "answers"
    arguments = [f"{answers}", "--data", f"{data}", "--weights", *map(str, judges), "--device", "cpu"]
    command = functools.partial(fid.main, [*arguments, "--cache", f"{tmp_path / 'cache'}"])
    command()
    result = json.loads((answers / "fid.json").read_text())
    assert (result["real_images"], result["generated_images"]) == (3 * 3 * 2, 3 * 3 * 2)
    assert (result["extractor"], result["target"], result["protocol"]) == (
        "classifier",
        "Sketch",
        protocol.hash,
    )
    assert f"FID {result['fid']:.2f}" in capsys.readouterr().out

    extract = features.load_extractor("classifier", judges, "cpu")
    cells = [cell for cell in grid(protocol) if cell.theme != "Sketch"]
    made = [Image.open(answers / canvas.answer_name(*cell)) for cell in cells]
    real = [Image.open(path) for path in sorted(data.rglob("*.jpg")) if "Sketch" not in path.parts]
    a, b = (gaussian(extract(pictures).astype(np.float64)) for pictures in (real, made))
    assert extract(made).shape == (18, 12)
    assert result["fid"] == pytest.approx(fid.frechet(*a, *b), rel=1e-4)

    monkeypatch.setattr(features, "load_extractor", lambda *_: pytest.fail("features are kept"))
    command()
    assert json.loads((answers / "fid.json").read_text()) == result


def test_features_are_renewed_when_an_image_is(tmp_path):
    protocol = synthetic.protocol()
    synthetic.answer_set(tmp_path, protocol, images=True)
    extractor = lambda: lambda pictures: np.array([[np.asarray(p).mean()] for p in pictures], np.float32)  # noqa: E731
    first = features.generated_features(tmp_path, protocol, ["w"], extractor)
    changed = tmp_path / canvas.answer_name(*grid(protocol)[5])
    Image.new("RGB", (16, 16), "white").save(changed)
    second = features.generated_features(tmp_path, protocol, ["w"], extractor)
    assert np.flatnonzero(first != second).tolist() == [5] and second[5] == 255
    changed.unlink()
    with pytest.raises(UserError, match="1 of 24 images are missing"):
        features.generated_features(tmp_path, protocol, ["w"], extractor)


def test_without_weights_there_is_no_number(tmp_path, capsys):
    synthetic.answer_set(tmp_path, synthetic.protocol(fid_extractor="inception"))
    fid.main([str(tmp_path), "--data", "mini", "--weights", "absent.pth"])
    assert capsys.readouterr().out == "FID not measured (needs absent.pth)\n"
    assert not (tmp_path / "fid.json").exists()


def test_weights_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path / "sprung").write_text, ("",)

    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
    for name in ("inception", "torchvision"):
        with pytest.raises(UserError, match=r"trap\.pth"):
            features.load_extractor(name, [tmp_path / "trap.pth"], "cpu")
    assert not (tmp_path / "sprung").exists()


def test_inception_is_that_of_torch_fidelity(tmp_path, monkeypatch):
    module, network = feature_extractor_inceptionv3, feature_extractor_inceptionv3.FeatureExtractorInceptionV3
    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(network, "load_state_dict", lambda *_: None)
        reference = network("reference", ["2048"])
    torch.save(reference.state_dict(), tmp_path / "inception.pth")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    ours = features.load_extractor("inception", [tmp_path / "inception.pth"], "cpu")([image])
    theirs = reference(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])[0].numpy()
    assert ours.shape == (1, 2048) and np.ptp(ours) > 0
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_torchvision_resizes_and_normalises_twice(tmp_path):
    torch.manual_seed(0)
    model = torchvision.models.inception_v3(weights=None, transform_input=False, init_weights=False).eval()
    for weight in (value for value in model.parameters() if value.ndim == 4):
        weight.data *= 6**0.5  # PyTorch's own start lets the signal fade on its way through 40 layers
    torch.save(model.state_dict(), tmp_path / "inception.pth")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    ours = features.load_extractor("torchvision", [tmp_path / "inception.pth"], "cpu")([image])

    x = 2 * features.twice_resized([image]) - 1
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    seen = []
    model.Mixed_7c.register_forward_hook(lambda *arguments: seen.append(arguments[-1].mean((2, 3))))
    with torch.inference_mode():
        model(((x * std + mean) - 0.5) / 0.5)
    assert np.abs(ours).max() > 0.1
    np.testing.assert_allclose(ours, seen[0].numpy(), rtol=1e-3, atol=1e-3)


def test_bilinear_without_antialiasing():
    """A sample between pixel centres is their weighted mean, also when most pixels are skipped."""
    pixels = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    half = (
        pixels.astype(np.float64).reshape(512, 2, 512, 2, 3).mean(axis=(1, 3)).round()
    )  # centres lie between 2 x 2
    at = (np.arange(299) + 0.5) * 512 / 299 - 0.5
    low, part = np.floor(at).astype(int), at % 1
    rows = half[low] * (1 - part)[:, None, None] + half[low + 1] * part[:, None, None]
    expected = rows[:, low] * (1 - part)[:, None] + rows[:, low + 1] * part[:, None]
    ours = features.twice_resized([Image.fromarray(pixels)])[0].permute(1, 2, 0) * 255
    np.testing.assert_allclose(ours, expected, atol=1.01)  # a tie may be rounded either way
    assert np.abs(ours.numpy() - expected).mean() < 0.01
