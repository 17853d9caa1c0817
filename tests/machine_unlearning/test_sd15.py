"""Every method on Stable Diffusion 1.5's exact architecture, with random weights: one step, on a CPU.

Run by `bash scripts/smoke_sd15.sh METHOD`. With UNLEARNCANVAS_SD15=FOLDER the model (2 GB) is kept there.
"""

import importlib
import json
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from diffusion_model_finetuning.core.intervention import NOTHING
from diffusion_model_finetuning.core.sd import load_sd, sample
from evaluation import attacks, canvas, probes
from evaluation.core import environment
from evaluation.core.record import read_record, requests
from evaluation.data.images import CanvasImages
from evaluation.metrics import robustness
from machine_unlearning.core import embeddings, inversion, relearning, search, weights
from machine_unlearning.core.cli import intervenes
from machine_unlearning.sample import intervention
from tests.full_size import MEMORY, UNET_PARAMETERS, quick
from tests.tiny import METHODS


@pytest.mark.sd15
@pytest.mark.parametrize("method", METHODS)
def test_one_step_at_full_size(method, sd15, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "CACHE", tmp_path / "embeddings")
    train = importlib.import_module(f"machine_unlearning.{method}.train")
    run = tmp_path / "run"
    words = ["--target", "Sketch", "--model", str(sd15), "--out", str(run), "--device", "cpu"]
    train.main([*words, *quick(method, 1)])
    record = json.loads((run / "record.json").read_text())
    print(f"{method}: {record['seconds']} s, {record['peak_memory_bytes'] / 1e9:.1f} GB")
    assert record["variant"] == "canvas"

    sd = load_sd(sd15)
    assert sum(weight.numel() for weight in sd.unet.parameters()) == UNET_PARAMETERS
    stored = load_file(run / "weights.safetensors")
    changed = [name for name, new in stored.items() if not torch.equal(sd.weights()[name], new)]
    assert bool(changed) != intervenes(method)
    weights.load_run(sd, run)
    assert all(torch.equal(sd.weights()[name], tensor) for name, tensor in stored.items())
    act = intervention(sd, run, record)
    images = sample(sd, ["A Cats image in Sketch style."], [0], 2, 9.0, 512, intervention=act)
    assert images.shape == (1, 512, 512, 3)
    assert max(record["peak_memory_bytes"], environment.peak_memory("cpu")) < MEMORY


@pytest.mark.sd15
@pytest.mark.parametrize("method", ("uce", "esd"))
def test_a_pair_and_then_a_request_in_turn_at_full_size(method, sd15, tmp_path, monkeypatch):
    """The second run has the first one's weights and its own."""
    monkeypatch.setattr(embeddings, "CACHE", tmp_path / "embeddings")
    train = importlib.import_module(f"machine_unlearning.{method}.train")
    words, start = ["--model", str(sd15), "--device", "cpu", *quick(method, 1)], []
    for name, target in (("pair", "Sketch+Cats"), ("turn", "Rust")):
        train.main(["--target", target, "--out", str(tmp_path / name), *start, *words])
        start = ["--from", str(tmp_path / name)]
        record = json.loads((tmp_path / name / "record.json").read_text())
        print(f"{method}, {target}: {record['seconds']} s, {record['peak_memory_bytes'] / 1e9:.1f} GB")
        assert record["peak_memory_bytes"] < MEMORY
    assert requests(record) == [(method, "Sketch+Cats"), (method, "Rust")]
    pair, both = (load_file(tmp_path / name / "weights.safetensors") for name in ("pair", "turn"))
    assert pair.keys() <= both.keys() and any(not torch.equal(pair[n], both[n]) for n in pair)


def of_the_benchmark(sd15, folder):
    """The model without its card, so that it knows the themes and objects of the protocol `canvas`."""
    model = folder / "model"
    model.mkdir()
    for part in sd15.iterdir():
        if part.is_dir() or part.name == "model_index.json":
            (model / part.name).symlink_to(part)
    return model


@pytest.mark.sd15
@pytest.mark.parametrize("method", ("rece", "speed"))
def test_a_closed_form_takes_less_than_a_minute_of_two_cores(method, sd15, tmp_path, monkeypatch):
    """For the whole benchmark, once its prompts are embedded; their rows, of rank 256, are drawn here."""
    train = importlib.import_module(f"machine_unlearning.{method}.train")
    torch.manual_seed(0)
    basis = torch.randn(256, 768) / 16

    def rows(sd, prompts):
        return torch.randn(len(prompts), 77, 256) @ basis

    monkeypatch.setattr(train, "cached_embeddings", rows)
    words = ["--model", str(of_the_benchmark(sd15, tmp_path)), "--out", str(tmp_path / "run")]
    before = time.process_time()
    train.main([*words, "--target", "Van_Gogh", "--device", "cpu"])
    cpu_seconds = time.process_time() - before
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    gigabytes = record["peak_memory_bytes"] / 1e9
    print(f"{method}, 1,001 prompts: {record['seconds']} s, {cpu_seconds:.0f} CPU s, {gigabytes:.1f} GB")
    assert cpu_seconds < 120 and record["peak_memory_bytes"] < MEMORY


