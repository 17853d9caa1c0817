"""The miniature dataset: the same everywhere, paired with its photographs, and resumable."""

import hashlib
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_model_finetuning.core import training
from diffusion_model_finetuning.core.card import read_card
from evaluation import canvas, mini_canvas, protocol
from evaluation.check import check_folder
from evaluation.core.errors import UserError
from evaluation.data.images import CanvasImages, to_tensor
from evaluation.mini import dataset as mini
from evaluation.mini import objects
from evaluation.mini.dataset import NEAR_STYLES, NEAR_THEMES, OBJECTS, STYLES, THEMES, UNUSED_STYLES, image

NEIGHBOUR = {"Early_Autumn": "Rust", "Gorgeous_Love": "Warm_Love", "Meteor_Shower": "Winter"}
NEIGHBOUR |= {"Pencil_Drawing": "Sketch"}
CELLS = [(theme, obj) for theme in THEMES for obj in OBJECTS]


FROZEN = [  # red, green, blue of the four quarters
    ("Cartoon", "Architectures", [163, 155, 113, 104]),
    ("Early_Autumn", "Cats", [94, 88, 105, 100]),
    ("Gorgeous_Love", "Fishes", [154, 157, 156, 150]),
    ("Meteor_Shower", "Sea", [161, 156, 110, 101]),
    ("Mosaic", "Butterfly", [107, 105, 119, 120]),
    ("Neon_Lines", "Cats", [72, 71, 82, 82]),
    ("Palette_Knife", "Cats", [140, 137, 144, 127]),
    ("Pencil_Drawing", "Trees", [192, 190, 186, 182]),
    ("Pointillism", "Towers", [203, 188, 185, 177]),
    ("Pop_Art", "Fishes", [137, 143, 144, 140]),
    ("Rust", "Flame", [40, 45, 59, 61]),
    ("Seed_Images", "Flowers", [173, 156, 154, 147]),
    ("Sketch", "Sea", [205, 189, 153, 154]),
    ("Ukiyoe", "Statues", [102, 105, 122, 120]),
    ("Warm_Love", "Towers", [177, 160, 163, 151]),
    ("Watercolor", "Trees", [192, 198, 197, 197]),
    ("Winter", "Cats", [142, 135, 174, 157]),
]


def array(*cell, **kwargs):
    return np.asarray(image(*cell, **kwargs)).astype(int)


def digest():
    """One fingerprint of image 1 of every cell."""
    return hashlib.sha256(b"".join(image(*cell, 1).tobytes() for cell in CELLS)).hexdigest()


def coarse(theme, obj):
    """Image 1 as 2 x 2 mean grey values: rough enough for any machine."""
    return (
        array(theme, obj, 1)
        .reshape(2, 32, 2, 32, 3)
        .mean(axis=(1, 3, 4))
        .round()
        .astype(int)
        .ravel()
        .tolist()
    )


def test_names_are_the_benchmarks():
    assert (len(STYLES), len(OBJECTS), len(THEMES)) == (10, 10, 11)
    assert [style for style in canvas.STYLES if style in STYLES] == STYLES
    assert [obj for obj in canvas.OBJECTS if obj in OBJECTS] == OBJECTS
    assert [theme for theme in canvas.THEMES if theme in THEMES] == THEMES


def test_held_out_styles_are_drawn_for_whoever_names_them_alone():
    assert len(UNUSED_STYLES) == 2 and set(UNUSED_STYLES) <= set(canvas.UNUSED_STYLES)
    assert set(UNUSED_STYLES).isdisjoint(THEMES)
    cells = [(style, "Cats") for style in UNUSED_STYLES]
    rows = CanvasImages("mini", cells, [19], size=64)
    for row, (style, obj) in zip(rows, cells, strict=True):
        assert torch.equal(row["image"], to_tensor(image(style, obj, 19)))
    with pytest.raises(UserError, match="the miniature has no Pointillism"):
        mini.check_drawn("mini", replace(protocol.load("mini"), themes=("Pointillism",), targets=()))


def test_near_styles_are_the_nearest_to_a_target_of_their_protocol_each():
    world = protocol.load("mini-near")
    assert list(world.themes) == NEAR_THEMES == sorted([*THEMES, *NEIGHBOUR])
    assert [style for style in canvas.STYLES if style in NEIGHBOUR] == NEAR_STYLES
    assert {*world.targets} - {*OBJECTS} == {*NEIGHBOUR.values()}
    assert world.hash != protocol.load("mini").hash
    card = read_card(Path(__file__).parents[3] / "checkpoints/mini-near")
    assert card["protocol"] == "mini-near" and card["data"] == "mini"
    mini.check_drawn("mini", world)
    looks = {theme: np.stack([array(theme, obj, 3) for obj in OBJECTS]) for theme in NEAR_THEMES}
    for style, neighbour in NEIGHBOUR.items():
        apart = {theme: np.abs(looks[theme] - looks[style]).mean() for theme in NEAR_THEMES if theme != style}
        assert min(apart, key=apart.get) == neighbour and 5 < apart[neighbour] < 40, style


