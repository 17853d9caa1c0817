"""Judging a method's outputs: formulas by a second way, perfect outputs at zero, groups, any folder."""

import csv
import gzip
import json

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.canvas import PHOTO, UNUSED_STYLES
from evaluation.judges.classifier import Classifier
from evaluation.judges.judging import MINI
from evaluation.mini import dataset as mini
from style_transfer import evaluate
from style_transfer.core import losses, statistics, vgg
from style_transfer.stytr2.model import FILES, StyTr2
from tests.style_transfer import narrow, toy

WIDTHS = (4, 6, 8, 8, 8)
STYLES, OBJECTS = ("Rust", "Sketch"), ("Cats", "Sea")
FEW = ["--styles", *STYLES, "--objects", *OBJECTS]  # 24 outputs of transfer-mini
CELLS = [(s, o, c, r) for o in OBJECTS for s in STYLES for c in (19, 20) for r in (1, 2, 3)]


# --- formulas ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return narrow.lively(vgg.Encoder(WIDTHS)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_style_loss_by_numpy(encoder, images):
    wanted = np.zeros(3)
    for one, other in zip(*(encoder(x) for x in images)):
        for i in range(3):
            x, y = (f[i].flatten(1).double().numpy() for f in (one, other))
            wanted[i] += ((x.mean(1) - y.mean(1)) ** 2).mean()
            x, y = (np.sqrt(z.var(1, ddof=1) + 1e-5) for z in (x, y))
            wanted[i] += ((x - y) ** 2).mean()
    got = losses.style_loss(*(losses.seen(encoder(x)) for x in images))
    np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_content_loss_by_correlation(encoder, images):
    """Of maps of mean 0 and variance 1, the squared difference is 2 (1 - correlation) (n-1)/n."""
    wanted = np.zeros(3)
    for one, other in list(zip(*(encoder(x) for x in images)))[3:]:
        for i in range(3):
            x, y = (f[i].flatten(1).double().numpy() for f in (one, other))
            count, terms = x.shape[1], []
            for a, b in zip(x, y):
                scale = [z.var(ddof=1) / (z.var(ddof=1) + 1e-5) for z in (a, b)]
                r = np.corrcoef(a, b)[0, 1] if scale[0] * scale[1] else 0
                terms.append(
                    (scale[0] + scale[1] - 2 * r * np.sqrt(scale[0] * scale[1])) * (count - 1) / count
                )
            wanted[i] += np.mean(terms)
    got = losses.content_loss(*(losses.seen(encoder(x)) for x in images))
    np.testing.assert_allclose(got, wanted, rtol=1e-3)


def test_identical_images_are_at_zero_and_others_are_not(encoder, images):
    x, y = (losses.seen(encoder(each)) for each in images)
    for loss in (losses.style_loss, losses.content_loss):
        assert (loss(x, x) == 0).all() and (loss(x, y) > 0).all()
        torch.testing.assert_close(loss(x, y), loss(y, x))


def test_content_has_no_contrast_and_style_no_places(encoder, images):
    """Mean and deviation of a map are no content, where something lies is no style."""

    def contrasted(images):
        return [3 * feature + 1 for feature in encoder(images)]

    def turned(images):
        return [feature.flip(2, 3) for feature in encoder(images)]

    x, y, z = (losses.seen(network(images[0])) for network in (encoder, contrasted, turned))
    assert (losses.content_loss(x, y) < 1e-2).all() and (losses.content_loss(x, z) > 0.1).all()
    assert (losses.style_loss(x, y) > 0.1).all() and (losses.style_loss(x, z) < 1e-6).all()


def test_blocks():
    assert losses.blocks(24) == [3, 7, 11, 15, 19, 23]
    assert losses.blocks(12) == [1, 3, 5, 7, 9, 11]
    assert losses.blocks(8) == [0, 1, 3, 4, 5, 7]
    for depth in range(1, 7):
        assert losses.blocks(depth) == list(range(depth))


