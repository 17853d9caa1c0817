"""python -m evaluation.gate: what the miniature passes, and who does not."""

import json
import shutil
from pathlib import Path

import pytest

from evaluation import canvas, gate
from evaluation.core.errors import UserError
from evaluation.core.files import file_digest
from evaluation.judges import judging
from tests.evaluation.test_predict import classifier
from tests.synthetic import answer_set, protocol, right, run_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def base(tmp_path):
    """The miniature's own base model, judged."""
    folder = tmp_path / "base" / "answers"
    folder.mkdir(parents=True)
    for name in ("manifest.json", "predictions.csv.gz"):
        shutil.copy(ROOT / "results/mini/base/answers" / name, folder)
    return folder


def run(base, data="mini"):
    gate.main(["--base", str(base), "--data", str(data), "--device", "cpu", "--workers", "0"])


def refusal(base, capsys, data="mini"):
    with pytest.raises(SystemExit) as stop:
        run(base, data)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("error: ") == 1 and not (base / gate.GATE).exists()
    return error


def test_the_miniature_passes(base, capsys):
    run(base)
    assert (
        "real images: theme 100.0%, object 100.0% recognised, at least 95% wanted" in capsys.readouterr().out
    )
    kept = json.loads((base / gate.GATE).read_text())
    assert kept["real"] == {"theme": 1.0, "object": 1.0} and kept["data"] == "mini"
    assert kept["base"] == pytest.approx({"theme": 0.986, "object": 0.965}, abs=1e-3)
    assert kept["style_classifier"] == file_digest(judging.MINI[0])


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Function: what judges see in a base model's images -> its folder."""
    world = protocol(themes=("Rust", canvas.PHOTO, "Sketch"), size=64)
    monkeypatch.setattr(gate, "file_digest", lambda file: "a" * 16)

    def made(see):
        answer_set(tmp_path, world, see=see)
        return tmp_path

    return made


def test_a_base_model_that_draws_other_objects_fails(small, capsys):
    error = refusal(small(lambda cell: (cell.theme, "Cats")), capsys)
    assert "the base model's objects are recognised in only 33.3% of its images, below 90%" in error


def test_judges_that_do_not_know_real_images_fail(small, tmp_path, monkeypatch, capsys):
    blind = tmp_path / "blind.safetensors"
    classifier("style", ["Rust", canvas.PHOTO, "Sketch"]).save(blind)
    monkeypatch.setattr(judging, "MINI", (str(blind), judging.MINI[1]))
    error = refusal(small(right), capsys)
    assert "the judges recognise the theme of only" in error and "below 95%" in error


def test_predictions_by_other_judges_are_refused(tmp_path, capsys):
    answer_set(tmp_path, protocol(themes=("Rust", "Sketch"), size=64), see=right)
    assert "judged by others than" in refusal(tmp_path, capsys)


def test_the_answers_of_a_run_are_refused(tmp_path):
    folder = run_folder(tmp_path, "esd", "Sketch", protocol(), see=right)
    with pytest.raises(UserError, match="the answers of a run; name those of the base model"):
        gate.parse(["--base", str(folder / "answers"), "--data", "mini"])
