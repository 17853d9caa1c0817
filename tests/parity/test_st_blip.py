"""BLIP-Diffusion against diffusers 0.27: image tower, projected queries, text with and without context."""

import json

import pytest
import torch
from safetensors.torch import save_file

from style_transfer.blip.released import load_qformer, load_text_encoder
from tests.seeded_weights import seeded_input, seeded_state_dict


@pytest.fixture
def case(fixture_file, tmp_path):
    """-> the description, the stored outputs, and our modules, read from folders as released."""
    description, arrays = fixture_file("st_blip")
    weights = description["weights"]
    assert all(gain == 1 for gain in weights["gain"].values())
    for name, shapes in weights["files"].items():
        folder = tmp_path / name.removesuffix("/model")
        folder.mkdir()
        save_file(seeded_state_dict(shapes, weights["seeds"][name]), folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(description["config"][folder.name]))
    modules = load_qformer(tmp_path / "qformer"), load_text_encoder(tmp_path / "text_encoder")
    return description, arrays, *(module.eval().requires_grad_(False) for module in modules)


def ids(description, name, *shape):
    number = seeded_input(name, shape, description["inputs"][name]["seed"]) * 190
    return torch.from_numpy(number).floor().long() + 5


def close(got, arrays, name, description):
    torch.testing.assert_close(got, torch.from_numpy(arrays[name]), **description["tolerance"])


def test_vision_and_queries(case):
    description, arrays, qformer, _ = case
    rule = description["inputs"]["reference_pixel_values"]
    images = torch.from_numpy(
        seeded_input("reference_pixel_values", rule["shape"], rule["seed"], rule["low"], rule["high"])
    )
    mask = torch.ones(2, 5, dtype=torch.long)
    mask[1, 4] = 0
    close(qformer.visual_encoder(images), arrays, "vision", description)
    close(qformer(images, ids(description, "subject_ids", 2, 5), mask), arrays, "query_embeds", description)


def test_text(case):
    description, arrays, _, text_encoder = case
    queries, begin = description["options"]["num_query_tokens"], description["options"]["ctx_begin_pos"]
    context = torch.from_numpy(arrays["query_embeds"])
    assert context.shape[1] == queries
    prompt = ids(description, "prompt_ids", 2, text_encoder.positions - queries)
    close(text_encoder(prompt, context, begin), arrays, "text_embeds", description)
    negative = ids(description, "uncond_ids", 2, text_encoder.positions)
    close(text_encoder(negative), arrays, "uncond_embeds", description)