@pytest.mark.parametrize("pooling", [{}, {"class_token": False, "global_pool": "avg"}])
def test_tokens_are_the_outputs_of_blocks(pooling):
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 8, "num_heads": 2} | pooling
    torch.manual_seed(0)
    classifier = Classifier("object", OBJECTS, "vit_base_patch16_224", arguments).eval()
    caught, pixels = [], torch.rand(3, 3, 32, 32)
    for block in classifier.vit.blocks:
        block.register_forward_hook(lambda module, inputs, output: caught.append(output))
    with torch.no_grad():
        logits, found = losses.tokens(classifier.vit, (pixels - classifier.mean) / classifier.std)
        wanted = [caught[i] for i in losses.blocks(8)]
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
        torch.testing.assert_close(logits, classifier(pixels))
    loss = losses.feature_loss(found, [z.flip(0) for z in found])
    for i in range(3):
        terms = [((z[i] - z[2 - i]) ** 2).mean() for z in found]
        torch.testing.assert_close(loss[i], sum(terms))
    assert (losses.feature_loss(found, found) == 0).all()


# --- groups -----------------------------------------------------------------------------------------------


def test_means_and_deviations_of_every_group():
    """Values 0 to 23 of a grid of 2 styles, 2 objects, 2 contents, 3 references."""
    grid = np.arange(24.0).reshape(2, 2, 2, 3) ** 2
    names = ("style", "object", "content", "reference")
    rows = [dict(zip(names, place)) | {"loss": value} for place, value in np.ndenumerate(grid)]
    rows = [{name: row[name] for name in names} | {"loss": row["loss"]} for row in rows[::-1]]
    figures = statistics.summary(rows, "loss")
    assert figures["mean"] == pytest.approx(grid.mean())
    assert figures["std_style"] == pytest.approx(grid.reshape(2, 12).std(1).mean())
    assert figures["std_object"] == pytest.approx(grid.swapaxes(0, 1).reshape(2, 12).std(1).mean())
    assert figures["std_content"] == pytest.approx(grid.std(3).mean())
    made = statistics.results(rows)
    assert made["styles"][1]["loss"] == pytest.approx({"mean": grid[1].mean(), "std": grid[1].std()})
    assert made["objects"][0]["loss"] == pytest.approx({"mean": grid[:, 0].mean(), "std": grid[:, 0].std()})
    assert made["accuracy"] == {}


def test_accuracy_leaves_out_styles_that_no_judge_knows():
    rows = [
        {"style": "Rust", "object": "Cats", "style_seen": "Rust", "object_seen": "Sea"},
        {"style": "Rust", "object": "Cats", "style_seen": "Sketch", "object_seen": "Sea"},
        {"style": UNUSED_STYLES[0], "object": "Cats", "style_seen": "Rust", "object_seen": "Cats"},
    ]
    assert statistics.accuracy(rows) == {"outputs": 2, "style": 0.5, "object": 0.0}
    assert statistics.accuracy(rows[2:]) == {}


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judges(encoder, tmp_path_factory):
    """A folder with a VGG and StyTr2, of few channels."""
    folder = tmp_path_factory.mktemp("judges")
    torch.save(encoder.state_dict(), folder / losses.ENCODER)
    torch.manual_seed(1)
    network = narrow.lively(StyTr2((8, 8, 16, 32), 32))
    for name, tensors in narrow.released(network, FILES).items():
        torch.save(tensors, folder / name)
    return folder


@pytest.fixture
def run(judges, capsys):
    """Judges a folder; -> exit code, JSON, rows by cell, what was said."""

    def run(folder, *flags, variant="canvas", few=FEW):
        code, name = 0, "losses" if variant == "canvas" else f"losses-{variant}"
        try:
            given = ["--vgg", judges / losses.ENCODER, "--variant", variant, *few, *flags]
            evaluate.main([str(x) for x in (folder, *given)])
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        if code:
            return code, None, None, said.err
        rows = list(
            csv.DictReader(gzip.decompress((folder / f"{name}.csv.gz").read_bytes()).decode().splitlines())
        )
        cells = {(r["style"], r["object"], int(r["content"]), int(r["reference"])): r for r in rows}
        assert len(cells) == len(rows)
        return code, json.loads((folder / f"{name}.json").read_text()), cells, said.out

    return run


def write(folder, source, suffix=".png", cells=CELLS):
    """Outputs without manifest; `source`(style, object, content, reference) -> row of the data set."""
    for style, obj, content, reference in cells:
        path = folder / style / f"{obj}_test{content}_ref{reference}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        mini.image(*source(style, obj, content, reference)).save(path)
    return folder


def truth(style, obj, content, reference):
    return style, obj, content


def photo(style, obj, content, reference):
    return PHOTO, obj, content


def style_image(style, obj, content, reference):
    return style, obj, reference


def column(cells, name):
    return np.array([float(row[name]) for row in cells.values()])


