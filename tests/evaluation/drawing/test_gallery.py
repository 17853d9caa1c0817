"""The images of a report: which are shown, and the sprites that stand for them."""

import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from evaluation import canvas, report
from evaluation import protocol as protocols
from evaluation.answers.answer_set import grid
from evaluation.answers.predictions import read_predictions, write_predictions
from evaluation.drawing import gallery
from evaluation.reporting.collect import collect
from tests import synthetic

PROTOCOL = synthetic.protocol()
LARGE = replace(protocols.load("canvas"), name="large", size=16)


@pytest.fixture
def runs(tmp_path):
    root = tmp_path / "runs"
    synthetic.answer_set(root / "base" / "answers", PROTOCOL, see=synthetic.right, images=True)
    for target in ("Sketch", "Cats"):
        synthetic.run_folder(root, "esd", target, PROTOCOL, synthetic.right, images=True)
    return root


def shown(root):
    return gallery.gallery(collect([root])[0])


def sprites(root):
    return {path.parent.parent.name: path for path in sorted(root.rglob("sprite.webp"))}


def test_sprites_stay_and_stand_for_their_images(runs, tmp_path):
    first = shown(runs)
    assert list(sprites(runs)) == ["base", "Cats", "Sketch"] and len(first["sprites"]) == 3
    results = shutil.copytree(runs, tmp_path / "results", ignore=shutil.ignore_patterns("*.png"))
    assert shown(results) == first
    report.main([str(results), "--out", str(results)])
    page = (results / "report.html").read_text()
    assert page.count('id="sprite') == 3 and 'class="missing"' not in page
    for path in results.rglob("sprite.webp"):
        path.unlink()
    assert shown(results)["sprites"] == [] and len(shown(results)["commands"]) == 3


def test_another_method_makes_no_other_sprite_anew(runs):
    shown(runs)
    before = {name: path.stat().st_mtime_ns for name, path in sprites(runs).items()}
    synthetic.run_folder(runs, "uce", "Monet", PROTOCOL, synthetic.right, images=True)
    assert len(shown(runs)["sprites"]) == 4
    after = {name: path.stat().st_mtime_ns for name, path in sprites(runs).items()}
    assert {name: after[name] for name in before} == before and "Monet" in after


def test_a_sprite_of_other_images_is_not_shown(runs):
    shown(runs)
    folder = runs / "esd/Sketch/answers"
    rows, source = read_predictions(folder)
    write_predictions(folder, [row._replace(sha256="f" * 16) for row in rows], source)
    for path in folder.glob("*.png"):
        path.unlink()
    assert [run["target"] for run in shown(runs)["data"]["runs"]] == ["Cats"]
    assert len(shown(runs)["commands"]) == 1


def test_a_folder_that_one_may_only_read(runs, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(gallery, "atomic", refuse)
    assert len(shown(runs)["sprites"]) == 3 and not sprites(runs)


def broken(cell):
    """Sketch is forgotten; Dogs suffer everywhere, and of all images Monet's Cats of one seed most."""
    theme = "Winter" if cell.theme == "Sketch" else cell.theme
    if cell[:2] == ("Monet", "Cats") and cell.seed == 188:
        return "Rust", "Dogs"
    return theme, "Cats" if cell.object == "Dogs" and cell.seed == 288 else cell.object


def sample_of(root, target, see, base=True):
    if base:
        synthetic.answer_set(root / "base" / "answers", LARGE, see=synthetic.right)
    synthetic.run_folder(root, "esd", target, LARGE, see)
    results, _ = collect([root])
    result = next(result for result in results if result.method == "esd")
    cells = grid(LARGE)
    return [cells[place] for place in gallery.sample(result, results[0] if base else None)]


@pytest.mark.parametrize("target", ["Sketch", "Dogs", "Sketch+Dogs"])
def test_a_sample_is_of_the_target_and_of_the_worst_damage(target, tmp_path):
    cells = sample_of(tmp_path, target, broken)
    (asked,) = canvas.parse_targets(target)
    own = [cell for cell in cells if asked.covers(cell.theme, cell.object)]
    assert cells[: len(own)] == own and len(set(cells)) == len(cells) == len(own) + gallery.COLLATERAL
    assert len(own) == (5 if asked.kind == "pair" else gallery.TARGET)
    if target == "Sketch":
        assert {cell.object for cell in own} == set(LARGE.objects) and len({cell.seed for cell in own}) == 5
    rest = cells[len(own) :]
    if target == "Sketch":  # the object that lost most, and its lost images
        assert all(cell.object == "Dogs" and cell.seed == 288 for cell in rest[:4])
    if target == "Dogs":  # the style that is not there any more, and then the one that lost an image
        assert all(cell.theme == "Sketch" for cell in rest[:4]) and rest[4] == ("Monet", "Cats", 188)


def test_a_sample_without_a_base_is_spread_evenly(tmp_path):
    rest = sample_of(tmp_path, "Sketch", broken, base=False)[gallery.TARGET :]
    assert len({cell.theme for cell in rest}) >= 10 and len({cell.seed for cell in rest}) == 5


def test_small_grids_and_the_base_model_are_shown_whole(runs, tmp_path):
    assert [len(sheet.places) for sheet in gallery.sheets(collect([runs])[0])] == [24, 24, 24]
    sample_of(tmp_path, "Sketch", broken)
    sizes = [len(sheet.places) for sheet in gallery.sheets(collect([tmp_path])[0])]
    assert sizes == [5100, gallery.TARGET + gallery.COLLATERAL]
    assert 64 * gallery.across(5100) < 16383 and 64 * -(-5100 // gallery.across(5100)) < 16383


def test_a_sprite_shows_the_images_in_order(runs):
    sheet = gallery.sheets(collect([runs])[0])[1]
    with Image.open(io.BytesIO(gallery.sprite(sheet))) as page:
        assert page.format == "WEBP" and page.size == (64 * 20, 64 * 2)
        for i in (0, 5, 23):  # colours of tests.synthetic
            x, y = 64 * (i % 20) + 32, 64 * (i // 20) + 32
            assert page.convert("RGB").getpixel((x, y)) == pytest.approx((7 * i, 31 * i % 256, 255), abs=12)


def test_a_sprite_of_noise_is_bounded(runs):
    """Whatever the images show, a report of 700 runs stays a file that a browser opens."""
    sheet, rng = gallery.sheets(collect([runs])[0])[0], np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in sheet.places]
    assert len(gallery.drawn(noise, sheet)) <= 2 * gallery.BYTES * len(sheet.places)
