"""The smaller copy of the data set: same layout and pixels, made once, resumable, checked."""

import hashlib
import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from evaluation import canvas, prepare
from evaluation.core.errors import UserError
from evaluation.data.images import CanvasImages
from tests.evaluation.test_images_parquet import CELLS, ROWS, cache, write_shards  # noqa: F401

CELL = [("Rust", "Cats"), (canvas.PHOTO, "Cats")]


def picture(row):
    """A smooth picture of its own for every row, wider than high."""
    y, x = np.mgrid[:30, :40] / 40
    shade = 127 + 120 * np.sin(6 * x + row[2] + y * (1 + len(row[0]) % 5))
    return Image.fromarray(np.stack([shade, shade[:, ::-1], 255 - shade], -1).astype(np.uint8))


@pytest.fixture
def data(tmp_path):
    for cell in CELL:
        for index in range(1, 4):
            path = canvas.image_path(tmp_path / "data", *cell, index)
            path.parent.mkdir(parents=True, exist_ok=True)
            picture((*cell, index)).save(path, quality=100, subsampling=0)
    return tmp_path / "data"


def run(*arguments):
    prepare.main([*map(str, arguments)])


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.jpg")}


def test_a_folder(data, tmp_path, capsys):
    out = tmp_path / "out"
    run(data, out, "--size", 16, "--workers", 2)
    assert "6 images of 16 pixels" in capsys.readouterr().out
    copy, original = (CanvasImages(root, CELL, (1, 2, 3), 16) for root in (out, data))
    for row, a, b in zip(copy.rows, copy, original, strict=True):
        assert copy.original(row).size == (16, 16)
        assert (a["image"] - b["image"]).abs().mean() < 3 / 255  # JPEG of the square of the original
    assert (copy[0]["image"] - copy[1]["image"]).abs().mean() > 3 / 255
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=out, check=True)
    run("--verify", out)
    assert "6 images, all as they were written" in capsys.readouterr().out


def test_shards_give_the_same_bytes_as_the_folder(tmp_path):
    shards = write_shards(tmp_path / "shards", ROWS)
    for row in ROWS:
        path = canvas.image_path(tmp_path / "folder", *row)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CanvasImages(shards, [row[:2]], (row[2],), 8).shards.open(row).read())
        if row[2] == 3:
            break
    run(shards, tmp_path / "a", "--size", 8, "--workers", 2)
    run(tmp_path / "folder", tmp_path / "b", "--size", 8, "--workers", 1)
    a, b = files(tmp_path / "a"), files(tmp_path / "b")
    assert len(a) == len(CELLS) * 20 and len(b) == 3 and b.items() <= a.items()


