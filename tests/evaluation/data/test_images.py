"""The data set as rows, from a folder and drawn on the fly."""

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation import canvas
from evaluation.core.errors import UserError
from evaluation.data.images import CanvasImages, to_tensor
from evaluation.data.pictures import square
from evaluation.mini import dataset as mini

CELLS = [("Rust", "Cats"), ("Sketch", "Sea")]


def test_rows_of_a_folder(tmp_path):
    for theme, obj in [*CELLS, (canvas.PHOTO, "Cats"), (canvas.PHOTO, "Sea")]:
        for index in (1, 2):
            path = canvas.image_path(tmp_path, theme, obj, index)
            path.parent.mkdir(parents=True, exist_ok=True)
            shade = 100 * (theme == canvas.PHOTO) + 10 * index + (obj == "Sea")
            Image.new("RGB", (20, 20), (shade,) * 3).save(path, quality=100)
    images = CanvasImages(tmp_path, CELLS, (1, 2), 8)
    assert images.rows == [(*cell, index) for cell in CELLS for index in (1, 2)] and len(images) == 4
    item = images[3]
    assert (item["theme"], item["object"], item["index"]) == ("Sketch", "Sea", 2)
    assert item["image"].shape == (3, 8, 8) and item["image"].dtype == torch.float32
    torch.testing.assert_close(item["image"], torch.full((3, 8, 8), 21 / 255))
    torch.testing.assert_close(images.photo(3), torch.full((3, 8, 8), 121 / 255))
    with pytest.raises(UserError, match=r"2 of 6 images are missing, first .*Rust/Cats/3\.jpg"):
        CanvasImages(tmp_path, CELLS, (1, 2, 3), 8)
    with pytest.raises(UserError, match="no images asked for"):
        CanvasImages(tmp_path, [], (1, 2), 8)


def test_drawn_images_are_those_of_the_miniature():
    images = CanvasImages("mini:3", CELLS, (4,), 64)
    assert images.drawn
    picture = np.asarray(square(mini.image("Sketch", "Sea", 4, seed=3), 64))
    assert torch.equal(images[1]["image"], to_tensor(Image.fromarray(picture)))
    assert not torch.equal(images[1]["image"], CanvasImages("mini", CELLS, (4,), 64)[1]["image"])


def test_bicubic_is_the_original_s_resize():
    picture = mini.image("Sketch", "Sea", 4, seed=3)
    ways = (), ("bilinear",), ("bicubic",)
    made = [CanvasImages("mini:3", CELLS, (4,), 24, *way)[1]["image"] for way in ways]
    assert torch.equal(made[2], to_tensor(picture.resize((24, 24), Image.Resampling.BICUBIC)))
    assert torch.equal(made[0], made[1]) and not torch.equal(made[1], made[2])


@pytest.mark.parametrize("root", ["mini:abc", "mini:", "mini:-1", "mini:1.5", "nowhere"])
def test_a_source_that_is_none(root):
    with pytest.raises(UserError, match=f"--data {root}: "):
        CanvasImages(root, [("Rust", "Cats")])
