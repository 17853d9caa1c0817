"""Adversarial prompts: the words found on a GPU, and their pictures, are the CPU's."""

import shutil

import pytest
from omegaconf import OmegaConf

from evaluation.answers import attacked
from machine_unlearning.core import cli
from tests import tiny
from tests.device.worker import same_pictures
from tests.machine_unlearning.test_attack import SETTINGS
from tests.machine_unlearning.test_evaluate_runs import protocol_file
from tests.machine_unlearning.test_methods import quick

ACTING = [method for method in tiny.METHODS if cli.intervenes(method)]


@pytest.mark.parametrize(
    "method, precision", [("uce", "float16"), *((method, "float32") for method in ("uce", *ACTING))]
)
def test_what_is_found_is_the_cpus(method, precision, gpu, cpu, tiny_sd, tmp_path):
    answers, plan = protocol_file(tmp_path, precision=precision), tmp_path / "quick.yaml"
    OmegaConf.save(OmegaConf.create(SETTINGS | {"answers": answers, "timesteps": 1}), plan)
    more = ["map_size=8", "iterations=0"] if method == "seot" else quick(method)
    words = ["--target", "Sketch", "--model", tiny_sd, "--out", tmp_path / "run", *more]
    cpu.run(f"machine_unlearning.{method}.train", *words)
    gpu.shares_cache(cpu)
    base, found = tmp_path / "base", {}
    for worker in (cpu, gpu):  # the base model is attacked by the CPU alone
        run = shutil.copytree(tmp_path / "run", tmp_path / worker.device)
        words = ["--runs", run, "--base", base, "--model", tiny_sd, "--attack", plan]
        worker.run("machine_unlearning.attack", *words)
        found[worker.device] = [row.ids for row in attacked.TABLE.read(run / "attack")]
    assert found["cuda"] == found["cpu"] and any(found["cpu"])
    assert same_pictures(tmp_path / "cuda", tmp_path / "cpu", gpu.levels if precision == "float32" else 8)
