"""Judging a method's outputs: formulas by a second way, perfect outputs at zero, groups, any folder."""

import csv
import gzip
import json
import os
import shutil
import time

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from evaluation.answers import claims
from evaluation.canvas import PHOTO, UNUSED_STYLES
from evaluation.judges.classifier import Classifier
from evaluation.judges.judging import MINI
from evaluation.mini import dataset as mini
from style_transfer import evaluate, protocol
from style_transfer.core import judging, losses, opening, statistics, vgg
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
    got = losses.style_loss(*(losses.vgg_features(encoder(x)) for x in images))
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
    got = losses.content_loss(*(losses.vgg_features(encoder(x)) for x in images))
    np.testing.assert_allclose(got, wanted, rtol=1e-3)


def test_identical_images_are_at_zero_and_others_are_not(encoder, images):
    x, y = (losses.vgg_features(encoder(each)) for each in images)
    for loss in (losses.style_loss, losses.content_loss):
        assert (loss(x, x) == 0).all() and (loss(x, y) > 0).all()
        torch.testing.assert_close(loss(x, y), loss(y, x))


def test_content_has_no_contrast_and_style_no_places(encoder, images):
    """Mean and deviation of a map are no content, where something lies is no style."""

    def contrasted(images):
        return [3 * feature + 1 for feature in encoder(images)]

    def turned(images):
        return [feature.flip(2, 3) for feature in encoder(images)]

    x, y, z = (losses.vgg_features(network(images[0])) for network in (encoder, contrasted, turned))
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
        embedding, found = losses.tokens(classifier.vit, (pixels - classifier.mean) / classifier.std)
        wanted = [caught[i] for i in losses.blocks(8)]
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
        torch.testing.assert_close(classifier.vit.head(embedding), classifier(pixels))
        torch.testing.assert_close(embedding, classifier.features(pixels))
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
    rows = pd.DataFrame(rows[::-1])
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
    rows = pd.DataFrame([
        {"style": "Rust", "object": "Cats", "style_seen": "Rust", "object_seen": "Sea"},
        {"style": "Rust", "object": "Cats", "style_seen": "Sketch", "object_seen": "Sea"},
        {"style": UNUSED_STYLES[0], "object": "Cats", "style_seen": "Rust", "object_seen": "Cats"},
    ])  # fmt: skip
    assert statistics.accuracy(rows) == {"outputs": 2, "style": 0.5, "object": 0.0}
    assert statistics.accuracy(rows[2:]) == {}


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judges(encoder, tmp_path_factory):
    """A folder with a VGG and StyTr2, of few channels."""
    folder = tmp_path_factory.mktemp("judges")
    torch.save(encoder.state_dict(), folder / vgg.ENCODER)
    torch.manual_seed(1)
    network = narrow.lively(StyTr2((8, 8, 16, 32), 32))
    for name, tensors in narrow.released(network, FILES).items():
        torch.save(tensors, folder / name)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The file of a protocol of these 24 outputs."""
    mini_protocol = protocol.load("transfer-mini").__dict__
    few = mini_protocol | {"name": "small", "styles": STYLES, "objects": OBJECTS}
    path = tmp_path_factory.mktemp("protocol") / "small.yaml"
    path.write_text(yaml.safe_dump({k: list(v) if isinstance(v, tuple) else v for k, v in few.items()}))
    return path


@pytest.fixture
def run(judges, small, capsys):
    """Judges a folder; -> exit code, JSON, rows by cell, what was said."""

    def run(folder, *flags, variant="canvas", few=()):
        code, name = 0, "losses" + "-published" * (variant != "canvas")
        given = ["--vgg", judges / vgg.ENCODER, "--variant", variant, "--data", "mini", *few]
        given += [] if (folder / "manifest.json").exists() or "--protocol" in flags else ["--protocol", small]
        for path in folder.glob("losses*-partial*"):
            path.unlink()
        try:
            evaluate.main([str(x) for x in (folder, *given, *flags)])
        except SystemExit as stop:
            code = stop.code
        said, partial = capsys.readouterr(), folder / f"{name}-partial.json"
        name += "-partial" * partial.exists()
        if not (folder / f"{name}.json").exists():
            return code, None, None, said.err
        rows = list(
            csv.DictReader(gzip.decompress((folder / f"{name}.csv.gz").read_bytes()).decode().splitlines())
        )
        cells = {(r["style"], r["object"], int(r["content"]), int(r["reference"])): r for r in rows}
        assert len(cells) == len(rows)
        return code, json.loads((folder / f"{name}.json").read_text()), cells, said.err if code else said.out

    return run


@pytest.fixture
def judged(monkeypatch):
    """The cells that are judged from now on."""
    names, judge = [], judging.Panel.judge
    monkeypatch.setattr(
        judging.Panel, "judge", lambda panel, cell: names.append(cell.key) or judge(panel, cell)
    )
    return names


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
        (truth, ["rmse_truth", "vgg_style_truth", "vgg_content_truth", "gram_truth", "mini-perceptual_truth",
                 "vit_style_truth", "vit_content_truth", "embedding_style_truth", "embedding_content_truth"]),
        (photo, ["vgg_content_photo", "vit_content_photo", "embedding_content_photo", "mini-perceptual"]),
        (style_image, ["vgg_style_reference", "vit_style_reference", "gram_reference",
                       "embedding_style_reference"]),
    ],
)  # fmt: skip
def test_what_an_output_equals_is_at_zero(run, tmp_path, source, zero):
    """And nothing else is: no column compares with another image than its name says."""
    _, about, cells, said = run(write(tmp_path / "out", source))
    assert set(cells) == set(CELLS) and about["outputs"] == about["of"] == 24
    assert len(about["summary"]) == 17
    for name in about["summary"]:
        values = column(cells, name)
        assert (values < 1e-6).all() if name in zero else (values > 1e-4).all(), name
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
    cells = run(folder)[2]
    rows = {"output": ("Sketch", "Sea", 5), "truth": ("Sketch", "Sea", 20)}
    rows |= {"reference": ("Sketch", "Sea", 2), "photo": (PHOTO, "Sea", 20)}
    looks = {
        role: losses.vgg_features(
            encoder(torch.from_numpy(np.array(mini.image(*row))).permute(2, 0, 1)[None] / 255)
        )
        for role, row in rows.items()
    }
    row = cells["Sketch", "Sea", 20, 2]
    for name in ("style_truth", "style_reference", "content_photo", "content_truth"):
        kind, _, role = name.partition("_")
        wanted = getattr(losses, f"{kind}_loss")(looks["output"], looks[role]).item()
        assert float(row[f"vgg_{name}"]) == pytest.approx(wanted, rel=1e-4)


def test_batches_do_not_matter(run, tmp_path):
    folder = write(tmp_path / "out", lambda s, o, c, r: (s, o, (c + r) % 18 + 1))
    whole = run(folder)[2]
    for flags in (["--batch", 1], ["--batch", 5]):
        shutil.rmtree(folder / "judged")
        other = run(folder, *flags)[2]
        for name in next(iter(whole.values())):
            if name.startswith(("vgg", "vit", "mini")):
                values = [[float(rows[cell][name]) for cell in CELLS] for rows in (whole, other)]
                np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-6)


def test_same_rows_same_bytes(run, tmp_path):
    folder = write(tmp_path / "out", style_image)
    files = []
    for _ in range(2):
        shutil.rmtree(folder / "judged", ignore_errors=True)
        run(folder)
        files.append([(folder / name).read_bytes() for name in ("losses.csv.gz", "losses.json")])
    assert files[0] == files[1]


def test_published(run, tmp_path):
    """A perfect output gets the floor, another one does not; the photo and the reference do not enter."""
    _, about, cells, said = run(write(tmp_path / "a", truth), variant="published")
    assert set(about["summary"]) == {
        "vgg_content", "vgg_style", "vgg_content_floor", "vgg_style_floor", "vit_style",
    }  # fmt: skip
    for name in ("content", "style"):
        floor = column(cells, f"vgg_{name}_floor")
        assert (floor > 1e-3).all()
        np.testing.assert_allclose(column(cells, f"vgg_{name}"), floor, rtol=1e-3)
    assert (column(cells, "vit_style") < 1e-6).all()
    assert set(about["judges"]) == {"vgg", "style_classifier", *FILES} and "floor" in said
    other = run(write(tmp_path / "b", photo), variant="published")[2]
    direct = run(tmp_path / "b")[2]
    np.testing.assert_allclose(column(other, "vgg_style_floor"), column(cells, "vgg_style_floor"), rtol=1e-3)
    assert not np.allclose(column(other, "vgg_content"), column(cells, "vgg_content"), rtol=1e-2)
    assert not np.allclose(column(other, "vit_style"), column(direct, "vit_style_truth"), rtol=1e-2)


def test_outputs_of_the_command(run, tmp_path):
    """The manifest tells the data set and the protocol, also the one of other objects."""
    weights = toy.released(tmp_path / "weights")
    for flags in ([], ["--cross-object"]):
        out = tmp_path / f"out{len(flags)}"
        toy.main(["--weights", str(weights), "--data", "mini", "--out", str(out), *FEW, *flags])
        code, about, cells, _ = run(out, few=FEW)
        assert code == 0 and len(cells) == 24 and about["made"]["method"] == "toy"
        assert about["protocol"]["name"] == "transfer-mini" + "-cross" * len(flags)
        assert (
            about["protocol"]["hash"] == json.loads((out / "manifest.json").read_text())["protocol"]["hash"]
        )
    code, _, _, said = run(out, "--protocol", "transfer")
    assert code == 2 and "names protocol transfer-mini-cross; leave it out" in said


def test_foreign_folder_of_jpegs(run, tmp_path):
    code, about, cells, _ = run(write(tmp_path / "out", truth, ".jpg"))
    assert code == 0 and len(cells) == 24
    assert about["made"] == {"method": None, "weights": None, "options": None}
    assert 0 < about["summary"]["vgg_style_truth"]["mean"] < about["summary"]["vgg_style_reference"]["mean"]


def test_a_selection_is_never_taken_for_all(run, judged, tmp_path):
    """It has files of its own, and what it judged is not judged again."""
    folder = write(tmp_path / "out", truth)
    code, about, cells, said = run(folder, few=["--styles", "Rust"])
    assert code == 0 and len(cells) == 12 and (about["outputs"], about["of"]) == (12, 24)
    assert about["selection"] == {"styles": ["Rust"], "objects": None} and "12 of 24 outputs" in said
    assert {path.name for path in folder.glob("losses*")} == {"losses-partial.json", "losses-partial.csv.gz"}
    _, about, cells, _ = run(folder)
    assert judged == ["Rust_Cats", "Rust_Sea", "Sketch_Cats", "Sketch_Sea"] and len(cells) == 24
    whole = [(folder / name).read_bytes() for name in ("losses.json", "losses.csv.gz")]
    assert about["outputs"] == about["of"] == 24 and len(run(folder, few=["--objects", "Sea"])[2]) == 12
    assert [(folder / name).read_bytes() for name in ("losses.json", "losses.csv.gz")] == whole


def test_outputs_that_are_missing_or_unreadable_lose_nothing_else(run, judged, tmp_path):
    whole, folder = (write(tmp_path / name, truth) for name in ("whole", "out"))
    run(whole)
    judged.clear()
    broken, missing = (folder / "Rust" / f"Cats_test19_ref{n}.png" for n in (1, 2))
    broken.write_bytes(b"no picture")
    missing.unlink()
    code, about, cells, said = run(folder)
    assert code == 2 and set(cells) == {*CELLS} - {("Rust", "Cats", 19, 1), ("Rust", "Cats", 19, 2)}
    assert "2 of 24 outputs could not be judged" in said and f"{missing}: no such file" in said
    assert f"{broken}: not a readable image" in said and set(about["faults"]) == {str(broken), str(missing)}
    assert not (folder / "losses.json").exists()
    for path in (broken, missing):
        shutil.copy(whole / path.relative_to(folder), path)
    judged.clear()
    code, about, cells, _ = run(folder)
    assert code == 0 and judged == ["Rust_Cats"] and len(cells) == 24 and about["faults"] == {}
    for name in ("losses.json", "losses.csv.gz"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_missing_outputs_may_be_meant(run, tmp_path):
    folder = write(tmp_path / "out", truth, cells=CELLS[:13])
    code, about, cells, said = run(folder, "--partial")
    assert code == 0 and set(cells) == set(CELLS[:13]) and (about["outputs"], about["of"]) == (13, 24)
    assert "13 of 24 outputs" in said and not (folder / "losses.json").exists()
    (tmp_path / "empty").mkdir()
    code, _, _, said = run(tmp_path / "empty", "--partial")
    assert code == 2 and "none of the outputs is there" in said


def test_a_missing_image_of_the_data_set_loses_what_needs_it(run, tmp_path):
    """The ground truth of one photo in one style."""
    data, folder = tmp_path / "data", write(tmp_path / "out", truth)
    for theme, obj, index in [
        (theme, obj, n) for theme in (PHOTO, *STYLES) for obj in OBJECTS for n in (1, 2, 3, 19, 20)
    ]:
        path = data / theme / obj / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        mini.image(theme, obj, index).save(path)
    (data / "Rust" / "Sea" / "20.png").unlink()
    code, _, cells, said = run(folder, "--data", data)
    assert code == 2 and set(CELLS) - set(cells) == {("Rust", "Sea", 20, n) for n in (1, 2, 3)}
    assert "Rust/Sea/20" in said and "repair --data" in said


def test_a_killed_judging_goes_on_with_the_same_bytes(run, monkeypatch, tmp_path):
    whole, folder = (write(tmp_path / name, style_image) for name in ("whole", "out"))
    run(whole)
    count, judge = [], judging.Panel.judge

    def killed(panel, cell):
        if len(count) == 2:
            raise KeyboardInterrupt
        count.append(cell)
        return judge(panel, cell)

    monkeypatch.setattr(judging.Panel, "judge", killed)
    assert run(folder)[0] == 130 and not list(folder.glob("losses*"))
    count.clear()
    monkeypatch.setattr(judging.Panel, "judge", lambda *words: count.append(1) or judge(*words))
    assert run(folder, "--batch", 5)[0] == 0 and len(count) == 2  # in the batches that it began with
    for name in ("losses.json", "losses.csv.gz"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_processes_share_the_cells(run, judged, monkeypatch, tmp_path):
    """Another one is at the first: this one judges the rest, and says so."""
    folder = write(tmp_path / "out", truth)
    run(folder, few=["--styles", "Sketch", "--objects", "Sea"])
    (work,) = (folder / "judged").iterdir()
    judged.clear()
    monkeypatch.setattr(claims, "PATIENCE_SECONDS", 0)
    other = claims.claimed(work, [("Rust_Cats", None)], lambda _: False)
    next(other)
    code, about, cells, said = run(folder)
    assert code == 2 and "6 are with other processes" in said and len(cells) == about["outputs"] == 18
    assert judged == ["Sketch_Cats", "Rust_Sea"]
    other.close()
    assert run(folder)[0] == 0 and judged[2:] == ["Rust_Cats"]


def test_outputs_that_were_made_anew_are_judged_anew(run, judged, tmp_path):
    folder = write(tmp_path / "out", truth)
    before = run(folder)[2]
    judged.clear()
    assert run(folder)[0] == 0 and not judged
    path = folder / "Sketch" / "Cats_test20_ref3.png"
    mini.image(PHOTO, "Cats", 20).save(path)
    os.utime(path, ns=(path.stat().st_mtime_ns + 10**9,) * 2)
    after = run(folder)[2]
    assert judged == ["Sketch_Cats"]
    assert [cell for cell in CELLS if before[cell] != after[cell]] == [("Sketch", "Cats", 20, 3)]


def test_outputs_of_a_clock_that_is_ahead_are_judged_once(run, judged, tmp_path):
    folder = write(tmp_path / "out", truth)
    tomorrow = 2 * (time.time_ns() + 86400 * 10**9,)
    for path in folder.glob("*/*.png"):
        os.utime(path, ns=tomorrow)
    assert run(folder)[0] == 0 and (folder / "losses.json").exists() and len(judged) == 4
    assert run(folder)[0] == 0 and len(judged) == 4


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_every_image_is_encoded_once(run, monkeypatch, tmp_path, batch):
    """Outputs; ground truths and references of every cell; photos of an object for both styles."""
    count, forward = [], vgg.Encoder.forward
    monkeypatch.setattr(
        vgg.Encoder, "forward", lambda self, images: count.append(len(images)) or forward(self, images)
    )
    run(write(tmp_path / "out", truth), "--batch", batch)
    assert sum(count) == 24 + 4 * 2 + 4 * 3 + 2 * 2


def test_the_published_judge_encodes_a_ground_truth_once(run, monkeypatch, tmp_path):
    count = {"encode_style": 0, "encode_content": 0}

    def counted(name, function):
        def call(network, images):
            count[name] += len(images)
            return function(network, images)

        return call

    for name in count:
        monkeypatch.setattr(StyTr2, name, counted(name, getattr(StyTr2, name)))
    run(write(tmp_path / "out", photo), variant="published")
    assert count == {"encode_style": 8, "encode_content": 24 + 8}


def test_half_precision_is_near(run, tmp_path):
    """And has rows of its own: no cell of the one is taken for one of the other."""
    folder = write(tmp_path / "out", lambda s, o, c, r: (s, o, (c + r) % 18 + 1))
    single = run(folder)[2]
    _, about, half, _ = run(folder, "--dtype", "float16")
    assert about["dtype"] == "float16" and len(list((folder / "judged").iterdir())) == 2
    for name in about["summary"]:
        values = [np.array([float(rows[cell][name]) for cell in CELLS]) for rows in (single, half)]
        np.testing.assert_allclose(*values, rtol=0.03, atol=1e-3, err_msg=name)


def test_gram_distance_by_numpy(encoder, images):
    wanted = np.zeros(3)
    for one, other in zip(*(encoder(x) for x in images)):
        for i in range(3):
            x, y = (f[i].flatten(1).double().numpy() for f in (one, other))
            wanted[i] += ((x @ x.T / x.shape[1] - y @ y.T / y.shape[1]) ** 2).mean()
    got = losses.feature_loss(*(losses.grams(encoder(x)) for x in images))
    np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_without_vgg(run, tmp_path, monkeypatch, capsys):
    folder = write(tmp_path / "out", truth)
    monkeypatch.setitem(opening.DEFAULTS, True, ("none.pth", *MINI))
    evaluate.main([str(folder), "--data", "mini", *FEW])
    said = capsys.readouterr().out
    assert "not all was measured, for want of a file: --vgg" in said and "vit_style_truth" in said
    assert "vgg" not in json.loads((folder / "losses-partial.json").read_text())["summary"]


def test_refusals(run, tmp_path, capsys):
    folder = write(tmp_path / "out", truth)
    with pytest.raises(SystemExit):
        evaluate.main([str(folder)])
    assert "no manifest.json that names the data set; give --data" in capsys.readouterr().err
    for flags, text in {
        ("--vgg", "nowhere.pth"): "--vgg nowhere.pth: no such file",
        ("--vgg", MINI[0]): f"{MINI[0]}: no weights of the VGG encoder",
        ("--style-classifier", MINI[1]): "a classifier of the object task",
        ("--styles", "Rsut"): "--styles Rsut: not in the protocol; did you mean Rust?",
    }.items():
        code, _, _, said = run(folder, *flags)
        assert code == 2 and text in said and said.count("\n") == 1, (flags, said)
    code, _, _, said = run(folder, "--stytr2", tmp_path, variant="published")
    assert code == 2 and "StyTr2 needs the file decoder_iter_160000.pth" in said
    assert run(tmp_path / "nowhere")[0] == 2
    Image.new("RGB", (8, 8), "grey").save(tmp_path / "one.png")
    own, one = tmp_path / "own", str(tmp_path / "one.png")
    toy.main(["--weights", str(toy.released(own)), "--out", str(own), "--content", one, "--style", one])
    code, _, _, said = run(own)
    assert code == 2 and "only the benchmark's have a ground truth" in said
