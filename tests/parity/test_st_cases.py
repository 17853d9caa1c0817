"""CAST, IE-ContraAST and StyTr2 against their originals: every stage and output, from files as released."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from style_transfer.cast import model as cast
from style_transfer.ie_contrast import model as ie_contrast
from style_transfer.stytr2 import model as stytr2
from tests.seeded_weights import seeded_array, seeded_input

RULE = (
    "seeded_weights.seeded_state_dict(shapes, seed) for each file, then every tensor with ndim >= 2 "
    "multiplied by that file's gain (float32)"
)


def to_bytes(images):
    """[B,3,H,W] in [0,1] -> uint8 [B,H,W,3], cut off."""
    return (images.clamp(0, 1) * 255).permute(0, 2, 3, 1).to(torch.uint8)


# What each fixture calls the input of the decoder, the images in [0,1] and what is made of them.


def cast_stages(features, images, stylise):
    return {"adain": features, "output": images * 2 - 1, "output_uint8": to_bytes(images)}


def ie_contrast_stages(features, images, stylise):
    return {
        "transformed": features,
        "output": images,
        "output_steps2": stylise(steps=2),
        "output_uint8": to_bytes(images + 0.5 / 255),
    }


def stytr2_stages(features, images, stylise):
    return {"transformer_out": features, "output": images, "output_uint8": to_bytes(images + 0.5 / 255)}


METHODS = {
    "st_cast": (cast, cast_stages),
    "st_ie_contrast": (ie_contrast, ie_contrast_stages),
    "st_stytr2": (stytr2, stytr2_stages),
}


def scaled(shapes, seed, gain):
    """Seeded tensors of one file, those of two or more axes times its gain."""
    arrays = {key: seeded_array(key, shape, seed) for key, shape in shapes.items()}
    arrays = {key: a * np.float32(gain) if a.ndim > 1 else a.copy() for key, a in arrays.items()}
    return {key: torch.from_numpy(array) for key, array in arrays.items()}


def build_files(rule, training=False):
    """-> {released file: state dict}, with `training` also of what was not released."""
    assert rule["rule"] == RULE
    files = {}
    for name, shapes in rule["files"].items():
        files[name] = scaled(shapes, rule["seeds"][name], rule["gain"][name])
        total = sum(tensor.double().abs().sum().item() for tensor in files[name].values())
        assert total == pytest.approx(rule["abs_sum_after_gain"][name], rel=1e-9)
    return {name: s for name, s in files.items() if training or not name.startswith("(training only)")}


def build_images(case):
    """-> content, style. In a training batch each content meets two styles and each style two contents."""
    images = {key: seeded_input(key, spec["shape"], spec["seed"]) for key, spec in case["inputs"].items()}
    for key, spec in case["inputs"].items():
        assert images[key].sum(dtype=np.float64) == pytest.approx(spec["sum"], rel=1e-9)
    if "content" in images:
        return torch.from_numpy(images["content"]), torch.from_numpy(images["style"])
    content, style = torch.from_numpy(images["train_content"]), torch.from_numpy(images["train_style"])
    return torch.cat([content, content.roll(-1, 0)]), torch.cat([style, style])


@pytest.fixture(scope="module", params=METHODS)
def case(request, tmp_path_factory):
    """-> name, description, arrays, files as state dicts, network loaded from the same files on disk."""
    folder, name = Path(request.config.getoption("references")), request.param
    if not (folder / f"{name}.json").exists():
        pytest.skip(f"{folder} has no {name}.json")
    description = json.loads((folder / f"{name}.json").read_text())
    files, disk = build_files(description["weights"]), tmp_path_factory.mktemp(name)
    for file, state in files.items():
        torch.save(state, disk / file)
    network = METHODS[name][0].load({file: disk / file for file in files})
    return name, description, np.load(folder / f"{name}.npz"), files, network


def test_every_stage_and_output(case):
    name, description, arrays, _, network = case
    tolerance, compared, features = description["tolerance"], set(), []
    hook = network.decoder.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
    for which, spec in description["cases"].items():
        content, style = build_images(spec)
        images = network.stylise(content, style)
        if "output_shape" in spec:
            assert list(images.shape) == spec["output_shape"]
        stages = METHODS[name][1](features[-1], images, partial(network.stylise, content, style))
        for stage, got in stages.items():
            if f"{which}/{stage}" not in arrays:
                continue
            compared.add(f"{which}/{stage}")
            expected = torch.from_numpy(arrays[f"{which}/{stage}"])
            if expected.dtype == torch.uint8:
                change = (got.int() - expected.int()).abs()
                assert change.max() <= 1
                assert change.float().mean() < 0.05  # rounding instead of cutting off would change half
            else:
                atol = tolerance.get(f"{stage}_atol", tolerance["atol"])
                torch.testing.assert_close(got, expected, rtol=tolerance["rtol"], atol=atol)
    hook.remove()
    assert compared == set(arrays.files)


def test_images_do_not_depend_on_their_batch(case):
    _, description, _, _, network = case
    tolerance = {key: description["tolerance"][key] for key in ("rtol", "atol")}
    batches = [build_images(spec) for spec in description["cases"].values()]
    batches = [(content, style) for content, style in batches if len(content) > 1]
    if not batches:
        pytest.skip("the file has single images only")
    for content, style in batches:
        alone = torch.cat([network.stylise(c[None], s[None]) for c, s in zip(content, style)])
        torch.testing.assert_close(network.stylise(content, style), alone, **tolerance)


def layers(part, files):
    """'transform.sanet4_1.f' -> its file and the names of its tensors; 'vgg.44+' is all from 44 on."""
    alias, _, layer = part.partition(" (")[0].partition(".")
    (file,) = (name for name in files if alias in name)
    if layer.endswith("+"):
        return file, [key for key in files[file] if int(key.partition(".")[0]) >= int(layer[:-1])]
    return file, [key for key in files[file] if f"{key}.".startswith(f"{layer}." if layer else "")]


def test_every_weight_matters(case):
    """The parts that moved the original's output move ours, with channels shifted by one, and no other."""
    name, description, _, files, network = case
    released, size = METHODS[name][0].FILES, 4 * network.multiple
    spec = next(iter(description["cases"].values()))
    content, style = (x[:1, :, :size, :size] for x in build_images(spec))
    before = network.stylise(content, style)
    for part, moved in description["sensitivity_max_abs_change"].items():
        file, keys = layers(part, files)
        assert keys, part
        if file not in released:
            assert moved == 0, part
            continue
        weights = network.get_submodule(released[file]).state_dict()
        for key in keys:
            weights[key].copy_(files[file][key].roll(1, 0))
        change = (network.stylise(content, style) - before).abs().max().item()
        for key in keys:
            weights[key].copy_(files[file][key])
        assert change > 20 * description["tolerance"]["atol"] if moved else change == 0, (part, change)
