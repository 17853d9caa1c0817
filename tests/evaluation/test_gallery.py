"""Sprites that stand for images which are not there."""

import base64
import shutil

import pytest

from evaluation import report
from evaluation.answers.predictions import read_predictions, write_predictions
from evaluation.reporting import gallery
from evaluation.reporting.collect import collect
from tests import synthetic

PROTOCOL = synthetic.protocol()


@pytest.fixture
def runs(tmp_path):
    root = tmp_path / "runs"
    synthetic.answer_set(root / "base" / "answers", PROTOCOL, see=synthetic.right, images=True)
    for target in ("Sketch", "Cats"):
        synthetic.run_folder(root, "esd", target, PROTOCOL, synthetic.right, images=True)
    return root


@pytest.fixture
def results(runs, tmp_path):
    """The same runs without their images."""
    return shutil.copytree(runs, tmp_path / "results", ignore=shutil.ignore_patterns("*.png"))


def ship(runs, results):
    gallery.main([str(runs), "--out", str(results)])


def shown(root):
    return gallery.gallery(collect([root])[0])


def test_a_gallery_without_images_is_the_same(runs, results, capsys):
    assert shown(results)["sprites"] == [] and len(shown(results)["commands"]) == 3
    ship(runs, results)
    assert "3 sprites of 3 answer sets" in capsys.readouterr().out
    assert shown(results) == shown(runs) and len(shown(runs)["sprites"]) == 3
    file = results / "esd/Sketch/answers/sprite.webp"
    assert base64.b64encode(file.read_bytes()).decode() in shown(results)["sprites"]
    report.main([str(results), "--out", str(results)])
    page = (results / "report.html").read_text()
    assert page.count('id="sprite') == 3 and 'class="missing"' not in page


def test_images_come_before_a_sprite(runs, results):
    ship(runs, results)
    path = "esd/Sketch/answers/sprite.webp"
    (runs / path).write_bytes((results / path).read_bytes() + b"other")
    assert shown(runs) == shown(results)


def judge_anew(folder):
    """Predictions of other images."""
    rows, source = read_predictions(folder / "answers")
    write_predictions(folder / "answers", [row._replace(sha256="f" * 16) for row in rows], source)


def test_a_sprite_of_other_images_is_not_shown(runs, results):
    ship(runs, results)
    judge_anew(results / "esd/Sketch")
    assert [run["target"] for run in shown(results)["data"]["runs"]] == ["Cats"]
    assert len(shown(results)["commands"]) == 1


def test_a_sprite_of_other_cells_is_not_shown(runs, results, monkeypatch):
    ship(runs, results)
    monkeypatch.setattr(gallery, "IMAGES", 20)
    assert shown(results)["sprites"] == []


def test_refuses_what_does_not_fit(runs, results, capsys):
    judge_anew(results / "esd/Cats")
    for root, out, message in (
        (runs, results, "results/esd/Cats: lacks the predictions of"),
        (runs, results / "none", "results/none/base: lacks the predictions of"),
        (results, results, "no judged answer set has all of its images"),
    ):
        with pytest.raises(SystemExit):
            ship(root, out)
        assert message in capsys.readouterr().err
    assert not [*results.rglob("sprite.webp")]
