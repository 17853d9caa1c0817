"""The contact sheet: which picture stands where."""

import shutil

import numpy as np
import pytest
from PIL import Image

from evaluation.canvas import PHOTO
from evaluation.contact_sheet import GAP, LABELS, MARGIN
from evaluation.mini import dataset as mini
from style_transfer import sheet, trivial

FEW = ["--styles", "Rust", "Sketch", "Winter", "--objects", "Cats", "Sea"]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("outputs")
    for name in trivial.TRANSFERS:
        trivial.main([name, "--data", "mini", *FEW, "--out", str(root / name)])
    return root


@pytest.fixture
def root(outputs, tmp_path):
    return shutil.copytree(outputs, tmp_path / "root")


def cells(path, side=64):
    """The images on the page, [rows, columns, side - 2, side - 2, 3], without their edges."""
    page = np.asarray(Image.open(path))[MARGIN + sheet.HEADER : -MARGIN, MARGIN + LABELS : -MARGIN]
    rows, columns = page.shape[0] // (side + GAP), page.shape[1] // (side + GAP)
    page = page.reshape(rows, side + GAP, columns, side + GAP, 3).swapaxes(1, 2)
    return page[:, :, 1 : side - 1, 1 : side - 1]


def drawn(*row):
    return np.asarray(mini.image(*row))[1:-1, 1:-1]


def test_every_picture_in_its_place(root):
    sheet.main([str(root), *FEW, "--side", "64", "--out", str(root / "sheet.png")])
    found = cells(root / "sheet.png")
    assert found.shape[:2] == (3, 5)
    rows = [("Rust", "Cats", 19, 1), ("Sketch", "Sea", 20, 2), ("Winter", "Cats", 19, 3)]
    for row, (style, obj, content, reference) in zip(found, rows):
        assert (row[0] == drawn(PHOTO, obj, content)).all()
        assert (row[1] == drawn(style, obj, reference)).all()
        for cell, name in zip(row[2:4], trivial.TRANSFERS):
            output = Image.open(root / name / style / f"{obj}_test{content}_ref{reference}.png")
            assert (cell == np.asarray(output)[1:-1, 1:-1]).all()
        assert (row[4] == drawn(style, obj, content)).all()


def test_missing_outputs_are_white_and_images_may_be_enlarged(root):
    (root / "statistics" / "Rust" / "Cats_test19_ref1.png").unlink()
    sheet.main([str(root), *FEW, "--side", "128", "--out", str(root / "sheet.png")])
    found = cells(root / "sheet.png", 128)
    assert (found[0, 3] == 255).all() and not (found[1, 3] == 255).all()
    twice = np.asarray(mini.image(PHOTO, "Cats", 19)).repeat(2, 0).repeat(2, 1)
    assert (found[0, 0] == twice[1:-1, 1:-1]).all()


def test_refusals(root, tmp_path, capsys):
    def refused(folder, *flags):
        with pytest.raises(SystemExit):
            sheet.main([str(folder), *flags, "--out", str(tmp_path / "sheet.png")])
        assert not (tmp_path / "sheet.png").exists()
        return capsys.readouterr().err

    assert "no folder of outputs" in refused(root / "content")
    assert "did you mean Rust" in refused(root, "--styles", "Rsut")
    trivial.main(["content", "--data", "mini", *FEW, "--cross-object", "--out", str(root / "cross")])
    assert "cross: other pairs than" in refused(root)
