"""Pictures of every kind become RGB, or one sentence; padding and its removal."""

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.core.errors import UserError
from evaluation.data.images import to_tensor
from style_transfer.core import images

RED, GREY = (200, 30, 60), (128, 128, 128)


def picture(colour=RED, size=(6, 4)):
    return Image.new("RGB", size, colour)


def sixteen():
    return Image.fromarray(np.full((4, 6), 128 * 257, np.uint16))


def half_transparent():
    image = Image.new("RGBA", (6, 4), (0, 0, 0, 0))
    image.paste((*RED, 255), (0, 0, 3, 4))
    return image


@pytest.mark.parametrize(
    "name, make, expected",
    [
        ("plain.png", picture, RED),
        ("palette.png", lambda: picture().quantize(4), RED),
        ("grey.png", lambda: picture(GREY).convert("L"), GREY),
        ("one_bit.png", lambda: Image.new("1", (6, 4), 1), (255, 255, 255)),
        ("cmyk.tif", lambda: picture(GREY).convert("CMYK"), GREY),
        ("sixteen.png", sixteen, GREY),
        ("sixteen.tif", sixteen, GREY),
        ("thirty_two.tif", lambda: Image.fromarray(np.full((4, 6), 128 * 257, np.int32)), GREY),
        ("grey_alpha.png", lambda: picture(GREY).convert("LA"), GREY),
    ],
)
def test_kinds(tmp_path, name, make, expected):
    make().save(tmp_path / name)
    read = images.read(tmp_path / name)
    assert read.mode == "RGB" and read.size == (6, 4)
    assert np.abs(np.asarray(read).astype(int) - expected).max() <= 1


def test_transparency_lies_over_white(tmp_path):
    half_transparent().save(tmp_path / "alpha.png")
    palette = half_transparent().convert("RGB").quantize(4)
    palette.save(tmp_path / "palette.png", transparency=palette.getpixel((5, 0)))
    for name in ("alpha.png", "palette.png"):
        read = images.read(tmp_path / name)
        assert read.getpixel((0, 0)) == RED and read.getpixel((5, 0)) == (255, 255, 255), name


def test_upright(tmp_path):
    image = picture()
    image.putpixel((0, 0), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    read = images.read(tmp_path / "turned.png")
    assert read.size == (4, 6) and read.getpixel((3, 0)) == (0, 0, 0)


def test_large_pictures_are_reduced_and_small_ones_are_not(tmp_path):
    picture(size=(300, 60)).save(tmp_path / "wide.png")
    assert images.read(tmp_path / "wide.png", 100).size == (100, 20)
    assert images.read(tmp_path / "wide.png", 300).size == (300, 60)
    picture(size=(300, 1)).save(tmp_path / "line.png")
    assert images.read(tmp_path / "line.png", 100).size == (100, 1)


def test_what_cannot_be_read_is_a_sentence(tmp_path, monkeypatch):
    picture(size=(64, 64)).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    content = {"cut.jpg": whole[: len(whole) // 2], "text.png": b"no picture", "empty.jpg": b""}
    for name, held in content.items():
        (tmp_path / name).write_bytes(held)
        with pytest.raises(
            UserError, match=rf"{name}: not a readable picture \(.*\); save it again"
        ) as caught:
            images.read(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"none\.png: no such file"):
        images.read(tmp_path / "none.png")
    with pytest.raises(UserError, match="not a readable picture"):
        images.read(tmp_path)
    Image.fromarray(np.full((4, 6), 0.5, np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(UserError, match=r"float\.tif: its values are neither 8 nor 16 bits"):
        images.read(tmp_path / "float.tif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match=r"whole\.jpg: has too many pixels"):
        images.read(tmp_path / "whole.jpg")


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
    assert [path.name for path in images.in_folder(tmp_path, "--style")] == ["a.jpg", "b.png", "c.PNG"]
    assert images.in_folder(tmp_path / "a.jpg", "--style") == [tmp_path / "a.jpg"]
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"--style .*none: no pictures in this folder"):
        images.in_folder(tmp_path / "none", "--style")
    with pytest.raises(UserError, match=r"--content .*nowhere: no such file or folder"):
        images.in_folder(tmp_path / "nowhere", "--content")