@pytest.mark.parametrize(
    "source, zero",
    [
        (truth, ["vgg_style_truth", "vgg_content_truth", "vit_style_truth", "vit_content_truth"]),
        (photo, ["vgg_content_photo", "vit_content_photo", "mini-perceptual"]),
        (style_image, ["vgg_style_reference", "vit_style_reference"]),
    ],
)
def test_what_an_output_equals_is_at_zero(run, tmp_path, source, zero):
    """And nothing else is: no column compares with another image than its name says."""
    _, about, cells, said = run(write(tmp_path / "out", source), "--data", "mini")
    assert set(cells) == set(CELLS) and about["outputs"] == about["of"] == 24
    assert len(about["summary"]) == 9
    for name in about["summary"]:
        values = column(cells, name)
        assert (values < 1e-6).all() if name in zero else (values > 1e-3).all(), name
        assert about["summary"][name]["mean"] == pytest.approx(values.mean(), rel=1e-4, abs=1e-9)
        assert name in said
    assert about["accuracy"]["outputs"] == 24
    right = {True: lambda share: share > 0.8, False: lambda share: share < 0.5}
    assert right[source is not photo](about["accuracy"]["style"])
    assert about["accuracy"]["object"] > 0.8
    assert about["accuracy"]["style"] == np.mean(
        [row["style_seen"] == cell[0] for cell, row in cells.items()]
    )


def test_rows_are_the_losses_of_their_images(run, encoder, tmp_path):
    """One row recomputed from the pictures alone."""
    folder = write(tmp_path / "out", lambda s, o, c, r: (s, o, (c + r) % 18 + 1))
    cells = run(folder, "--data", "mini")[2]
    rows = {"output": ("Sketch", "Sea", 5), "truth": ("Sketch", "Sea", 20)}
    rows |= {"reference": ("Sketch", "Sea", 2), "photo": (PHOTO, "Sea", 20)}
    looks = {
        role: losses.seen(encoder(torch.from_numpy(np.array(mini.image(*row))).permute(2, 0, 1)[None] / 255))
        for role, row in rows.items()
    }
    row = cells["Sketch", "Sea", 20, 2]
    for name in ("style_truth", "style_reference", "content_photo", "content_truth"):
        kind, _, role = name.partition("_")
        wanted = getattr(losses, f"{kind}_loss")(looks["output"], looks[role]).item()
        assert float(row[f"vgg_{name}"]) == pytest.approx(wanted, rel=1e-4)


def test_batches_do_not_matter(run, tmp_path):
    folder = write(tmp_path / "out", lambda s, o, c, r: (s, o, (c + r) % 18 + 1))
    whole = run(folder, "--data", "mini")[2]
    for flags in (["--batch", 1], ["--batch", 5]):
        other = run(folder, "--data", "mini", *flags)[2]
        for name in next(iter(whole.values())):
            if name.startswith(("vgg", "vit", "mini")):
                values = [[float(rows[cell][name]) for cell in CELLS] for rows in (whole, other)]
                np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-6)


def test_same_rows_same_bytes(run, tmp_path):
    folder = write(tmp_path / "out", style_image)
    files = []
    for _ in range(2):
        run(folder, "--data", "mini")
        files.append([(folder / name).read_bytes() for name in ("losses.csv.gz", "losses.json")])
    assert files[0] == files[1]


def test_published(run, tmp_path):
    """A perfect output gets the floor, another one does not; the photo and the reference do not enter."""
    _, about, cells, said = run(write(tmp_path / "a", truth), "--data", "mini", variant="published")
    assert set(about["summary"]) == {
        "vgg_content", "vgg_style", "vgg_content_floor", "vgg_style_floor", "vit_style",
    }  # fmt: skip
    for name in ("content", "style"):
        floor = column(cells, f"vgg_{name}_floor")
        assert (floor > 1e-3).all()
        np.testing.assert_allclose(column(cells, f"vgg_{name}"), floor, rtol=1e-3)
    assert (column(cells, "vit_style") < 1e-6).all()
    assert set(about["judges"]) == {"vgg", "style_classifier", *FILES} and "floor" in said
    other = run(write(tmp_path / "b", photo), "--data", "mini", variant="published")[2]
    direct = run(tmp_path / "b", "--data", "mini")[2]
    np.testing.assert_allclose(column(other, "vgg_style_floor"), column(cells, "vgg_style_floor"), rtol=1e-3)
    assert not np.allclose(column(other, "vgg_content"), column(cells, "vgg_content"), rtol=1e-2)
    assert not np.allclose(column(other, "vit_style"), column(direct, "vit_style_truth"), rtol=1e-2)


