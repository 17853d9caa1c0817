"""Probes: what is learned on a GPU, and the pictures, are the CPU's."""

import shutil

import pytest
from omegaconf import OmegaConf

from evaluation.answers.probed import TABLE
from tests.device.worker import same_pictures
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
