"""Every method's training, and sampling with and without its run."""

import json

import pytest
from safetensors.torch import load_file

from machine_unlearning.core import cli
from tests import tiny
from tests.device.worker import distance, same_pictures
from tests.machine_unlearning.test_evaluate_runs import protocol_file
from tests.machine_unlearning.test_methods import config, quick

ACTING = [method for method in tiny.METHODS if cli.intervenes(method)]
MORE = {
    "seot": ["map_size=8", "iterations=1"],  # more of them magnify rounding on random weights
    "saeuron": ["block=mid_block.attentions.0"],  # the published one is not in so small a UNet
}


@pytest.fixture(scope="module")
def train(tiny_sd, tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")

    def train(worker, method, target, *more):
        """-> run folder, made once and only to be read."""
        out = root / worker.folder.name / method / "".join([target, *more])
        if not (out / "record.json").exists():
            words = ["--target", target, "--model", tiny_sd, "--out", out, *more]
            worker.run(f"machine_unlearning.{method}.train", *words, *quick(method), *MORE.get(method, []))
        return out

    return train


@pytest.mark.parametrize("method", tiny.METHODS)
def test_weights_are_the_cpus(method, train, gpu, cpu, tiny_sd):
    runs = [load_file(train(worker, method, "Sketch") / "weights.safetensors") for worker in (gpu, cpu)]
    if method not in ACTING:
        assert distance(*runs, tiny.weights_of(tiny_sd)) < gpu.far


@pytest.mark.parametrize("method", tiny.METHODS)
@pytest.mark.parametrize("words", [["Cats"], ["Sketch+Cats"], ["Sketch", "--variant", "published"]], ids=str)
def test_other_targets_and_the_published_variant(method, words, train, gpu):
    if "+" in words[0] and "pair" not in config(method).canvas:
        pytest.skip(f"{method} has no settings for a pair")
    assert (train(gpu, method, *words) / "record.json").exists()


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("method", [None, "esd", *ACTING])
def test_images_are_the_cpus(method, precision, train, gpu, cpu, tiny_sd, tmp_path):
    words = ["--model", tiny_sd, "--protocol", protocol_file(tmp_path, precision=precision, size=16)]
    words += ["--run", train(cpu, method, "Sketch")] if method else []
    gpu.shares_cache(cpu)
    for worker in (gpu, cpu):
        worker.run("machine_unlearning.sample", *words, "--out", tmp_path / worker.device)
    levels = gpu.levels if precision == "float32" else 8
    assert same_pictures(tmp_path / "cuda", tmp_path / "cpu", levels)


def test_a_device_by_its_number(gpu, tiny_sd, tmp_path):
    words = ["--target", "Sketch", "--model", tiny_sd, "--out", tmp_path / "run", *quick("uce")]
    gpu.call("machine_unlearning.uce.train", *words, "--device", "cuda:0")
    assert json.loads((tmp_path / "run/record.json").read_text())["tf32"] is False
