"""The distance to a model trained without the target: the run that holds it, the figure, the table."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from diffusion_model_finetuning.core.intervention import NOTHING
from diffusion_model_finetuning.core.sd import eps, load_sd, noise_of
from evaluation import canvas, probes, tables
from evaluation.answers.distant import TABLE, Distant
from evaluation.core.errors import UserError
from evaluation.core.files import write_json
from evaluation.core.record import read_record
from evaluation.data.images import CanvasImages
from evaluation.metrics.retrained import distance_by_seed
from evaluation.reporting.probes import collect_probes
from machine_unlearning import probe, retrained
from machine_unlearning.core import distance
from machine_unlearning.core.weights import load_run
from machine_unlearning.seot import train as seot
from machine_unlearning.uce import train as uce
from tests import tiny
from tests.machine_unlearning.test_evaluate_runs import protocol_file

UNET = "unet/diffusion_pytorch_model.safetensors"


def trained_otherwise(model, folder):
    """-> `folder`: a model of other weights around the autoencoder and tokenizer of `model`."""
    shutil.copytree(model, folder)
    tensors, generator = load_file(folder / UNET), torch.Generator().manual_seed(0)
    for tensor in tensors.values():
        tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
    save_file(tensors, folder / UNET)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_sd):
    return trained_otherwise(tiny_sd, tmp_path_factory.mktemp("trained") / "without")


@pytest.fixture
def enter(trained, tiny_sd, tmp_path):
    """Makes a run of it; -> its folder."""

    def run(*more, model=trained, target="Sketch"):
        out = tmp_path / "runs/retrained" / target
        words = [str(model), "--model", str(tiny_sd), "--target", target, "--out", str(out)]
        retrained.main([*words, *more])
        return out

    return run


@pytest.fixture
def plan(tmp_path):
    settings = {"answers": protocol_file(tmp_path), "seeds": [188], "images": 3, "levels": 2}
    OmegaConf.save(OmegaConf.create(settings), tmp_path / "distance.yaml")
    return tmp_path / "distance.yaml"


@pytest.fixture
def measure(enter, plan, tiny_sd, tmp_path):
    """Probes runs of UCE and SEOT, and the retrained model's; -> the root of their folders."""
    root = tmp_path / "runs"
    for method, name, more in ((uce, "uce", []), (seot, "seot", ["iterations=0"])):
        words = ["--target", "Sketch", "--model", str(tiny_sd), "--out", str(root / name / "Sketch"), *more]
        method.main(words)

    def run(*more, methods=("uce", "seot", "retrained")):
        if "retrained" in methods:
            enter()
        runs = [str(root / method / "Sketch") for method in methods]
        words = ["--model", str(tiny_sd), "--device", "cpu", "--probe", str(plan), *more]
        probe.main(["distance", *words, "--runs", *runs])
        return root

    return run


def test_a_run_that_is_the_retrained_model(enter, trained, tiny_sd):
    run = enter()
    sd, model = load_sd(tiny_sd), load_sd(trained)
    load_run(sd, run)
    assert sd.fingerprint() == model.fingerprint() and tiny.changed(sd.weights(), model.weights()) == set()
    record = read_record(run)
    assert (record["method"], record["target"]) == ("retrained", "Sketch")


def other_vae(folder):
    tensors = load_file(folder / "vae/diffusion_pytorch_model.safetensors")
    name = min(name for name, tensor in tensors.items() if tensor.abs().sum())
    save_file(tensors | {name: 2 * tensors[name]}, folder / "vae/diffusion_pytorch_model.safetensors")


def other_schedule(folder):
    path = folder / "scheduler/scheduler_config.json"
    write_json(path, json.loads(path.read_text()) | {"beta_end": 0.02})


def other_target(folder):
    write_json(folder / ".training/sd.json", {"without": "Rust"})


def nothing_left_out(folder):
    write_json(folder / ".training/sd.json", {"without": None})


@pytest.mark.parametrize(
    "change, message",
    [
        (other_vae, "sizes, autoencoder, tokenizer or noise schedule are not those of --model"),
        (other_schedule, "sizes, autoencoder, tokenizer or noise schedule are not those of --model"),
        (other_target, "--target Sketch: .*sd.json says that Rust was left out"),
        (nothing_left_out, "--target Sketch: .*sd.json says that nothing was left out"),
    ],
)
def test_what_is_no_reference(enter, trained, capsys, tmp_path, change, message):
    model = shutil.copytree(trained, tmp_path / "changed")
    change(model)
    with pytest.raises(SystemExit, match="2"):
        enter(model=model)
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "runs/retrained/Sketch/record.json").exists()


def test_the_base_model_is_no_reference(enter, tiny_sd, capsys):
    with pytest.raises(SystemExit, match="2"):
        enter(model=tiny_sd)
    assert "itself, which was trained with the target" in capsys.readouterr().err


def test_a_run_that_is_there_stays(enter, capsys):
    kept = (enter() / "record.json").read_bytes()
    capsys.readouterr()
    assert (enter() / "record.json").read_bytes() == kept
    assert "holds a run already" in capsys.readouterr().out


def test_points_are_held_out_images_of_both_parts(plan):
    settings, targets = probes.load("distance", plan), canvas.parse_targets("Sketch")
    chosen = distance.points(settings, targets, 1000)
    shows = [targets[0].covers(*point.row[:2]) for point in chosen]
    assert sum(shows) == 6 and len(shows) == 12  # three images at two levels
    assert {point.t for point in chosen} == {250, 750}
    assert {point.row[2] for point in chosen} <= set(canvas.TEST) and len(set(chosen)) == 12


