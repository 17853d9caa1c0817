import json
import pickle
import shutil
from itertools import product

import numpy as np
import pytest
import scipy.linalg
import torch
import torchvision
from PIL import Image
from torch_fidelity import feature_extractor_inceptionv3, metric_fid, metric_kid

from evaluation import canvas, fid
from evaluation import protocol as protocols
from evaluation.answers.answer_set import answer_paths, grid
from evaluation.answers.predictions import read_predictions, write_predictions
from evaluation.core.errors import UserError
from evaluation.core.files import digest, file_digest
from evaluation.judges import features
from evaluation.judges.classifier import Classifier
from evaluation.metrics.distances import distances, kid, read_distances
from evaluation.metrics.frechet import frechet, moments
from tests import synthetic


def activations(count, width=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + 3 * rng.random(width)


def gaussian(x):
    return np.mean(x, axis=0), np.cov(x, rowvar=False)


@pytest.mark.parametrize("counts", [(60, 50), (8, 9)])  # the second has singular covariances
def test_frechet_against_other_formulas(counts):
    (mean1, cov1), (mean2, cov2) = (gaussian(activations(n, seed=n)) for n in counts)
    ours = frechet(mean1, cov1, mean2, cov2)
    root = scipy.linalg.sqrtm(cov1 @ cov2).real
    assert ours == pytest.approx(np.sum((mean1 - mean2) ** 2) + np.trace(cov1 + cov2 - 2 * root), rel=1e-6)
    statistics = [{"mu": mean, "sigma": cov} for mean, cov in ((mean1, cov1), (mean2, cov2))]
    theirs = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    assert frechet(mean1, cov1, mean1, cov1) == pytest.approx(0, abs=1e-6 * np.trace(cov1))


@pytest.mark.parametrize("chunk", [1, 7, 100, 1000])
def test_moments_do_not_depend_on_chunks(chunk):
    x = activations(100).astype(np.float32)
    total = moments(x, chunk)
    mean, covariance = gaussian(x.astype(np.float64))
    assert total.count == 100
    np.testing.assert_allclose(total.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(total.covariance, covariance, rtol=1e-9, atol=1e-12)


def in_cells(cells, images, width=12, seed=0, shift=0.0):
    """Features [cells,images,width] of a grid: every cell has a place of its own, the same for every seed."""
    place = np.random.default_rng(0).normal(size=(cells, 1, width))
    noise = np.random.default_rng(seed).normal(size=(cells, images, width)) / 2
    return (place + noise + shift).astype(np.float32)


def test_what_is_left_out_is_taken_from_the_sums_of_everything():
    real, generated = in_cells(30, 20), in_cells(30, 5, seed=1, shift=0.2)
    kept = np.random.default_rng(2).random((4, 30)) < 0.8
    kept[0] = True
    for cells, value in zip(kept, distances(real, generated, kept, fewest=100), strict=True):
        a, b = (gaussian(x[cells].reshape(-1, 12).astype(np.float64)) for x in (real, generated))
        assert value["fid"] == pytest.approx(frechet(*a, *b), rel=1e-9)
        assert (value["real_images"], value["generated_images"]) == (20 * cells.sum(), 5 * cells.sum())
        alone = distances(real[cells], generated[cells], np.ones((1, cells.sum()), bool), fewest=100)[0]
        assert value == pytest.approx(alone, rel=1e-6)


def test_fid_needs_many_images_and_kid_two_of_a_cell():
    everything = np.ones((1, 30), bool)
    few = distances(in_cells(30, 20), in_cells(30, 5, seed=1), everything, fewest=151)[0]
    assert few.keys() == {"real_images", "generated_images", "kid", "kid_std"}
    single = distances(in_cells(30, 20), in_cells(30, 1, seed=1), everything, fewest=30)[0]
    assert single.keys() == {"real_images", "generated_images", "fid"}


def test_kid_of_one_cell_is_that_of_torch_fidelity():
    a, b = in_cells(1, 40), in_cells(1, 40, seed=1, shift=0.5)
    with np.errstate(all="ignore"):  # no other cell to tell the error from
        (ours,), _ = kid(a, b, np.ones((1, 1), bool))
    theirs = metric_kid.kid_features_to_metric(
        *map(torch.from_numpy, (a[0], b[0])), kid_subsets=1, kid_subset_size=40, verbose=False
    )
    assert ours == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-5)


def test_kid_is_the_mean_over_pairs_of_cells():
    a, b = in_cells(4, 3), in_cells(4, 2, seed=1, shift=0.5)
    kept = np.array([[True] * 4, [True, False, True, True]])
    kernel = lambda x, y: (x.astype(float) @ y / 12 + 1) ** 3  # noqa: E731

    def between(x, y, c, d):
        pairs = product(range(x.shape[1]), range(y.shape[1]))
        return np.mean([kernel(x[c, i], y[d, j]) for i, j in pairs if x is not y or (c, i) != (d, j)])

    def direct(cells):
        terms = [
            between(a, a, c, d) + between(b, b, c, d) - between(a, b, c, d) - between(a, b, d, c)
            for c, d in product(cells, cells)
        ]
        return np.mean(terms)

    values, errors = kid(a, b, kept)
    for value, error, mask in zip(values, errors, kept, strict=True):
        cells = [*np.flatnonzero(mask)]
        assert value == pytest.approx(direct(cells), rel=1e-5)
        others = [direct([cell for cell in cells if cell != left]) for left in cells]
        assert error == pytest.approx(np.sqrt((len(cells) - 1) * np.var(others)), rel=1e-4)


def test_kid_is_unbiased_on_a_grid_and_its_error_is_told():
    """Two images of every cell; torch-fidelity's, which takes images for independent, is far too low."""
    everything = np.ones((1, 40), bool)
    draws = [
        [value[0] for value in kid(in_cells(40, 6, seed=seed), in_cells(40, 2, seed=seed + 500), everything)]
        for seed in range(1, 200)
    ]
    values, errors = np.transpose(draws)
    standard_error = values.std() / len(values) ** 0.5
    assert abs(values.mean()) < 4 * standard_error
    assert values.std() < errors.mean() < 2 * values.std()
    a, b = (torch.from_numpy(in_cells(40, 2, seed=seed).reshape(-1, 12)) for seed in (1, 2))
    usual = metric_kid.kid_features_to_metric(a, b, kid_subsets=1, kid_subset_size=80, verbose=False)
    assert usual["kernel_inception_distance_mean"] < -10 * values.std()


@pytest.mark.parametrize(  # specs/protocol.md, section 2.2: published counts of generated and real images
    ("target", "images"), [(None, 5100), ("Sketch", 5000), ("Cats", 4845), ("Sketch+Cats", 5095)]
)
def test_the_target_is_left_out_of_both_sets(target, images):
    protocol = protocols.load("canvas-published")
    targets = canvas.parse_targets(target) if target else []
    cells = fid.kept(product(protocol.themes, protocol.objects), targets).sum()
    assert cells * len(protocol.fid_images) == cells * len(protocol.seeds) == images


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


@pytest.fixture
def protocol():
    """With as many images as the classifier's FID needs, without Sketch too."""
    return synthetic.protocol(seeds=tuple(range(20)), targets=("Sketch", "Cats"))


@pytest.fixture
def command(tmp_path, judges, data):
    def run(answers, *more, data=data):
        arguments = [answers, "--data", data, "--weights", *judges, "--cache", tmp_path / "cache", *more]
        fid.main([*map(str, arguments), "--device", "cpu"])
        return json.loads((answers / "fid.json").read_text())

    return run


def test_command_from_images_to_distance(tmp_path, judges, data, protocol, command, capsys, monkeypatch):
    answers = synthetic.run_folder(tmp_path, "esd", "Sketch", protocol, images=True) / "answers"
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # as torch begins
    result = command(answers)
    assert result["made_with"]["tf32"] is False
    value = result["values"]["Sketch"]
    assert result["values"].keys() == {"Sketch"}
    assert (value["real_images"], value["generated_images"]) == (3 * 3 * 2, 3 * 3 * 20)
    assert (
        "fid" not in value and "FID not given: 18 images, at least 128 are needed" in capsys.readouterr().out
    )
    monkeypatch.setitem(fid.FEWEST, "classifier", 18)
    (answers / "fid.json").write_text('{"fid": 1.0}')  # of an earlier form: measured again
    result = command(answers)
    value = result["values"]["Sketch"]
    assert f"FID {value['fid']:.2f}; KID {value['kid']:.5f} ±" in capsys.readouterr().out
    assert result["origin"]["protocol"] == protocol.hash and "commit" in result["made_with"]
    files = [answers / canvas.answer_name(*cell) for cell in grid(protocol)]
    assert result["origin"]["images"] == digest([file_digest(file) for file in files])

    extract = features.load_extractor("classifier", judges, "cpu")
    made = [Image.open(file) for file, cell in zip(files, grid(protocol)) if cell.theme != "Sketch"]
    real = [Image.open(path) for path in sorted(data.rglob("*.jpg")) if "Sketch" not in path.parts]
    a, b = (gaussian(extract(pictures).astype(np.float64)) for pictures in (real, made))
    assert extract(made).shape == (180, 12)
    assert value["fid"] == pytest.approx(frechet(*a, *b), rel=1e-4)

    monkeypatch.setattr(features, "load_extractor", lambda *_: pytest.fail("features are kept"))
    monkeypatch.setattr(fid, "distances", lambda *_: pytest.fail("and values"))
    assert command(answers) == result
    assert "measured already" in capsys.readouterr().out


def test_the_base_model_leaves_out_every_target_in_turn(tmp_path, protocol, command, monkeypatch):
    monkeypatch.setitem(fid.FEWEST, "classifier", 12)
    answers, run = tmp_path / "base/answers", tmp_path / "esd/Cats/answers"
    synthetic.answer_set(answers, protocol, images=True)
    result = command(answers)
    assert list(result["values"]) == ["", "Monet", "Sketch", "Winter", *protocol.objects]
    more = command(answers, "--target", "Sketch,Cats", "--target", "Winter+Sea")
    assert more["values"] == result["values"] | {
        key: more["values"][key] for key in ("Sketch,Cats", "Winter+Sea")
    }
    synthetic.run_folder(tmp_path, "esd", "Cats", protocol)
    for path in answers.glob("*.png"):
        shutil.copy(path, run)
    assert command(run)["values"] == {"Cats": pytest.approx(result["values"]["Cats"], rel=1e-6)}
    with pytest.raises(SystemExit):
        command(run, "--target", "Sketch")


def test_values_are_kept_for_the_same_images_only(tmp_path, protocol, command, data, capsys):
    answers = tmp_path / "base/answers"
    synthetic.answer_set(answers, protocol, images=True)
    first = command(answers, "--target", "Sketch")
    data.rename(tmp_path / "moved")
    second = command(answers, "--target", "Cats", data=tmp_path / "moved")
    assert second["values"].keys() == {"Sketch", "Cats"} and second["origin"]["data"].endswith("moved")
    assert second["origin"]["data_digest"] == first["origin"]["data_digest"]
    shutil.copytree(tmp_path / "moved", tmp_path / "prepared")
    (tmp_path / "prepared/prepared.json").write_text('{"size": 16}')
    marked = command(answers, "--target", "Cats", data=tmp_path / "prepared")
    assert marked["origin"]["prepared"] == 16 and marked["values"].keys() == {"Cats"}
    assert "copies of 16 pixels" in capsys.readouterr().out
    Image.new("RGB", (16, 16), "white").save(next((tmp_path / "moved").rglob("2.jpg")))
    third = command(answers, "--target", "Cats", data=tmp_path / "moved")
    assert third["values"].keys() == {"Cats"} and third["values"] != second["values"]
    assert third["origin"]["data_digest"] != first["origin"]["data_digest"]
    Image.new("RGB", (16, 16), "white").save(answers / canvas.answer_name(*grid(protocol)[0]))
    fourth = command(answers, "--target", "Sketch", data=tmp_path / "moved")
    assert fourth["values"].keys() == {"Sketch"}
    assert fourth["origin"] | {"images": third["origin"]["images"]} == third["origin"] != fourth["origin"]


@pytest.mark.parametrize(
    "text", ["", "{", '{"fid": 2.0}', "[1]", '{"values": {}, "made_with": 1, "origin": 1}']
)
def test_a_damaged_file_of_distances(tmp_path, text):
    (tmp_path / "fid.json").write_text(text)
    with pytest.raises(UserError, match=r"damaged, or of an earlier form; run python -m evaluation\.fid"):
        read_distances(tmp_path, "digest")
    assert read_distances(tmp_path / "empty") is None


def test_features_are_renewed_when_an_image_is(tmp_path):
    protocol = synthetic.protocol()
    synthetic.answer_set(tmp_path, protocol, images=True)
    extractor = lambda: lambda pictures: np.array([[np.asarray(p).mean()] for p in pictures], np.float32)  # noqa: E731
    first = features.generated_features(tmp_path, protocol, ["w"], extractor)
    changed = tmp_path / canvas.answer_name(*grid(protocol)[5])
    Image.new("RGB", (16, 16), "white").save(changed)
    second = features.generated_features(tmp_path, protocol, ["w"], extractor)
    assert np.flatnonzero(first.array != second.array).tolist() == [5] and second.array[5] == 255
    assert first.digest != second.digest
    changed.unlink()
    with pytest.raises(UserError, match="1 of 24 images are missing"):
        features.generated_features(tmp_path, protocol, ["w"], extractor)


def test_of_images_that_were_judged_and_removed_the_digest_is_known(tmp_path):
    """Unless one that is left is no longer what was judged."""
    protocol = synthetic.protocol()
    synthetic.answer_set(tmp_path, protocol, see=synthetic.right, images=True)
    (rows, source), paths = read_predictions(tmp_path), answer_paths(tmp_path, protocol)
    rows = [row._replace(sha256=file_digest(path)) for row, path in zip(rows, paths, strict=True)]
    write_predictions(tmp_path, rows, source)
    extractor = lambda: lambda pictures: np.zeros((len(pictures), 1), np.float32)  # noqa: E731
    whole = features.generated_features(tmp_path, protocol, ["w"], extractor)
    for path in (features.generated_path(tmp_path, protocol), paths[5]):
        path.unlink()
    assert features.generated_features(tmp_path, protocol, ["w"], extractor) == (None, whole.digest)
    Image.new("RGB", (16, 16), "white").save(paths[7])
    with pytest.raises(UserError, match="1 of 24 images are missing"):
        features.generated_features(tmp_path, protocol, ["w"], extractor)


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_damaged_features_are_made_again(tmp_path, content):
    protocol = synthetic.protocol()
    synthetic.answer_set(tmp_path, protocol, images=True)
    extractor = lambda: lambda pictures: np.array([[np.asarray(p).mean()] for p in pictures], np.float32)  # noqa: E731
    first = features.generated_features(tmp_path, protocol, ["w"], extractor)
    path = tmp_path / "features-classifier.safetensors"
    written = path.read_bytes()
    path.write_bytes(written[:-9] if content is None else content)
    second = features.generated_features(tmp_path, protocol, ["w"], extractor)
    assert np.array_equal(first.array, second.array) and first.digest == second.digest
    assert path.read_bytes() == written


def test_drawn_images_have_a_digest_of_their_pixels(tmp_path):
    protocol = synthetic.protocol(themes=("Sketch", canvas.PHOTO), objects=("Cats",), size=64)
    extractor = lambda: lambda pictures: np.zeros((len(pictures), 1), np.float32)  # noqa: E731
    digests = [
        features.real_features(
            features.real_images(data, protocol), protocol, ["w"], extractor, tmp_path
        ).digest
        for data in ("mini", "mini:0", "mini:1")
    ]
    assert digests[0] == digests[1] != digests[2]


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
    extract = features.load_extractor("inception", [tmp_path / "inception.pth"], "cpu")
    ours = extract([image])
    mixed = [image, image.resize((20, 30)), image.rotate(90), image.resize((20, 30)).rotate(180)]
    np.testing.assert_allclose(extract(mixed), np.concatenate([extract([one]) for one in mixed]), rtol=1e-4)
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
