"""Diff-QuickFix against the original's cells: edited weights and embeddings, with and without its bias."""

import copy

import pytest
import torch

from machine_unlearning.core import text_encoder
from machine_unlearning.core.closed_form import solve
from machine_unlearning.diff_quickfix.captions import captions
from machine_unlearning.diff_quickfix.train import aligned, values
from tests.parity.stand_in import TextModel, close


@pytest.fixture
def case(fixture_file):
    description, arrays = fixture_file("mu_diff_quickfix")
    assert set(description["arrays"]) == set(arrays.files)
    return description, arrays, TextModel(description)


def test_edited_weights_and_embeddings(case):
    description, arrays, model = case
    tolerance, plain, unread = description["suggested_tolerance"], model.text_encoder, set(arrays.files)
    for name, about in description["cases"].items():
        pairs = []
        for pair in about["pairs"]:
            both = [captions(pair[side], about["captions"]) for side in ("concept", "anchor")]
            for side, said in zip(("concept", "anchor"), both):
                assert [caption.text for caption in said] == pair[f"{side}_captions"]
            pairs += zip(*both)
        layer_name, layer = text_encoder.layer(plain, about["layer"])
        edited = f"{layer_name}.self_attn.out_proj.weight"
        assert edited == description["edited"].partition(";")[0].replace("<layer>", str(about["layer"]))
        W, b = layer.self_attn.out_proj.parameters()
        k, q = (
            text_encoder.projected(plain, model.tokens([c.text for c in side]), about["layer"])[0]
            for side in zip(*pairs)
        )
        rows = aligned(model, pairs, k, q, about["tokens"])
        assert len(rows.edit) == about["rows"]
        for form, added in (("with_bias", 0), ("without_bias", b)):
            V = values(rows.guide, W, b, added)
            new = solve(W, rows.edit, V, torch.zeros_like(W), about["lamb"], 1.0, 0.0)
            close(new, arrays[f"{name}:{form}:weight"], tolerance)
            model.text_encoder = copy.deepcopy(plain)
            model.text_encoder.get_parameter(edited).copy_(new)
            close(model.embed(about["embedded_prompts"]), arrays[f"{name}:{form}:embeddings"], tolerance)
            unread -= {f"{name}:{form}:weight", f"{name}:{form}:embeddings"}
    assert not unread