def test_the_formula(enter, plan, trained, tiny_sd, sd, own_cache):
    """Distances are those of the noise that three models predict in the same noisy images."""
    settings, targets = probes.load("distance", plan), tuple(canvas.parse_targets("Sketch"))
    reference = distance.Reference(sd, sd.fingerprint(), settings, targets, "mini", enter(), 5)
    run = enter().parents[1] / "uce/Sketch"
    uce.main(["--target", "Sketch", "--model", str(tiny_sd), "--out", str(run)])
    unlearned = load_sd(tiny_sd)
    load_run(unlearned, run)
    rows = reference.distances(unlearned, NOTHING)
    models = unlearned, load_sd(tiny_sd), load_sd(trained)
    for row, point, x in zip(rows, reference.points, reference.x, strict=True):
        ids, t = sd.tokens([settings.world.prompt(*point.row[:2])]), torch.tensor([point.t])
        *made, expected = [eps(model.unet, x[None], t, model.embed(ids)) for model in models]
        squares = [(predicted - expected).square().mean().item() for predicted in made]
        assert (row.model, row.base) == pytest.approx(squares, rel=1e-4)
        assert (row.theme, row.object, row.number, row.seed, row.t) == (*point.row, point.seed, point.t)


def test_what_is_noised_is_the_image_of_the_row(enter, plan, sd, own_cache):
    settings, targets = probes.load("distance", plan), tuple(canvas.parse_targets("Sketch"))
    reference = distance.Reference(sd, sd.fingerprint(), settings, targets, "mini", enter(), 5)
    for point, x in zip(reference.points, reference.x, strict=True):
        a, noise = sd.abar[point.t], noise_of((*point.row, point.seed, point.t), x.shape)
        clean = (x - (1 - a).sqrt() * noise) / a.sqrt()
        image = CanvasImages("mini", [point.row[:2]], [point.row[2]], 16, "bicubic")[0]["image"]
        mean, logvar = sd.moments(image[None])[0].chunk(2)
        scale = sd.vae.config.scaling_factor
        assert ((clean / scale - mean).abs() < 6 * (logvar / 2).exp() + 0.01).all()


def test_the_figure():
    rows = [
        Distant("Sketch", "Sketch", "Cats", 19, 188, 250, 1.0, 2.0),
        Distant("Sketch", "Sketch", "Sea", 19, 188, 250, 5.0, 2.0),
        Distant("Sketch", "Rust", "Sea", 19, 188, 250, 1.0, 4.0),
        Distant("Cats", "Rust", "Cats", 19, 188, 250, 0.0, 1.0),
        Distant("Cats", "Rust", "Sea", 19, 188, 250, 2.0, 1.0),
    ]
    figures = distance_by_seed(rows, SimpleNamespace(seeds=(188,)))
    assert figures == {"target": np.array([(6 / 4 + 0) / 2]), "kept": np.array([(1 / 4 + 2) / 2])}


def test_the_table(measure, capsys):
    """The base model is at 1, the retrained one at 0; what acts while it samples is measured as it does."""
    root = measure()
    capsys.readouterr()
    tables.main([str(root), "--probe", "distance", "--format", "json"])
    rows = {row["method"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert list(rows) == ["base", "retrained", "seot", "uce"]
    for part in ("target", "kept"):
        assert rows["base"][f"style_{part}"] == pytest.approx(100)
        assert rows["retrained"][f"style_{part}"] == 0
    assert rows["seot"]["style_target"] != pytest.approx(100)
    assert rows["seot"]["style_kept"] == pytest.approx(100)
    own = [row for row in TABLE.read(root / "uce/Sketch/distance") if row.theme == "Sketch"]
    ratio = sum(row.model for row in own) / sum(row.base for row in own)
    assert rows["uce"]["style_target"] == pytest.approx(100 * ratio)
    tables.main([str(root), "--probe", "distance"])
    assert "in percent of the base model's" in capsys.readouterr().out


def test_a_stopped_probe_ends_in_the_same_bytes(measure, monkeypatch, tmp_path):
    monkeypatch.setattr(distance.Reference, "distances", tiny.interrupt(distance.Reference.distances, 2))
    with pytest.raises(SystemExit, match="130"):
        measure()
    monkeypatch.undo()
    file = tmp_path / "runs/uce/Sketch/distance/distance.csv"
    first = file.read_bytes()
    assert not (tmp_path / "runs/seot/Sketch/distance/distance.csv").exists()
    measure()
    assert (tmp_path / "runs/seot/Sketch/distance/distance.csv").exists() and file.read_bytes() == first
    shutil.rmtree(file.parent)
    measure()
    assert file.read_bytes() == first


def test_rows_that_are_not_what_was_asked_for(measure, tmp_path):
    folder = measure(methods=("uce", "retrained")) / "uce/Sketch/distance"
    whole = TABLE.read(folder)
    for rows in (whole[1:], [*whole, whole[0]], [row._replace(t=1) for row in whole], whole[::2]):
        TABLE.write(folder, rows)
        with pytest.raises(UserError, match=r"distance\.csv: not the rows of the prompts"):
            collect_probes([tmp_path / "runs"], "distance")
    TABLE.write(folder, whole)
    assert len(collect_probes([tmp_path / "runs"], "distance")[0]) == 3


def test_without_a_retrained_model(measure, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        measure(methods=("uce",))
    assert f"{tmp_path}/runs/retrained/Sketch: no run of a retrained model" in capsys.readouterr().err
