"""Pictures to what networks take, and back: sizes, padding and its removal, bytes, folders."""

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.core.errors import UserError
from evaluation.data.images import to_tensor
from style_transfer.core import cli, images


def picture(colour=(200, 30, 60), size=(6, 4)):
    return Image.new("RGB", size, colour)


def test_large_pictures_are_reduced_and_small_ones_are_not():
    assert images.smaller(picture(size=(300, 60)), 100).size == (100, 20)
    assert images.smaller(picture(size=(300, 1)), 100).size == (100, 1)
    same = picture(size=(300, 60))
    assert images.smaller(same, 300).tobytes() == same.tobytes()


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (33, 64), (50, 31)])
def test_padding_keeps_the_picture_and_mirrors_it(size):
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    padded = images.pad(image, 16)
    assert all(side % 16 == 0 and side >= images.LEAST for side in padded.shape[1:])
    assert torch.equal(padded[:, : size[0], : size[1]], image)
    if min(size) > 32:
        height, width = size
        assert torch.equal(padded[:, height, :width], image[:, height - 2])
    assert torch.equal(images.pad(padded, 16), padded)


def test_bytes_round_or_are_cut_off():
    values = torch.tensor([-0.5, 0.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.0, 7.0]).expand(3, 1, 7)
    assert images.to_bytes(values)[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255, 255]
    assert images.to_bytes(values, truncate=True)[0, :, 0].tolist() == [0, 0, 0, 0, 254, 255, 255]
    every = np.arange(768, dtype=np.uint8).reshape(16, 16, 3)
    assert (images.to_bytes(to_tensor(Image.fromarray(every))) == every).all()


def test_folder(tmp_path):
    for name in ("b.png", "a.jpg", ".hidden.png"):
        picture().save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "c.PNG").write_bytes(b"damaged, so it is reported later")
    assert [path.name for path in cli.pictures(tmp_path, "--style")] == ["a.jpg", "b.png", "c.PNG"]
    assert cli.pictures(tmp_path / "a.jpg", "--style") == [tmp_path / "a.jpg"]
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"--style .*none: no pictures in this folder"):
        cli.pictures(tmp_path / "none", "--style")
    with pytest.raises(UserError, match=r"--content .*nowhere: no such file or folder"):
        cli.pictures(tmp_path / "nowhere", "--content")
