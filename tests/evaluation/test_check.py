"""What `python -m evaluation.check` tells of copies of the data set with one fault each."""

import io
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from evaluation import canvas, check
from evaluation.core.errors import UserError
from evaluation.data.damage import damage
from evaluation.mini import dataset as mini
from tests.evaluation.data.test_images_parquet import ROWS, jpeg, write_shards

DISAGREE = "numbers of photos and paintings seem to disagree, look at some"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All folders of the miniature with 20 images each, all the same picture."""
    root, noise = tmp_path_factory.mktemp("mini"), np.random.default_rng(0)
    picture = tmp_path_factory.mktemp("picture") / "picture.jpg"
    Image.fromarray(noise.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(picture)
    for theme in mini.THEMES:
        for obj in mini.OBJECTS:
            (root / theme / obj).mkdir(parents=True)
            for number in range(1, 21):
                (root / theme / obj / f"{number}.jpg").hardlink_to(picture)
    return root


@pytest.fixture
def copy(whole, tmp_path):
    """A copy to damage; its files are of its own."""
    for path in ("Rust", canvas.PHOTO):
        shutil.copytree(whole / path, tmp_path / "data" / path)
    for theme in {*mini.THEMES} - {"Rust", canvas.PHOTO}:
        (tmp_path / "data" / theme).symlink_to(whole / theme)
    return tmp_path / "data"


def test_a_whole_copy(whole, capsys):
    check.main([str(whole)])
    assert "2200 images of the miniature's 11 themes x 10 objects" in capsys.readouterr().out
    assert not any(check.check(whole)[1].values())


def only(root, decode=False):
    """The one problem there is: its kind and its text."""
    problems = [(kind, text) for kind, found in check.check(root, decode)[1].items() for text in found]
    assert len(problems) == 1, problems
    return problems[0]


def rename(source, target):
    return lambda root: (root / source).rename(root / target)


def cut(path, to):
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:to])


def write(path, content):
    return lambda root: (root / path).write_bytes(content)


def png() -> bytes:
    Image.new("RGB", (64, 64)).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


FAULTS = [
    (rename("Rust", "rusty"), "missing folder", "data/Rust: rename 'rusty'?"),
    (rename(canvas.PHOTO, "Seed_Image"), "missing folder", "data/Seed_Images: rename 'Seed_Image'?"),
    (rename("Rust/Cats", "Rust/cats"), "missing folder", "Rust/Cats: rename 'cats'?"),
    (lambda root: shutil.rmtree(root / "Rust" / "Cats"), "missing folder", "Rust/Cats"),
    (lambda root: (root / "Rust" / "Holiday").mkdir(), "unknown folder", "Rust/Holiday"),
    (lambda root: (root / "Rust/Cats/7.jpg").unlink(), "missing images", "Rust/Cats: 7"),
    (write("Rust/Cats/007.PNG", png()), "images of one number", "Rust/Cats/007.PNG and 7.jpg"),
    (write("Rust/21.JPG", b"?"), "misplaced image", "Rust/21.JPG"),
    (write("21.png", b"?"), "misplaced image", "data/21.png"),
    (write("Rust/Cats/notes.txt", b"?"), "unknown file", "Rust/Cats/notes.txt"),
    (cut("Rust/Cats/7.jpg", 1500), "damaged", "Rust/Cats/7.jpg: truncated (no end marker)"),
    (cut("Rust/Cats/7.jpg", 0), "damaged", "Rust/Cats/7.jpg: empty"),
    (write("Rust/Cats/7.jpg", b"<!DOCTYPE html>"), "damaged", "Rust/Cats/7.jpg: a web page, not an image"),
    (write("Rust/Cats/7.jpg", b"version https://git-lfs"), "damaged", "Rust/Cats/7.jpg: not a JPEG or PNG"),
]


@pytest.mark.parametrize("harm, kind, text", FAULTS, ids=[fault[2] for fault in FAULTS])
def test_one_fault_is_named(harm, kind, text, copy):
    harm(copy)
    found = only(copy)
    assert found[0].startswith(kind) and found[1].startswith(text)


def test_hidden_files_and_further_numbers_are_no_fault(copy):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (copy / "Rust/Cats" / name).write_bytes(b"?")
    (copy / "__MACOSX/Rust").mkdir(parents=True)
    shutil.copy(copy / "Rust/Cats/7.jpg", copy / "Rust/Cats/21.jpg")
    assert not any(check.check(copy)[1].values())


def test_decoding_finds_what_the_ends_do_not_show(copy):
    path = copy / "Rust" / "Cats" / "7.jpg"
    content = path.read_bytes()
    path.write_bytes(content[:200] + content[-300:])  # the tables are cut, the end marker is there
    assert not any(check.check(copy)[1].values())
    assert "Rust/Cats/7.jpg: does not decode" in only(copy, decode=True)[1]


def test_png_under_the_name_of_a_jpeg(tmp_path):
    path = tmp_path / "1.jpg"
    Image.new("RGB", (40, 40), "red").save(path, "PNG")
    assert damage(path, decode=True) is None
    path.write_bytes(path.read_bytes()[:-8])
    assert damage(path) == "truncated (no end marker)"


@pytest.mark.parametrize(
    "made, given, message",
    [
        ("a/Rust/Cats", "", "the data set lies in .*/a; give that"),
        ("a/b/Rust/Cats", "", "the data set lies in .*/a/b; give that"),
        ("Rust/Cats", "Rust", "the folder of one style; give its parent"),
        ("Cats/Rust", "", r"folders are \{object\}/\{style\}"),
        ("x", "", r"expected folders \{style\}/\{object\}"),
        ("x", "y", "no such folder"),
    ],
)
def test_a_wrong_folder(made, given, message, tmp_path):
    (tmp_path / made).mkdir(parents=True)
    with pytest.raises(UserError, match=message):
        check.check(tmp_path / given)


def test_the_benchmarks_own_names(tmp_path):
    for theme in ("Rust", "Van Gogh", "impressionism", "Techno"):
        (tmp_path / theme / "Waterfalls").mkdir(parents=True)
    holds, problems = check.check(tmp_path)
    assert holds == "0 images of the benchmark's 52 themes x 20 objects"  # 51 and the held-out Techno
    assert f"{tmp_path.name}/Van_Gogh: rename 'Van Gogh'?" in problems["missing folder"]
    assert (
        f"{tmp_path.name}/Expressionism" in problems["missing folder"]
    )  # nearer to Impressionism, absent too
    assert f"{tmp_path.name}/Impressionism: rename 'impressionism'?" in problems["missing folder"]
    assert f"Rust/Waterfalls: {', '.join(map(str, range(1, 21)))}" in problems["missing images"]


@pytest.mark.parametrize("name", ["check", "prepare", "generators"])
def test_starts_without_what_it_does_not_need(name):
    slow = {"check": "torch", "prepare": "datasets", "generators": "torch"}[name]
    code = f"import sys, evaluation.{name}; sys.exit({slow!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_command_line(copy, capsys):
    for number in range(1, 13):
        (copy / "Rust" / mini.OBJECTS[number % 10] / f"{number}.jpg").unlink()
    with pytest.raises(SystemExit) as exit:
        check.main([str(copy)])
    out, err = capsys.readouterr()
    assert exit.value.code == 2 and "missing images (10)" in out and "10 problems, listed above" in err
    check.main(["mini"])
    assert "nothing to check" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["folder", "shards"])
def test_paintings_whose_numbers_are_not_their_photos(form, tmp_path):
    """What the captions of shards cannot show: rows of one cell in another order."""
    swapped = [(*row[:2], row[2] % 20 + 1) if row[0] == "Rust" else row for row in ROWS]
    for root, images in ((tmp_path / "right", ROWS), (tmp_path / "wrong", swapped)):
        if form == "shards":
            write_shards(root, images)  # captions alone: the rows of a cell in another order
        else:
            for row, image in zip(ROWS, images, strict=True):
                path = canvas.image_path(root, *row)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpeg(image))
    assert DISAGREE not in check.check(tmp_path / "right")[1]
    assert check.check(tmp_path / "wrong")[1][DISAGREE] == ["Rust: Cats"]


def test_the_miniatures_numbers_agree(tmp_path):
    for theme in (canvas.PHOTO, "Rust", "Warm_Love"):
        mini.write_cell(tmp_path, theme, "Cats", 20, seed=0)
    assert DISAGREE not in check.check(tmp_path)[1]


def test_shards(tmp_path):
    root = write_shards(tmp_path / "above" / "canvas", ROWS)
    holds, problems = check.check(root)
    assert holds == "60 images in 2 parquet shards" and list(problems) == ["missing images"]
    assert len(problems["missing images"]) == 51 * 20 - 3
    assert list(check.check(root, decode=True)[1]) == ["missing images"]
    with pytest.raises(UserError, match=r"the parquet shards lie in .*canvas; give that"):
        check.check(root.parent)
