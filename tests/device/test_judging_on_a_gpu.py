"""Judges: their training, stopped and gone on with; what they see; FID and CLIP; from model to scores."""

import csv
import gzip
import json

import pytest

from evaluation import canvas
from evaluation.core.tensors import read_tensors
from evaluation.mini import dataset as mini
from tests.device.worker import distance
from tests.evaluation.judges.test_classifier import TINY
from tests.evaluation.test_clip_score import build_clip
from tests.machine_unlearning.test_evaluate_runs import protocol_file


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training(precision, gpu, cpu, tmp_path):
    shape = json.dumps(TINY).replace('"', "")
    words = [f"arguments={shape}", "themes=[Rust,Sketch]", "objects=[Cats,Sea]", "workers=0", "batch=8"]
    words += ["steps=6", "warmup=2", "checkpoint_every=2", "half=false", f"precision={precision}"]

    def train(worker, name, *more, stop=None):
        flags = ["--task", "object", "--data", "mini", "--per-object", 4, "--out", tmp_path / name]
        worker.run("evaluation.train_classifier", *flags, *words, *more, stop=stop)
        return None if stop else read_tensors(tmp_path / name)

    train(gpu, "gpu.safetensors", stop=("evaluation.train_classifier.rate", 3))
    got, wanted = train(gpu, "gpu.safetensors"), train(cpu, "cpu.safetensors")
    begun = train(cpu, "begun.safetensors", "lr=1e-12")
    assert distance(got, wanted, begun) < (gpu.far if precision == "float32" else 0.1)


def test_from_model_to_scores(gpu, cpu, tiny_sd, tmp_path):
    """Sampling, predict and fid, of the base model and of a run."""
    run = tmp_path / "runs/uce/Sketch"
    cpu.run("machine_unlearning.uce.train", "--target", "Sketch", "--model", tiny_sd, "--out", run)
    words = ["--model", tiny_sd, "--protocol", protocol_file(tmp_path)]
    gpu.run("machine_unlearning.evaluate", "--runs", run, *words)
    for answers in (run / "answers", tmp_path / "runs/base/answers"):
        scores = [verdicts(answers), json.loads((answers / "fid.json").read_text())["values"]]
        for name in ("predictions.csv.gz", "fid.json"):
            (answers / name).unlink()
        cpu.run("evaluation.predict", answers)
        cpu.run("evaluation.fid", answers, "--data", "mini")
        assert scores[0] == verdicts(answers)
        again = json.loads((answers / "fid.json").read_text())["values"]
        assert again.keys() == scores[1].keys()
        for key, value in again.items():
            assert scores[1][key] == pytest.approx(value, rel=1e-3, abs=1e-3)


def verdicts(answers):
    with gzip.open(answers / "predictions.csv.gz", "rt") as file:
        lines = list(csv.reader(line for line in file if not line.startswith("#")))
    place = [lines[0].index(name) for name in ("theme", "object", "seed", "theme_seen", "object_seen")]
    return [[line[i] for i in place] for line in lines[1:]]


def test_clip_score(gpu, cpu, tmp_path):
    clip, figures = build_clip(tmp_path / "clip"), []
    for worker in (gpu, cpu):
        answers = tmp_path / worker.device
        answers.mkdir()
        for number in (19, 20):
            mini.image("Rust", "Cats", number).save(answers / canvas.answer_name("Rust", "Cats", number))
        worker.run("evaluation.clip_score", answers, "--clip", clip, "--data", "mini")
        figures.append(json.loads((answers / "clip.json").read_text())["mean"])
    assert figures[0] == pytest.approx(figures[1], abs=1e-4)
