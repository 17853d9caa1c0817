"""The VGG losses as the benchmark's script computes them, through StyTr2; and straight on the images."""

import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from style_transfer.core import losses, statistics, vgg
from style_transfer.core.judges import restyled
from style_transfer.stytr2 import model as stytr2
from tests.seeded_weights import seeded_array, seeded_input


def state(rule, name, shift=0, keys=None):
    """One file's tensors; those of `keys` (default: all) drawn at its seed + `shift`."""
    made = {}
    for key, shape in rule["files"][name].items():
        seed = rule["seeds"][name] + (shift if keys is None or key in keys else 0)
        array = seeded_array(key, shape, seed)
        array = array * np.float32(rule["gain"][name]) if array.ndim > 1 else array.copy()
        made[key] = torch.from_numpy(array)
    return made


@pytest.fixture(scope="module")
def networks():
    """-> make({file: state}): VGG and StyTr2 of these."""

    def make(files, folder):
        for name, tensors in files.items():
            torch.save(tensors, folder / name)
        network = stytr2.load({name: folder / name for name in stytr2.FILES})
        return vgg.load_encoder(folder / vgg.ENCODER), network

    return make


@pytest.fixture
def case(fixture_file, networks, tmp_path):
    """-> description, released states, VGG and StyTr2 of them, close."""
    description, _ = fixture_file("eval_vgg_loss")
    rule = description["weights"]
    assert rule["rule"] == "seeded_state_dict per file, then ndim >= 2 tensors times gain"
    files = {name: state(rule, name) for name in rule["files"]}
    for name, tensors in files.items():
        total = sum(tensor.double().abs().sum().item() for tensor in tensors.values())
        assert total == pytest.approx(rule["abs_sum_after_gain"][name], rel=1e-9)
    close = partial(pytest.approx, rel=description["tolerance"]["rtol"], abs=0)
    return description, files, networks(files, tmp_path), close


def image(name, spec):
    array = seeded_input(name, spec["shape"], spec["seed"], spec.get("low", 0.0), spec.get("high", 1.0))
    assert array.sum(dtype=np.float64) == pytest.approx(spec["sum"], rel=1e-9)
    return torch.from_numpy(array)


def released(encoder, network, output, truth):
    """[content, style], means over the pairs."""
    content = losses.vgg_features(encoder(output)), network.encode_content(output)
    style = losses.vgg_features(encoder(truth)), network.encode_style(truth)
    return [loss.mean().item() for loss in restyled(encoder, network, content, style)]


def test_losses(case):
    description, _, (encoder, network), close = case
    for spec in description["cases"].values():
        output, truth = (image(name, spec["inputs"][name]) for name in ("result", "label"))
        for key, pair in {
            "compat": (output, truth),
            "compat_arguments_swapped": (truth, output),
            "compat_result_equals_label(result,result)": (output, output),
        }.items():
            wanted = [spec[key]["content_loss"], spec[key]["style_loss"]]
            assert released(encoder, network, *pair) == close(wanted), key
        x, y, direct = (*(losses.vgg_features(encoder(images)) for images in (output, truth)), spec["direct"])
        assert losses.content_loss(x, y).mean().item() == close(direct["content_loss"])
        assert losses.style_loss(x, y).mean().item() == close(direct["style_loss"])
        layers = [
            losses.style_loss(*(losses.VGGFeatures((layer,), ()) for layer in pair)).mean().item()
            for pair in zip(x.statistics, y.statistics)
        ]
        assert layers == close(direct["style_loss_per_layer_relu1_1_to_relu5_1"])


def test_every_file_matters(case, networks, tmp_path):
    """Redrawn, each changes the losses as it did the script's; VGG beyond relu5_1 does not."""
    description, files, built, close = case
    rule, expected = description["weights"], dict(description["sensitivity"])
    assert expected.pop("note")
    output, truth = (image(name, description["sensitivity_inputs"][name]) for name in ("result", "label"))
    assert released(*built, output, truth) == close(expected.pop("base_content_style"))
    for part, wanted in expected.items():
        name, keys = (part, None) if part in files else (vgg.ENCODER, [])
        if part not in files:
            first = int(re.fullmatch(r"vgg layers (\d+)\+ \(unused\)", part)[1])
            keys = [key for key in files[name] if int(key.partition(".")[0]) >= first]
            assert keys
        changed = networks(
            files | {name: state(rule, name, description["sensitivity_seed_offset"], keys)}, tmp_path
        )
        assert released(*changed, output, truth) == close(wanted), part


def test_aggregation(fixture_file):
    description, _ = fixture_file("eval_vgg_loss")
    aggregation, rule = description["aggregation"], description["aggregation"]["input"]
    assert re.match(r"theme\b.*object class.*content image.*style reference", rule["axes"])
    values = seeded_input(rule["name"], rule["shape"], rule["seed"], rule["low"], rule["high"])
    names = ("style", "object", "content", "reference")
    rows = pd.DataFrame([dict(zip(names, place)) | {"loss": v} for place, v in np.ndenumerate(values)])
    close = partial(pytest.approx, rel=description["tolerance"]["rtol"], abs=0)
    summary = statistics.summary(rows, "loss")
    assert summary["mean"] == close(aggregation["mean"])
    for grain, key in {"style": "style", "object": "object", "content": "content_image"}.items():
        assert summary[f"std_{grain}"] == close(aggregation["table_std"][key])
    styles = statistics.spread(rows, "loss", ["style"])
    cells = statistics.spread(rows, "loss", ["style", "object"])
    listed = [key for key in aggregation if key.startswith("repo_")]
    assert listed
    for key in listed:
        of, which, style, start, stop = re.fullmatch(
            r"repo_(theme|class)_(mean|std)(\[\d+\])?\[(\d+):(\d+)\]", key
        ).groups()
        inner = [(int(style[1:-1]), i) if style else i for i in range(int(start), int(stop))]
        parts = (cells if of == "class" else styles).loc[inner, which]
        assert [*parts] == close(aggregation[key]), key