def test_near_styles_go_together(tmp_path):
    """A folder with them is trained on and checked with all of them, any other with none."""
    assert mini.themes_beside(THEMES) == mini.themes_beside([]) == THEMES
    mini_canvas.main([str(tmp_path), "--near", "--per-object", "1"])
    assert {*training.cells_of(str(tmp_path))} == {(theme, obj) for theme in NEAR_THEMES for obj in OBJECTS}
    assert {*training.cells_of("mini")} == {*CELLS}
    assert "the miniature's 15 themes x 10 objects" in check_folder(tmp_path, decode=False)[0]
    shutil.rmtree(tmp_path / "Pencil_Drawing")
    assert check_folder(tmp_path, decode=False)[1]["missing folder"] == [f"{tmp_path.name}/Pencil_Drawing"]


def test_importing_loads_no_torch():
    code = "import sys, evaluation.mini_canvas; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_another_process_draws_the_same_bytes():
    code = "from tests.evaluation.mini.test_mini_canvas import digest; print(digest())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest()


@pytest.mark.parametrize(("theme", "obj", "frozen"), FROZEN)
def test_the_drawings_stay_those_the_checkpoints_were_trained_on(theme, obj, frozen):
    np.testing.assert_allclose(coarse(theme, obj), frozen, atol=2)


@pytest.mark.parametrize(("theme", "obj"), CELLS)
def test_index_and_seed_change_the_image(theme, obj):
    first = array(theme, obj, 1)
    assert first.shape == (64, 64, 3)
    assert np.abs(array(theme, obj, 2) - first).mean() > 2
    assert np.abs(array(theme, obj, 1, seed=1) - first).mean() > 2


@pytest.mark.parametrize("style", [*STYLES, *NEAR_STYLES, *UNUSED_STYLES])
def test_a_style_repaints_the_photograph_of_its_index(style, monkeypatch):
    photos = {index: image(canvas.PHOTO, "Cats", index) for index in (1, 2)}
    expected = mini.stylise(photos[2], style, mini.stream(0, style, "Cats", 2))
    assert image(style, "Cats", 2).tobytes() == expected.tobytes()
    monkeypatch.setitem(objects.DRAWINGS, "Cats", lambda rng: photos[1].resize((256, 256)))
    assert image(style, "Cats", 2).tobytes() != expected.tobytes()


def test_themes_are_far_apart_and_every_object_stands_out():
    """Mean colour difference between two themes of one photograph; grey contrast within each image."""
    for obj in OBJECTS:
        pictures = [array(theme, obj, 3) for theme in (*THEMES, *UNUSED_STYLES)]
        for k, one in enumerate(pictures):
            assert all(np.abs(one - other).mean() > 15 for other in pictures[:k]), obj
            assert one.mean(axis=2).std() > 20, ([*THEMES, *UNUSED_STYLES][k], obj)


def test_write_lays_out_the_benchmarks_folders(tmp_path):
    mini_canvas.main([str(tmp_path / "data"), "--per-object", "2", "--sheet", str(tmp_path / "sheet.png")])
    files = sorted(
        path.relative_to(tmp_path / "data") for path in (tmp_path / "data").rglob("*") if path.is_file()
    )
    assert [str(file) for file in files] == sorted(f"{t}/{o}/{n}.jpg" for t, o in CELLS for n in (1, 2))
    saved = np.asarray(Image.open(tmp_path / "data/Rust/Sea/2.jpg")).astype(int)
    assert np.abs(saved - array("Rust", "Sea", 2)).mean() < 3
    assert Image.open(tmp_path / "sheet.png").size == (11 * 64 * 3, 10 * 64 * 3)


def test_write_resumes_and_keeps_what_is_there(tmp_path):
    mini.write(tmp_path, per_object=1)
    kept, lost = (tmp_path / canvas.PHOTO / obj / "1.jpg" for obj in ("Cats", "Sea"))
    before = lost.read_bytes()
    kept.write_bytes(b"already here")
    lost.unlink()
    mini.write(tmp_path, per_object=1)
    assert kept.read_bytes() == b"already here"
    assert lost.read_bytes() == before
