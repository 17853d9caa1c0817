"""The style loss of a vision transformer as the benchmark's script computes it."""

import re
from functools import partial

import numpy as np
import pytest
import torch

from evaluation.judges.classifier import load_classifier
from style_transfer.core import losses
from tests.seeded_weights import seeded_input, seeded_state_dict


@pytest.fixture
def case(fixture_file, tmp_path):
    """-> description, classifier from a file as published, images {name: [B,3,H,W]}, close."""
    description, _ = fixture_file("eval_vit_loss")
    rule = description["weights"]
    assert rule["rule"].startswith("seeded_state_dict, checkpoint is {'model_state_dict': ...}")
    ((name, shapes),) = rule["files"].items()
    weights = seeded_state_dict(shapes, rule["seeds"][name])
    weights = {key: w * rule["gain"][name] if w.ndim > 1 else w for key, w in weights.items()}
    total = sum(tensor.double().abs().sum().item() for tensor in weights.values())
    assert total == pytest.approx(rule["abs_sum_after_gain"][name], rel=1e-9)
    torch.save({"model_state_dict": weights}, tmp_path / "style60.pth")
    told = dict(re.findall(r"(\w+)=(\d+)", description["model"]["timm"]))
    labels = [f"style {i}" for i in range(int(told.pop("num_classes")))]
    arguments = {key: int(value) for key, value in told.items()}
    classifier = load_classifier(tmp_path / "style60.pth", "style", labels, arguments=arguments)
    images = {}
    for key, spec in description["inputs"].items():
        array = seeded_input(key, spec["shape"], spec["seed"], spec.get("low", 0.0), spec.get("high", 1.0))
        assert array.sum(dtype=np.float64) == pytest.approx(spec["sum"], rel=1e-9)
        images[key] = torch.from_numpy(array)
    return (
        description,
        classifier,
        images,
        partial(pytest.approx, rel=description["tolerance"]["rtol"], abs=0),
    )


@torch.inference_mode()
def loss(classifier, images, mean=0.0, std=1.0):
    looks = [losses.tokens(classifier.vit, (images[key] - mean) / std)[1] for key in ("result", "label")]
    return losses.feature_loss(*looks).tolist(), looks


def test_loss_and_its_blocks(case):
    description, classifier, images, close = case
    expected = description["expected"]
    got, looks = loss(classifier, images)
    assert got == close(expected["style_loss_per_image"])
    blocks = expected["style_loss_image0_per_block"]
    assert losses.blocks(len(classifier.vit.blocks)) == [int(block) for block in blocks]
    terms = [losses.square(x[:1], y[:1]).item() for x, y in zip(*looks)]
    assert terms == close(list(blocks.values()))


def test_with_the_classifiers_normalisation(case):
    """What the default computes."""
    description, classifier, images, close = case
    (wanted,) = (v for k, v in description["expected"].items() if k.startswith("with_classifier_norm"))
    assert loss(classifier, images, classifier.mean, classifier.std)[0] == close(wanted)


def test_every_part_matters(case):
    """Parts that moved the script's loss move ours, with channels shifted by one; norm and head do not."""
    description, classifier, images, _ = case
    weights, before = classifier.vit.state_dict(), loss(classifier, images)[0][0]
    for part, moved in description["sensitivity_abs_change"].items():
        keys = [key for key in weights if key.startswith(part)]
        assert keys, part
        stored = {key: weights[key].clone() for key in keys}
        for key in keys:
            weights[key].copy_(stored[key].roll(1, -1))
        change = abs(loss(classifier, images)[0][0] - before)
        for key in keys:
            weights[key].copy_(stored[key])
        assert change > 1e-3 if moved else change == 0, (part, change)
