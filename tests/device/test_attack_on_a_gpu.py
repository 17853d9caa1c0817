"""Adversarial prompts: the words found on a GPU, and their pictures, are the CPU's."""

import shutil

import pytest
from omegaconf import OmegaConf

from evaluation.answers.attacked import read_attacked
from machine_unlearning.core import cli
from tests import tiny
from tests.device.worker import same_pictures
from tests.machine_unlearning.test_attack import SETTINGS
from tests.machine_unlearning.test_evaluate_runs import protocol_file
from tests.machine_unlearning.test_methods import quick

ACTING = [method for method in tiny.METHODS if cli.intervenes(method)]


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("method", ["uce", *ACTING])
def test_what_is_found_is_the_cpus(method, precision, gpu, cpu, tiny_sd, tmp_path):
    answers, plan = protocol_file(tmp_path, precision=precision), tmp_path / "quick.yaml"
    OmegaConf.save(OmegaConf.create(SETTINGS | {"answers": answers, "timesteps": 2}), plan)
    more = ["map_size=8", "iterations=0"] if method == "seot" else quick(method)
    out = tmp_path / "cpu" / method / "Sketch"
    cpu.run(
        f"machine_unlearning.{method}.train", "--target", "Sketch", "--model", tiny_sd, "--out", out, *more
    )
    shutil.copytree(tmp_path / "cpu", tmp_path / "cuda")
    for worker in (gpu, cpu):
        run = tmp_path / worker.device / method / "Sketch"
        worker.run("machine_unlearning.attack", "--runs", run, "--model", tiny_sd, "--attack", plan)
    found, expected = (
        [row.ids for folder in (f"{method}/Sketch/attack", "base/attack/Sketch")
         for row in read_attacked(tmp_path / kind / folder)] for kind in ("cuda", "cpu")
    )  # fmt: skip
    assert found == expected
    assert same_pictures(tmp_path / "cuda", tmp_path / "cpu", gpu.levels if precision == "float32" else 8)
