"""Probes: what is learned on a GPU, and the pictures, are the CPU's."""

import shutil

import pytest
from omegaconf import OmegaConf

from evaluation.answers.distant import TABLE as DISTANCES
from evaluation.answers.probed import TABLE
from tests.device.worker import same_pictures
from tests.machine_unlearning.test_distance import trained_otherwise
from tests.machine_unlearning.test_evaluate_runs import protocol_file
from tests.machine_unlearning.test_methods import quick
from tests.machine_unlearning.test_probe import SETTINGS


@pytest.mark.parametrize(
    "method, kind", [("uce", "completion"), ("uce", "noise"), ("spm", "inversion"), ("uce", "relearning")]
)
def test_what_is_seen_is_the_cpus(method, kind, gpu, cpu, tiny_sd, tmp_path):
    plan, settings = tmp_path / "quick.yaml", {"answers": protocol_file(tmp_path), "seeds": [188]}
    OmegaConf.save(OmegaConf.create(settings | SETTINGS[kind]), plan)
    words = ["--target", "Sketch", "--model", tiny_sd, "--out", tmp_path / "run", *quick(method)]
    cpu.run(f"machine_unlearning.{method}.train", *words)
    gpu.shares_cache(cpu)
    seen = {}
    for worker in (cpu, gpu):  # the base model is probed by the CPU alone
        run = shutil.copytree(tmp_path / "run", tmp_path / worker.device)
        words = [kind, "--runs", run, "--base", tmp_path / "base", "--model", tiny_sd, "--probe", plan]
        worker.run("machine_unlearning.probe", *words)
        seen[worker.device] = [(row.condition, row.seen[:3]) for row in TABLE.read(run / kind)]
    assert seen["cuda"] == seen["cpu"]
    assert same_pictures(tmp_path / "cuda", tmp_path / "cpu", 8)


def test_distances_are_the_cpus(gpu, cpu, tiny_sd, tmp_path):
    plan, settings = tmp_path / "quick.yaml", {"answers": protocol_file(tmp_path), "seeds": [188]}
    OmegaConf.save(OmegaConf.create(settings | {"images": 2, "levels": 2}), plan)
    common = ["--target", "Sketch", "--model", tiny_sd]
    cpu.run("machine_unlearning.spm.train", *common, "--out", tmp_path / "run", *quick("spm"))
    model = trained_otherwise(tiny_sd, tmp_path / "model")
    cpu.call("machine_unlearning.retrained", model, *common, "--out", tmp_path / "retrained/Sketch")
    gpu.shares_cache(cpu)
    made = {}
    for worker in (cpu, gpu):
        root = tmp_path / worker.device
        shutil.copytree(tmp_path / "retrained", root / "retrained")
        run = shutil.copytree(tmp_path / "run", root / "spm/Sketch")
        worker.run("machine_unlearning.probe", "distance", "--runs", run, "--model", tiny_sd, "--probe", plan)
        made[worker.device] = [row[-2:] for row in DISTANCES.read(run / "distance")]
    assert made["cuda"] == [pytest.approx(values, rel=1e-3) for values in made["cpu"]]