def test_outputs_of_the_command(run, tmp_path):
    """The manifest tells the data set and the protocol, also the one of other objects."""
    weights = toy.released(tmp_path / "weights")
    for flags in ([], ["--cross-object"]):
        out = tmp_path / f"out{len(flags)}"
        toy.main(["--weights", str(weights), "--data", "mini", "--out", str(out), *FEW, *flags])
        code, about, cells, _ = run(out)
        assert code == 0 and len(cells) == 24 and about["made"]["method"] == "toy"
        assert about["protocol"]["name"] == "transfer-mini" + "-cross" * len(flags)
        assert (
            about["protocol"]["hash"] == json.loads((out / "manifest.json").read_text())["protocol"]["hash"]
        )
    code, _, _, said = run(out, "--protocol", "transfer")
    assert code == 2 and "names protocol transfer-mini-cross; leave it out" in said


def test_foreign_folder_of_jpegs(run, tmp_path):
    code, about, cells, _ = run(write(tmp_path / "out", truth, ".jpg"), "--data", "mini")
    assert code == 0 and len(cells) == 24
    assert about["made"] == {"method": None, "weights": None, "options": None}
    assert 0 < about["summary"]["vgg_style_truth"]["mean"] < about["summary"]["vgg_style_reference"]["mean"]


def test_missing_outputs(run, tmp_path):
    folder = write(tmp_path / "out", truth, cells=CELLS[:13])
    code, _, _, said = run(folder, "--data", "mini")
    assert code == 2 and not list(folder.glob("losses*"))
    assert "11 of 24 outputs are missing, first Rust/Sea_test20_ref1.png" in said and "--partial" in said
    code, about, cells, said = run(folder, "--data", "mini", "--partial")
    assert code == 0 and set(cells) == set(CELLS[:13]) and (about["outputs"], about["of"]) == (13, 24)
    assert "13 of 24 outputs" in said
    code, about, _, _ = run(folder, "--data", "mini", few=["--styles", "Rust", "--objects", "Cats"])
    assert code == 0 and about["of"] == 6
    code, _, _, said = run(tmp_path, "--data", "mini", "--partial")
    assert code == 2 and "24 of 24 outputs are missing" in said


def test_without_vgg(run, tmp_path, monkeypatch, capsys):
    folder = write(tmp_path / "out", truth)
    monkeypatch.setitem(evaluate.DEFAULTS, True, ("none.pth", *MINI))
    evaluate.main([str(folder), "--data", "mini", *FEW])
    said = capsys.readouterr().out
    assert "not all was measured, for want of a file: --vgg" in said and "vit_style_truth" in said
    assert "vgg" not in json.loads((folder / "losses.json").read_text())["summary"]


def test_refusals(run, tmp_path):
    folder = write(tmp_path / "out", truth)
    for flags, text in {
        (): "no manifest.json that names the data set; give --data",
        ("--data", "mini", "--vgg", "nowhere.pth"): "--vgg nowhere.pth: no such file",
        ("--data", "mini", "--vgg", MINI[0]): f"{MINI[0]}: no weights of the VGG encoder",
        ("--data", "mini", "--style-classifier", MINI[1]): "a classifier of the object task",
        ("--data", "mini", "--styles", "Rsut"): "--styles Rsut: not in the protocol; did you mean Rust?",
    }.items():
        code, _, _, said = run(folder, *flags)
        assert code == 2 and text in said and said.count("\n") == 1, (flags, said)
    code, _, _, said = run(folder, "--data", "mini", "--stytr2", tmp_path, variant="published")
    assert code == 2 and "StyTr2 needs the file decoder_iter_160000.pth" in said
    assert run(tmp_path / "nowhere")[0] == 2
    (folder / "Rust" / "Cats_test19_ref1.png").write_bytes(b"no picture")
    code, _, _, said = run(folder, "--data", "mini")
    assert code == 2 and "Cats_test19_ref1.png: not a readable image" in said
    Image.new("RGB", (8, 8), "grey").save(tmp_path / "one.png")
    own, one = tmp_path / "own", str(tmp_path / "one.png")
    toy.main(["--weights", str(toy.released(own)), "--out", str(own), "--content", one, "--style", one])
    code, _, _, said = run(own, "--data", "mini")
    assert code == 2 and "only the benchmark's have a ground truth" in said
