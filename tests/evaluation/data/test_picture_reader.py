"""Pictures of every kind become RGB as a viewer shows them, or one sentence."""

import functools
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from evaluation.core.errors import UserError
from evaluation.data.damage import damage
from evaluation.data.pictures import read_picture, square, thumbnail
from evaluation.mini import dataset as mini

RED, GREY = (200, 30, 60), (128, 128, 128)


def picture(colour=RED, size=(6, 4)):
    return Image.new("RGB", size, colour)


def numbers(value, kind):
    return lambda: Image.fromarray(np.full((4, 6), value, kind))


def half_transparent():
    image = Image.new("RGBA", (6, 4), (0, 0, 0, 0))
    image.paste((*RED, 255), (0, 0, 3, 4))
    return image


def content(image, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def array(image):
    return np.asarray(image).astype(int)


@pytest.mark.parametrize(
    "name, make, expected",
    [
        ("plain.png", picture, RED),
        ("palette.png", lambda: picture().quantize(4), RED),
        ("grey.png", lambda: picture(GREY).convert("L"), GREY),
        ("bits.png", lambda: Image.new("1", (6, 4), 1), (255, 255, 255)),
        ("cmyk.tif", lambda: picture(GREY).convert("CMYK"), GREY),
        ("sixteen.png", numbers(128 * 257, np.uint16), GREY),
        ("sixteen.tif", numbers(128 * 257, np.uint16), GREY),
        ("thirty_two.tif", numbers(128 * 257, np.int32), GREY),
        ("float.tif", numbers(128 / 255, np.float32), GREY),
        ("white.tif", numbers(1, np.float32), (255, 255, 255)),
        ("grey_alpha.png", lambda: picture(GREY).convert("LA"), GREY),
    ],
)
def test_kinds(tmp_path, name, make, expected):
    make().save(tmp_path / name)
    image = read_picture(tmp_path / name)
    assert image.mode == "RGB" and image.size == (6, 4)
    assert np.abs(array(image) - expected).max() <= 1


@pytest.mark.parametrize("value", [np.float32(3), np.float32("nan"), np.int32(-1), np.int32(65536)])
def test_numbers_of_unknown_scale_are_refused(value):
    values = np.zeros((4, 6), value.dtype)
    values[1, 1] = value
    with pytest.raises(UserError, match=r"odd\.tif: not a readable image \(its values are not within 0 and"):
        read_picture(content(Image.fromarray(values), "TIFF"), "odd.tif")


def test_what_has_8_bits_keeps_them(tmp_path):
    """As the published training decoded it: opened and converted, nothing else."""
    levels = Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3))
    opaque = levels.copy()
    opaque.putalpha(255)
    for name, image in {
        "a.png": levels,
        "a.jpg": mini.image("Rust", "Cats", 1),
        "l.jpg": levels.convert("L"),
        "p.png": levels.quantize(64),
        "rgba.png": opaque,
        "cmyk.jpg": levels.convert("CMYK"),
    }.items():
        image.save(tmp_path / name)
        expected = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        assert (np.asarray(read_picture(tmp_path / name)) == expected).all(), name


def test_a_path_its_bytes_and_its_file_are_the_same(tmp_path):
    path = tmp_path / "a.jpg"
    mini.image("Rust", "Cats", 1).save(path)
    with open(path, "rb") as file:
        images = [read_picture(path), read_picture(path.read_bytes(), path), read_picture(file, path)]
    assert len({image.tobytes() for image in images}) == 1


def test_transparency_lies_on_white():
    palette = half_transparent().convert("RGB").quantize(4)
    for image, options in ((half_transparent(), {}), (palette, {"transparency": palette.getpixel((5, 0))})):
        shown = read_picture(content(image, **options), "a.png")
        assert shown.getpixel((0, 0)) == RED and shown.getpixel((5, 0)) == (255, 255, 255), image.mode


