"""The smaller copy of the data set: same layout and pixels, made once, resumable, checked."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from evaluation import canvas, prepare
from evaluation.core.errors import UserError
from evaluation.core.owner import alone
from evaluation.data.images import CanvasImages
from tests.evaluation.data.test_images_parquet import CELLS, ROWS, cache, write_shards  # noqa: F401

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


def test_names_as_people_have_them(data, tmp_path, capsys):
    run(data, tmp_path / "whole", "--size", 16, "--workers", 1)
    cats = data / "Rust/Cats"
    for number, name in ((1, "01.JPG"), (2, "2.jpeg"), (3, "0003.Jpg")):
        (cats / f"{number}.jpg").rename(cats / name)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._1.jpg", "notes.txt"):
        (cats / name).write_bytes(b"?")
    (data / "__MACOSX/Rust").mkdir(parents=True)
    run(data, tmp_path / "out", "--size", 16, "--workers", 1)
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    images = [CanvasImages(root, CELL, (1, 2, 3), 16) for root in (data, tmp_path / "out")]
    assert [path.name for path in images[0].files[:3]] == ["01.JPG", "2.jpeg", "0003.Jpg"]
    assert (images[0][0]["image"] - images[1][0]["image"]).abs().mean() < 3 / 255

    shutil.copy(cats / "2.jpeg", cats / "2.png")
    shutil.copy(cats / "2.jpeg", cats / "2 (1).jpg")
    told = refused(capsys, data, tmp_path / "other", "--size", 16, "--workers", 1)
    assert all(f"{cats / name}: no number" in told for name in ("2.jpeg", "2.png", "2 (1).jpg"))
    assert "5 images are ready, 3 could not be made" in told and len(files(tmp_path / "other")) == 5
    assert (tmp_path / "other/SHA256SUMS").exists()
    with pytest.raises(UserError, match=r"2\.jpeg: has the number of 2\.png, too"):
        CanvasImages(data, CELL, (1,), 16)


@pytest.mark.parametrize("harm", [Path.mkdir, lambda path: path.symlink_to(path.name), Path.touch])
def test_what_is_no_image_is_named_and_the_others_made(data, tmp_path, capsys, harm):
    bad = data / "Rust/Cats/2.jpg"
    bad.unlink()
    harm(bad)
    assert str(bad) in refused(capsys, data, tmp_path / "out", "--size", 16, "--workers", 1)
    assert len(files(tmp_path / "out")) == 5


def test_damaged_sums_are_made_again_and_lead_nowhere(data, tmp_path, capsys):
    out = tmp_path / "out"
    run(data, out, "--size", 16, "--workers", 1)
    whole = (out / "SHA256SUMS").read_bytes()
    for damaged in (b"damaged\n", b"\xff\xfe\0\n", b"00  ../../../etc/passwd\n", b""):
        (out / "SHA256SUMS").write_bytes(damaged)
        if damaged:
            told = refused(capsys, "--verify", out)
            assert "1 of 1 images are missing or changed" in told
        run(data, out, "--size", 16, "--workers", 1)
        assert (out / "SHA256SUMS").read_bytes() == whole
    (out / "SHA256SUMS").write_text(f"{'0' * 64}  ../../secret\n{'0' * 64}  /etc/passwd\n")
    assert prepare.read_sums(out) == {}


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"size": "x"}', '{"size": 16, "images": []}', '{"size": 16, "source": 3}']
)
def test_a_damaged_card_is_named(data, tmp_path, capsys, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/prepared.json").write_text(text)
    assert "prepared.json: damaged" in refused(capsys, data, tmp_path / "out", "--size", 16)


def test_two_at_once(data, tmp_path, capsys):
    with alone(tmp_path / "out"):
        assert "another process is at work here" in refused(capsys, data, tmp_path / "out", "--size", 16)
    run(data, tmp_path / "out", "--size", 16, "--workers", 1)


def alive(process):
    """Not so what nobody has waited for yet."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_stop_ends_all_processes(tmp_path, number, code):
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8))
    for cell in CELL:
        for index in range(1, 41):
            path = canvas.image_path(tmp_path / "data", *cell, index)
            path.parent.mkdir(parents=True, exist_ok=True)
            if index == 1:
                large.save(path, quality=95)
            else:
                path.symlink_to(path.with_name("1.jpg"))
    words = [sys.executable, "-m", "evaluation.prepare", "data", "out", "--size", "512", "--workers", "2"]
    places = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(Path(prepare.__file__).parents[1])}}
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, **places)
    while not [*(tmp_path / "out").glob("*/*/2.jpg")]:
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    began = time.monotonic()
    process.send_signal(number)
    said = process.communicate(timeout=20)[1]
    while any(map(alive, workers)) and time.monotonic() - began < 4:
        time.sleep(0.05)
    assert workers and not any(map(alive, workers))
    assert process.returncode == code and "Traceback" not in said
    if code > 0:
        assert said.strip().splitlines()[-1] == "stopped; the same command, run again, goes on"
