"""python -m machine_unlearning.evaluate: all refusals come before the first image."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from evaluation import protocol
from evaluation.core.files import write_json
from evaluation.core.record import read_record, write_record
from evaluation.judges import judging
from evaluation.reporting.collect import collect
from machine_unlearning import evaluate
from machine_unlearning.uce import train as uce
from tests import tiny


def protocol_file(folder, **changes):
    """Of four images that the miniature's classifiers judge."""
    small = replace(
        protocol.load("mini"), themes=("Rust", "Sketch"), objects=("Cats", "Sea"), seeds=(188,), targets=(),
        steps=2, fid_images=(1, 2), **changes,
    )  # fmt: skip
    content = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(small).items() if k != "name"}
    path = folder / f"{changes.get('name', 'small')}.yaml"
    OmegaConf.save(OmegaConf.create(content), path)
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_sd):
    root = tmp_path_factory.mktemp("trained")
    for target in ("Sketch", "Cats"):
        uce.main(["--target", target, "--model", str(tiny_sd), "--out", str(root / "uce" / target)])
    return root


@pytest.fixture
def runs(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "runs"))


@pytest.fixture
def words(runs, tiny_sd, tmp_path):
    """Flags that would do."""
    return ["--model", str(tiny_sd), "--device", "cpu", "--protocol", protocol_file(tmp_path)]


@pytest.fixture
def evaluated(runs, words):
    """Evaluates runs of UCE."""
    return lambda targets, *more: evaluate.main(
        ["--runs", *(str(runs / "uce" / target) for target in targets), *words, *more]
    )


@pytest.fixture
def refusal(runs, evaluated, capsys):
    """The sentence that a command line ends in, before anything is sampled."""

    def refuse(*more, target="Cats"):
        with pytest.raises(SystemExit) as stop:
            evaluated(["Sketch", target], *more)
        assert stop.value.code == 2 and not (runs / "base").exists()
        return capsys.readouterr().err

    return refuse


def test_every_run_is_judged_and_a_second_time_nothing_is_drawn(runs, evaluated, capsys):
    evaluated(["Sketch", "Cats"])
    for target in ("Sketch", "Cats"):
        answers = runs / "uce" / target / "answers"
        result = json.loads((answers / "accuracy.json").read_text())
        assert result["target"] == target and "base" in result and (answers / "fid.json").exists()
    judged, idle = collect([runs])
    assert [run.method for run in judged] == ["base", "base", "uce", "uce"] and not idle
    stamps = {path: path.stat().st_mtime_ns for path in runs.glob("**/*.png")}
    assert len(stamps) == 3 * 4
    capsys.readouterr()
    evaluated(["Sketch", "Cats"])
    assert {path: path.stat().st_mtime_ns for path in runs.glob("**/*.png")} == stamps
    assert capsys.readouterr().out.count("measured already") == 3


def test_a_foreign_run_is_not_sampled(runs, evaluated, monkeypatch):
    evaluated(["Sketch", "Cats"])
    record = read_record(runs / "uce/Cats")
    shutil.rmtree(runs / "uce/Cats")
    shutil.copytree(runs / "base/answers", runs / "uce/Cats/answers")
    write_record(runs / "uce/Cats", record | {"foreign": True, "model": None})
    (runs / "uce/Cats/answers/predictions.csv.gz").unlink()
    monkeypatch.setattr(evaluate, "draw_block", lambda *_: pytest.fail("nothing is to be drawn"))
    evaluated(["Sketch", "Cats"])
    assert (runs / "uce/Cats/answers/predictions.csv.gz").exists()


def test_a_model_whose_card_names_no_data_needs_some(refusal, tiny_sd, tmp_path):
    model = Path(shutil.copytree(tiny_sd, tmp_path / "model"))
    write_json(model / "canvas.json", {"variant": "canvas"})
    assert "--data is missing: name the folder of the data set" in refusal("--model", str(model))


def test_upscaled_drawings_are_no_reference(refusal, tmp_path):
    large = protocol_file(tmp_path, name="large", size=512)
    assert "drawings of 64 pixels are no real images for the 512 pixels" in refusal("--protocol", large)
    error = refusal("--protocol", "canvas")
    assert "--data mini: the miniature has no Abstractionism, which protocol canvas compares" in error


def test_real_images_must_all_be_there(refusal, tmp_path):
    assert "8 of 8 images are missing, first" in refusal("--data", str(tmp_path))


def test_judges_must_be_there(refusal, monkeypatch):
    monkeypatch.setattr(judging, "MINI", ("nowhere.safetensors", judging.MINI[1]))
    assert "--style-classifier nowhere.safetensors: no such file" in refusal()


def test_runs_must_be_finished_known_and_of_this_model(refusal, runs, tmp_path):
    assert f"{runs}/uce/Sea: no record.json, so no finished run" in refusal(target="Sea")
    write_record(runs / "uce/Winter", read_record(runs / "uce/Cats") | {"target": "Winter"})
    assert "--target Winter: protocol small has no such images" in refusal(target="Winter")
    other = str(tiny.build_sd(tmp_path / "other", seed=1))
    assert "uce/Sketch: made from another base model than" in refusal("--model", other)


def test_answers_of_another_protocol_are_refused(runs, evaluated, tmp_path, capsys):
    evaluated(["Sketch"])
    other = protocol_file(tmp_path, name="other", guidance=1.0)
    with pytest.raises(SystemExit):
        evaluated(["Sketch", "Cats"], "--protocol", other)
    assert "base/answers: was sampled with protocol small, not other" in capsys.readouterr().err
    assert not (runs / "uce/Cats/answers").exists()
