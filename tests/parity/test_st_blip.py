"""BLIP-Diffusion against diffusers 0.27: image tower, projected queries, text with and without context."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from style_transfer.blip.released import load_qformer, load_text_encoder
from tests.parity.test_st_cases import scaled
from tests.seeded_weights import seeded_input


@pytest.fixture
def case(fixture_file, tmp_path):
    """-> the description, the stored outputs, and our modules, read from folders as released."""
    description, arrays = fixture_file("st_blip")
    weights = description["weights"]
    for name, shapes in weights["files"].items():
        folder = tmp_path / name.removesuffix("/model")
        folder.mkdir()
        state = scaled(shapes, weights["seeds"][name], weights["gain"][name])
        save_file(state, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(description["config"][folder.name]))
    modules = load_qformer(tmp_path / "qformer"), load_text_encoder(tmp_path / "text_encoder")
    return description, arrays, *(module.eval().requires_grad_(False) for module in modules)


def ids(description, name):
    """Token numbers [B,L], and which are words and no padding, by the rule in the file."""
    rule, seed = (description["inputs"][name][key] for key in ("rule", "seed"))
    numbers = r"floor\(seeded_input\('(\w+)',\((\d+),(\d+)\),seed\)\*(\d+)\)\+(\d+)"
    drawn, *sizes, words, first = re.match(numbers, rule).groups()
    assert drawn == name
    number = seeded_input(name, [int(n) for n in sizes], seed) * int(words)
    mask = torch.ones(number.shape, dtype=torch.long)
    for place in re.findall(r"row (\d+) column (\d+) = 0", rule):
        mask[tuple(map(int, place))] = 0
    return torch.from_numpy(number).floor().long() + int(first), mask


def close(got, arrays, name, description):
    torch.testing.assert_close(got, torch.from_numpy(arrays[name]), **description["tolerance"])


def test_vision_and_queries(case):
    description, arrays, qformer, _ = case
    rule = description["inputs"]["reference_pixel_values"]
    images = torch.from_numpy(
        seeded_input("reference_pixel_values", rule["shape"], rule["seed"], rule["low"], rule["high"])
    )
    close(qformer.visual_encoder(images), arrays, "vision", description)
    close(qformer(images, *ids(description, "subject_ids")), arrays, "query_embeds", description)


def test_text(case):
    description, arrays, _, text_encoder = case
    queries, begin = description["options"]["num_query_tokens"], description["options"]["ctx_begin_pos"]
    context = torch.from_numpy(arrays["query_embeds"])
    assert context.shape[1] == queries
    prompt, negative = (ids(description, name)[0] for name in ("prompt_ids", "uncond_ids"))
    assert prompt.shape[1] + queries == text_encoder.positions
    close(text_encoder(prompt, context, begin), arrays, "text_embeds", description)
    close(text_encoder(negative), arrays, "uncond_embeds", description)
