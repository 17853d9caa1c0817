"""The official accuracy dictionaries, recomputed from published-form classifiers and our predictions."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from evaluation import canvas
from evaluation.answers.answer_set import grid
from evaluation.canvas import answer_name
from evaluation.judges.classifier import load_classifier
from evaluation.judges.judging import judge
from evaluation.protocol import Protocol
from tests.seeded_weights import seeded_input, seeded_state_dict

ASKED = {"style": "theme", "class": "object"}  # official task -> column of a row


def protocol_of(fixture) -> Protocol:
    themes, objects, seeds = (tuple(fixture[key]) for key in ("themes", "classes", "seeds"))
    return Protocol(
        name="parity", themes=themes, objects=objects, seeds=seeds, template=canvas.TEMPLATE,
        photo="Photo", noise="cell", scheduler="ddim", steps=1, guidance=1.0, size=8, precision="float32",
        format="jpg", count_photo=True, fid_extractor="classifier", fid_images=(1,), targets=(),
    )  # fmt: skip


def draw(fixture, cell) -> np.ndarray:
    rule = fixture["answer_set"]
    seed, name = rule["seed"], f"{cell.theme}_{cell.object}_seed{cell.seed}"
    noise = seeded_input(name, (*rule["image_size_HxW"], 3), seed)
    base, tint = (seeded_input(f"rgb/{part}", (3,), seed) for part in (cell.theme, cell.object))
    mixed = np.float32(0.55) * base + np.float32(0.25) * tint + np.float32(0.2) * noise
    return np.floor(255 * np.clip(mixed, 0, np.float32(0.999999))).astype(np.uint8)


def published_file(fixture, task, path) -> dict:
    """Writes the `.pth` of a task; returns timm's arguments, which the shapes in the file do not all tell."""
    described = fixture["tasks"][task]["weights"]
    (shapes,) = described["files"].values()
    weights = seeded_state_dict(shapes, described["seed"])
    for name, factor in re.findall(r"([\w.]+) times ([\d.]+)", described["adjust"]):
        weights[name] *= float(factor)
    total = sum(value.double().abs().sum().item() for value in weights.values())
    assert total == pytest.approx(described["abs_sum"], rel=1e-6)
    torch.save({"model_state_dict": weights, "epoch": 1}, path)
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", fixture["model"])}


@pytest.fixture
def answers(fixture_file, tmp_path):
    """-> fixture, cells, folder of images, classifiers by official task."""
    fixture, _ = fixture_file("eval_accuracy")
    cells = grid(protocol_of(fixture))
    for cell in cells:
        Image.fromarray(draw(fixture, cell)).save(tmp_path / answer_name(*cell, suffix=".jpg"), format="PNG")
    classifiers = {}
    for task, ours, labels in (("style", "style", "themes"), ("class", "object", "classes")):
        path = tmp_path / f"{task}.pth"
        arguments = published_file(fixture, task, path)
        classifiers[task] = load_classifier(path, ours, fixture[labels], arguments=arguments)
    return fixture, cells, tmp_path, classifiers


def test_first_image(answers):
    fixture, _, folder, classifiers = answers
    check = fixture["answer_set"]["check"]
    image = Image.open(folder / check["file"])
    assert np.asarray(image).astype(int).sum() == check["pixel_sum"]
    for task, classifier in classifiers.items():
        pixels = classifier.preprocess(image)[None] / 255
        expected = torch.tensor(fixture["tasks"][task]["logits_first_image"])
        torch.testing.assert_close(classifier(pixels)[0], expected, rtol=1e-4, atol=1e-3)
        assert (classifier.vit(pixels)[0] - expected).abs().max() > 0.1  # without our normalisation


def test_result_dictionaries(answers):
    fixture, cells, folder, classifiers = answers
    rows = judge(folder, cells, *classifiers.values(), batch=5, suffix=".jpg")
    images = [Image.open(folder / answer_name(*cell, suffix=".jpg")) for cell in cells]
    for (task, asked), classifier in zip(ASKED.items(), classifiers.values(), strict=True):
        numbers = torch.tensor([classifier.labels.index(getattr(cell, asked)) for cell in cells])
        pixels = torch.stack([classifier.preprocess(image) for image in images]) / 255
        losses = F.cross_entropy(classifier(pixels), numbers, reduction="none")
        expected, rtol = fixture["tasks"][task]["result"], fixture["tolerance"]["loss_pred_loss_rtol"]
        assert set(expected["acc"]) == set(classifier.labels)
        for number, label in enumerate(classifier.labels):
            mine = [row for row in rows if getattr(row, asked) == label]
            seen = [getattr(row, f"{asked}_seen") for row in mine]
            assert {d: seen.count(d) for d in classifier.labels} == expected["misclassified"][label]
            hits = torch.zeros(())  # fp32, one addition for every hit, as the official script
            for _ in range(seen.count(label)):
                hits += 1 / len(mine)
            assert hits.item() == expected["acc"][label]
            probability = sum(getattr(row, f"{asked}_prob") for row in mine)
            assert probability == pytest.approx(expected["pred_loss"][label], rel=rtol)
            assert losses[numbers == number].sum().item() == pytest.approx(expected["loss"][label], rel=rtol)