@pytest.mark.parametrize("orientation, stored", [(3, "ROTATE_180"), (6, "ROTATE_90"), (8, "ROTATE_270")])
def test_upright(orientation, stored):
    shown, exif = mini.image("Seed_Images", "Towers", 19).crop((0, 0, 64, 40)), Image.Exif()
    exif[0x0112] = orientation
    lying = shown.transpose(Image.Transpose[stored])
    assert (array(read_picture(content(lying, exif=exif), "a.png")) == array(shown)).all()
    photo = read_picture(content(lying, "JPEG", quality=100, subsampling=0, exif=exif), "a.jpg")
    assert photo.size == shown.size and np.abs(array(photo) - array(shown)).mean() < 1


def test_broken_exif_data_beside_sound_pixels_are_no_damage():
    whole = content(picture(), "JPEG", exif=b"Exif\0\0no TIFF header at all")
    assert (array(read_picture(whole, "a.jpg")) == array(Image.open(io.BytesIO(whole)))).all()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@functools.cache
def damaged() -> dict[str, bytes]:
    """Files that decoders leave in different ways."""
    whole, jpeg = content(mini.image("Rust", "Cats", 1)), content(mini.image("Rust", "Cats", 1), "JPEG")
    start, end = whole.find(b"IDAT") + 4, whole.find(b"IEND") - 4
    data = whole[start : end - 4]
    half = len(data) // 2
    broken = chunk(b"IDAT", data[:half]) + struct.pack(">I", len(data) - half) + b"ID\xc3(" + data[half:]
    return {
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": whole[:200],
        "text.png": b"no picture",
        "empty.jpg": b"",
        "chunk.png": whole[: start - 8] + broken + b"\0" * 4 + chunk(b"IEND", b""),  # SyntaxError
        "header.png": whole[:end] + chunk(b"IHDR", b"") + whole[end:],  # ValueError or struct.error
        "stream.png": whole[: start - 8] + chunk(b"IDAT", b"?" * 99) + whole[end:],
        "large.png": content(Image.new("1", (14000, 14000))),
    }


@pytest.mark.parametrize("name", damaged())
def test_what_cannot_be_read_is_a_sentence(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(damaged()[name])
    for source in (path, path.read_bytes()):
        with pytest.raises(UserError) as error:
            read_picture(source, path)
        reason = "has too many pixels" if name == "large.png" else "not a readable image ("
        assert str(error.value).startswith(f"{path}: {reason}") and "\n" not in str(error.value)
    assert damage(path, decode=True) and damage(path.read_bytes(), decode=True)


def test_no_file_a_folder_and_many_pixels(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"none\.png: no such file"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(UserError, match="not a readable image"):
        read_picture(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    large = content(picture(size=(64, 64)))
    with pytest.raises(UserError, match="too many pixels"), pytest.warns(Image.DecompressionBombWarning):
        read_picture(large, "a.png")  # of which PIL only warns
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4096)
    assert read_picture(large, "a.png").size == (64, 64)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"])
def test_files_changed_by_chance_end_in_a_picture_or_a_sentence(kind):
    noise, whole = np.random.default_rng(0), content(mini.image("Rust", "Cats", 1), kind)
    refused = 0
    for _ in range(200):
        file = np.frombuffer(whole, np.uint8).copy()
        places = noise.integers(0, min(len(file), 400), 4)
        file[places] = noise.integers(0, 256, 4)
        try:
            assert read_picture(file.tobytes(), "a").mode == "RGB"
        except UserError:
            refused += 1
    assert refused > 5


def test_square_takes_the_centre():
    wide = Image.new("RGB", (30, 10), "red")
    wide.paste("blue", (10, 0, 20, 10))
    assert np.unique(np.asarray(square(wide, 5)).reshape(-1, 3), axis=0).tolist() == [[0, 0, 255]]


def test_thumbnails_are_squares():
    assert thumbnail(picture(), 16).size == (16, 16)