@pytest.mark.sd15
@pytest.mark.parametrize("method", ("uce", "diff_quickfix"))
def test_a_closed_form_for_the_whole_benchmark_in_seconds(method, sd15, tmp_path, monkeypatch):
    """1,001 prompts are preserved; embedding them is set-up, once per base model."""
    train = importlib.import_module(f"machine_unlearning.{method}.train")
    model = of_the_benchmark(sd15, tmp_path)
    monkeypatch.setattr(embeddings, "CACHE", tmp_path / "embeddings")
    words = ["--target", "Van_Gogh", "--model", str(model), "--out", str(tmp_path / "run"), "--device", "cpu"]
    train.main(words)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    print(f"{method}, 1,001 prompts: {record['seconds']} s, {record['peak_memory_bytes'] / 1e9:.1f} GB")
    assert record["seconds"]["unlearn"] < 60 and record["peak_memory_bytes"] < MEMORY


@pytest.mark.sd15
def test_one_step_of_an_attack(sd15, tmp_path):
    """As many prompts as the command takes at once at 512 pixels, of an SPM run: hooks, and its gamma."""
    train, run = importlib.import_module("machine_unlearning.spm.train"), tmp_path / "run"
    words = ["--target", "Sketch", "--model", str(sd15), "--out", str(run), "--device", "cpu"]
    train.main([*words, *quick("spm", 1)])
    plan = replace(attacks.load("canvas"), answers=str(sd15 / "world.yaml"), iterations=1)
    sd, asked = load_sd(sd15), robustness.asked(plan, tuple(canvas.parse_targets("Sketch,Cats")))[:4]
    real = CanvasImages("mini", [cell[:2] for _, cell in asked], [plan.reference], plan.world.size, "bicubic")
    prompts, act = search.prompts_of(sd, plan, asked, real), intervention(sd, run, read_record(run))
    environment.reset_peak_memory("cpu")
    began, vocabulary = time.perf_counter(), search.vocabulary(sd, plan.special)
    u = torch.full((4, plan.tokens, len(vocabulary)), 1 / len(vocabulary))
    optimizer = torch.optim.Adam([u], plan.lr, weight_decay=plan.weight_decay)
    search.improve(sd, act, plan, prompts, [0, 1, 2, 3], u, vocabulary, optimizer, 500)
    seconds, peak = time.perf_counter() - began, environment.peak_memory("cpu")
    print(f"attack, a step of 4 prompts: {seconds:.1f} s, {peak / 1e9:.1f} GB")
    assert u.shape == (4, 5, 49_406) and (u.sum(-1) - 1).abs().max() < 1e-4 and peak < MEMORY
    assert (u.max(-1).values > 1 / len(vocabulary)).all()


@pytest.mark.sd15
@pytest.mark.parametrize("part", ("inversion", "lora", "full"))
def test_one_step_of_a_probe(part, sd15, tmp_path, monkeypatch):
    """Of those that train: a token, low-rank updates, all weights (one image of the batch at a time)."""
    monkeypatch.setattr(embeddings, "CACHE", tmp_path)
    sd, (target,) = load_sd(sd15), canvas.parse_targets("Sketch")
    change = {"answers": str(sd15 / "world.yaml")}
    environment.reset_peak_memory("cpu")
    began = time.perf_counter()
    if part == "inversion":
        plan = replace(probes.load(part, "canvas"), steps=1, images=1, **change)
        entry = inversion.learned(sd, NOTHING, plan, target, "mini")
        assert entry.shape == (768,) and entry.isfinite().all()
    else:
        plan = probes.load("relearning", "canvas")
        plan = replace(plan, batch=2, budgets=(1,), **change)
        weight, before = sd.unet.conv_out.weight, sd.unet.conv_out.weight.clone()
        for name in relearning.relearned(sd, NOTHING, plan, [target], "mini", 1, part):
            assert name == f"1 {part} 1" and torch.equal(weight, before) == (part == "lora")
        assert torch.equal(sd.unet.conv_out.weight, before)
    seconds, peak = time.perf_counter() - began, environment.peak_memory("cpu")
    print(f"probe, a step of {part}: {seconds:.1f} s, {peak / 1e9:.1f} GB")
    assert peak < MEMORY