def test_a_stopped_run_goes_on(data, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    run(data, whole, "--size", 16, "--workers", 1)
    run(data, out, "--size", 16, "--workers", 1)
    (out / "Rust/Cats/2.jpg").unlink()
    (out / "SHA256SUMS").unlink()
    kept = (out / "Rust/Cats/1.jpg").stat().st_mtime_ns
    run(data, out, "--size", 16, "--workers", 1)
    assert (out / "Rust/Cats/1.jpg").stat().st_mtime_ns == kept  # not made again
    assert files(out) == files(whole) and prepare.read_sums(out) == prepare.read_sums(whole)


def test_a_change_is_found_and_never_blessed(data, tmp_path, capsys):
    out = tmp_path / "out"
    run(data, out, "--size", 16, "--workers", 1)
    (out / "Rust/Cats/2.jpg").write_bytes(b"?")
    run(data, out, "--size", 16, "--workers", 1)  # the sum of an image is taken once
    with pytest.raises(SystemExit):
        run("--verify", out)
    out_text, error = capsys.readouterr()
    assert "Rust/Cats/2.jpg" in out_text and "1 of 6 images are missing or changed" in error
    (out / "Rust/Cats/2.jpg").unlink()
    picture((*CELL[0], 9)).save(data / "Rust/Cats/2.jpg")  # another original
    run(data, out, "--size", 16, "--workers", 1)
    run("--verify", out)
    name = "Rust/Cats/2.jpg"
    assert prepare.read_sums(out)[name] == hashlib.sha256((out / name).read_bytes()).hexdigest()


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit:
        run(*arguments)
    assert exit.value.code == 2
    return "".join(capsys.readouterr())


def test_refusals(data, tmp_path, capsys):
    out = tmp_path / "out"
    run(data, out, "--size", 16, "--workers", 1)
    assert "holds images of 16 pixels" in refused(capsys, data, out, "--size", 8)
    before = files(data)
    assert "not empty and not made by this command" in refused(capsys, data, data, "--size", 8)
    assert files(data) == before and not (data / "prepared.json").exists()
    assert "no images of the data set" in refused(capsys, tmp_path, tmp_path / "other")
    assert "OUT is missing" in refused(capsys, data)
    assert "no SHA256SUMS" in refused(capsys, "--verify", data)
    assert json.loads((out / "prepared.json").read_text())["size"] == 16


def test_two_sources_are_not_mixed(data, tmp_path, capsys):
    """Whatever made the images that are there must be what goes on, wherever it lies by then."""
    out, other = tmp_path / "out", tmp_path / "other"
    run(data, out, "--size", 16, "--workers", 1)
    before = files(out)
    shutil.copytree(data, other)
    picture((*CELL[0], 7)).save(other / "Rust/Cats/3.jpg", quality=90)
    (out / "Rust/Cats/1.jpg").unlink()
    told = refused(capsys, other, out, "--size", 16)
    assert f"was made from {data}; {other} has not the same Rust/Cats/3.jpg and 0 others" in told
    (other / "Rust/Cats/3.jpg").unlink()  # a source that lacks what is there
    assert "has not the same Rust/Cats/3.jpg" in refused(capsys, other, out, "--size", 16)
    assert not (out / "Rust/Cats/1.jpg").exists()
    data.rename(tmp_path / "moved")
    (tmp_path / "moved/Rust/Dogs").mkdir()
    picture(("Rust", "Dogs", 1)).save(tmp_path / "moved/Rust/Dogs/1.jpg")  # the download went on
    run(tmp_path / "moved", out, "--size", 16, "--workers", 1)
    assert files(out).items() > before.items() and len(files(out)) == 7


def test_shards_of_another_data_set_are_refused(tmp_path, capsys):
    shards, out = write_shards(tmp_path / "shards", ROWS), tmp_path / "out"
    run(shards, out, "--size", 8, "--workers", 1)
    shutil.copytree(shards, tmp_path / "elsewhere")
    run(tmp_path / "elsewhere", out, "--size", 8, "--workers", 1)
    other = write_shards(tmp_path / "other", [*reversed(ROWS)])
    assert "was made from" in refused(capsys, other, out, "--size", 8)


def test_bad_images_are_named_and_the_others_made(data, tmp_path, capsys):
    bad = data / "Rust" / "Cats" / "2.jpg"
    bad.write_bytes(bad.read_bytes()[:300])
    picture((*CELL[0], 3)).resize((12, 12)).save(data / "Rust" / "Cats" / "3.jpg")
    told = refused(capsys, data, tmp_path / "out", "--size", 16, "--workers", 1)
    assert f"{bad}: not a readable image" in told and "3.jpg: has 12 x 12 pixels, --size 16 would" in told
    assert "4 images are ready, 2 could not be made" in told and len(files(tmp_path / "out")) == 4
    picture((*CELL[0], 2)).save(bad)
    picture((*CELL[0], 3)).save(data / "Rust" / "Cats" / "3.jpg")
    run(data, tmp_path / "out", "--size", 16, "--workers", 1)
    run("--verify", tmp_path / "out")


def test_larger_images_than_were_prepared_are_refused(data, tmp_path):
    run(data, tmp_path / "out", "--size", 16, "--workers", 1)
    assert CanvasImages(tmp_path / "out", CELL, (1,), 8)[0]["image"].shape == (3, 8, 8)
    with pytest.raises(UserError, match="was prepared with 16 pixels and 32 are asked for"):
        CanvasImages(tmp_path / "out", CELL, (1,), 32)
