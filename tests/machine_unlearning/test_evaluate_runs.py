"""python -m machine_unlearning.evaluate: all refusals come before the first image."""

import contextlib
import json
import multiprocessing
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from threading import BrokenBarrierError

import pytest
import torch
from omegaconf import OmegaConf

from diffusion_model_finetuning.core.sd import load_sd
from evaluation import accuracy, fid, predict, protocol
from evaluation.answers.predictions import read_table
from evaluation.core.files import read_json_lines, write_json
from evaluation.core.record import read_record, write_record
from evaluation.judges import judging
from evaluation.reporting.collect import collect
from machine_unlearning import evaluate, sample
from machine_unlearning.core import weights
from machine_unlearning.seot import train as seot
from machine_unlearning.uce import train as uce
from tests import tiny


@pytest.fixture(scope="module", autouse=True)
def small_images_are_judged():
    """By the miniature's classifiers, which are there for images of 64 pixels and resize all others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "MINI_SIZE", 16)
        yield


def protocol_file(folder, **changes):
    """Of four images of the size that the tiny model is made for."""
    few = {"themes": ("Rust", "Sketch"), "objects": ("Cats", "Sea"), "seeds": (188,), "targets": ()}
    few |= {"steps": 2, "size": 16, "fid_images": (1, 2)}
    small = replace(protocol.load("mini"), **few | changes)
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


def made(answers: Path) -> dict:
    """All that figures are made of: images, predictions but for how they were made, FID, scores."""
    content = {path.name: path.read_bytes() for path in answers.glob("*.png")}
    content["rows"] = read_table(answers).to_pylist()
    for name in ("fid.json", "accuracy.json"):
        if (answers / name).exists():
            content[name] = (answers / name).read_text()
    return content


def by_single_commands(run: Path | None, answers: Path, model: str, world: str, *base: str) -> dict:
    device = ["--device", "cpu"]
    sample.main(["--model", model, "--protocol", world, "--out", str(answers), "--batch", "3", *device,
                 *(["--run", str(run)] if run else [])])  # fmt: skip
    predict.main([str(answers), *device])
    fid.main([str(answers), "--data", "mini", *device])
    if run:
        accuracy.main([str(answers), "--base", *base])
    return made(answers)


@pytest.mark.parametrize("keep", ["all", "targets", "none"])
def test_the_bytes_of_the_single_commands_whatever_is_kept(runs, words, evaluated, tiny_sd, tmp_path, keep):
    """Blocks of three images, so that the last is smaller."""
    world, apart = words[-1], tmp_path / "apart"
    evaluated(["Sketch"], "--keep", keep, "--batch", "3")
    shutil.copytree(runs / "uce/Sketch", apart / "run", ignore=lambda *_: ["answers"])
    base = by_single_commands(None, apart / "base/answers", str(tiny_sd), world)
    run = by_single_commands(
        apart / "run", apart / "run/answers", str(tiny_sd), world, str(apart / "base/answers")
    )
    together = made(runs / "uce/Sketch/answers")
    assert made(runs / "base/answers") == base
    images = {"all": 4, "targets": 2, "none": 0}[keep]
    assert sum(name.endswith(".png") for name in together) == images
    assert together.items() <= run.items() and run != base
    assert not [path for path in runs.glob("**/.*") if path.name not in (".lock",)]
    evaluated(["Sketch"], "--keep", keep, "--batch", "3")  # nothing is left to do
    assert made(runs / "uce/Sketch/answers") == together


@pytest.mark.parametrize("removed", ["*.png", "Rust_*.png"])
def test_figures_without_images_as_results_are_shipped(runs, evaluated, capsys, removed):
    """Judged and measured answer sets need no image again; FID that was not measured stays so."""
    evaluated(["Sketch"])
    base, run = runs / "base/answers", runs / "uce/Sketch/answers"
    whole = [made(base), made(run)]
    gone = [*runs.glob(f"**/{removed}"), *runs.glob("**/features-*")]
    for path in gone:
        path.unlink()
    names = {path.name for path in gone}
    left = [{name: content for name, content in all_.items() if name not in names} for all_ in whole]
    capsys.readouterr()
    evaluated(["Sketch", "Cats"])
    told = capsys.readouterr().out
    assert told.count("measured already") == 2 and [made(base), made(run)] == left
    other = runs / "uce/Cats/answers"
    assert (other / "fid.json").exists() and "base" in json.loads((other / "accuracy.json").read_text())
    (run / "fid.json").unlink()
    (run / "accuracy.json").unlink()
    evaluated(["Sketch"])
    assert (
        f"{run}: FID not measured (its images were removed after they were judged)" in capsys.readouterr().out
    )
    left[1].pop("fid.json")
    assert made(run) == left[1]


def test_a_stopped_evaluation_goes_on_with_the_next_block(runs, evaluated, monkeypatch):
    evaluated(["Sketch"], "--batch", "1")
    whole = made(runs / "uce/Sketch/answers")
    shutil.rmtree(runs / "uce/Sketch/answers")
    real, drawn = evaluate.draw_block, []

    def interrupted(how, answers, claim, cells):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.extend(cells)
        return real(how, answers, claim, cells)

    monkeypatch.setattr(evaluate, "draw_block", interrupted)
    with pytest.raises(SystemExit) as stop:
        evaluated(["Sketch"], "--batch", "1", "--keep", "none")
    answers = runs / "uce/Sketch/answers"
    assert stop.value.code == 130 and len(drawn) == 2 and not (answers / "predictions.csv.gz").exists()
    drawn.clear()
    evaluated(["Sketch"], "--batch", "1", "--keep", "none")
    assert len(drawn) == 2
    rest = made(answers)
    assert rest["rows"] == whole["rows"] and rest.keys() == {"rows", "fid.json", "accuracy.json"}


def test_of_a_chain_the_images_of_all_its_targets_stay(runs, evaluated):
    record = read_record(runs / "uce/Cats")
    earlier = {"from": "gone", "earlier": [{"method": "uce", "target": "Sketch"}]}
    write_record(runs / "uce/Cats", record | earlier)
    evaluated(["Cats"], "--keep", "targets")
    stay = {path.name for path in (runs / "uce/Cats/answers").glob("*.png")}
    assert stay == {f"{cell}_seed188.png" for cell in ("Sketch_Cats", "Sketch_Sea", "Rust_Cats")}


def test_a_run_leaves_no_weight_behind(trained, tiny_sd):
    """Nor one that ends in an error; two runs of a method that change the same tensors would not show it."""
    sd = load_sd(tiny_sd)
    before, model = {name: w.clone() for name, w in sd.unet.state_dict().items()}, sd.fingerprint()
    with contextlib.suppress(ZeroDivisionError), weights.swapped(sd, trained / "uce/Sketch", model):
        assert any(not torch.equal(w, before[name]) for name, w in sd.unet.state_dict().items())
        raise ZeroDivisionError
    assert all(torch.equal(w, before[name]) for name, w in sd.unet.state_dict().items())


def test_what_seot_leaves_alone_is_linked_from_the_base(runs, words, tiny_sd, tmp_path):
    """The run's own sampler, without the base model's answers, makes the same pixels."""
    run = runs / "seot" / "Cats"
    seot.main(["--target", "Cats", "--model", str(tiny_sd), "--out", str(run), "iterations=0"])
    evaluate.main(["--runs", str(run), *words, "--batch", "3"])
    base, answers = made(runs / "base/answers"), made(run / "answers")
    same = {name for name, content in answers.items() if name.endswith(".png") and content == base[name]}
    assert same == {"Rust_Sea_seed188.png", "Sketch_Sea_seed188.png"}
    for name in answers.keys() - {"rows", "fid.json", "accuracy.json"}:
        linked = (run / "answers" / name).samefile(runs / "base/answers" / name)
        assert linked == (name in same)
    drawn = sum(line["images"] for line in read_json_lines(run / "answers/sampling.jsonl"))
    assert drawn == 2
    sample.main(["--model", str(tiny_sd), "--run", str(run), "--protocol", words[-1], "--batch", "3",
                 "--out", str(tmp_path / "alone")])  # fmt: skip
    assert {path.name: path.read_bytes() for path in (tmp_path / "alone").glob("*.png")} == {
        name: content for name, content in answers.items() if name.endswith(".png")
    }


def test_what_seot_leaves_alone_after_other_weights_is_no_link(runs, words, tiny_sd):
    """It is not the base model's image but that of the run that SEOT went on from, pixel for pixel."""
    start, run = runs / "uce/Sketch", runs / "seot/Sketch~Cats"
    flags = ["--target", "Cats", "--from", str(start), "--model", str(tiny_sd), "--out", str(run)]
    seot.main([*flags, "iterations=0"])
    evaluate.main(["--runs", str(start), str(run), *words, "--batch", "3"])
    untouched = ("Rust_Sea_seed188.png", "Sketch_Sea_seed188.png")
    for name in untouched:
        ours, base = (folder / "answers" / name for folder in (run, runs / "base"))
        assert not ours.samefile(base) and ours.read_bytes() != base.read_bytes()
        assert ours.read_bytes() == (start / "answers" / name).read_bytes()
    drawn = sum(line["images"] for line in read_json_lines(run / "answers/sampling.jsonl"))
    assert drawn == 4


def one_of_two(arguments, together):
    draw = evaluate.draw_block

    def at_once(*args):
        if together.n_waiting or not together.broken:
            with contextlib.suppress(BrokenBarrierError):
                together.wait(60)
            together.abort()
        return draw(*args)

    evaluate.draw_block, judging.MINI_SIZE = at_once, 16
    evaluate.main(arguments)


def test_two_processes_share_the_blocks(runs, words, evaluated):
    evaluated(["Sketch"], "--batch", "1")
    whole = {folder: made(folder) for folder in runs.glob("**/answers")}
    for folder in whole:
        shutil.rmtree(folder)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["machine_unlearning.evaluate"])
    together = processes.Barrier(2)
    arguments = ["--runs", str(runs / "uce/Sketch"), *words, "--batch", "1"]
    pool = [processes.Process(target=one_of_two, args=(arguments, together)) for _ in range(2)]
    for process in pool:
        process.start()
    for process in pool:
        process.join(120)
    assert [process.exitcode for process in pool] == [0, 0]
    assert {folder: made(folder) for folder in whole} == whole
    for folder in whole:
        lines = read_json_lines(folder / "sampling.jsonl")
        assert sum(line["images"] for line in lines) == 4  # none was drawn twice


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
