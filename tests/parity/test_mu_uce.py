"""UCE against the original closed form: all tokens and the last, `replace` and `tensor`."""

import pytest
import torch

from machine_unlearning.core import params
from machine_unlearning.core.closed_form import align, edited, gram
from tests.parity.test_mu_esd import build_unet
from tests.seeded_weights import seeded_input


@pytest.fixture
def case(fixture_file):
    description, arrays = fixture_file("mu_uce")
    unet = build_unet(description["unet"]["config"], lambda name: description["weights_seed"])
    rows = {
        i["name"]: torch.from_numpy(
            seeded_input(i["name"], i["shape"], i["seed"], i["low"], i["high"])
        ).double()
        for i in description["inputs"]
    }
    return description, arrays, unet, rows


def test_edited_weights(case):
    description, arrays, unet, embeddings = case
    prompts = description["prompts"]

    def rows(name):
        return embeddings[prompts[name]["embedding"]]

    def last(name):
        return prompts[name]["last_content_index"]

    kinds = sorted({name.partition(":")[0] for name in arrays.files})
    assert kinds
    weights = params.trainable(unet, "xattn_kv")
    for kind in kinds:
        tokens, technique = kind.split(".")
        tokens = tokens.removesuffix("_tokens").removesuffix("_token")
        pairs = [
            align(rows(edit), rows(guide), last(edit), last(guide), tokens)
            for edit, guide in zip(description["edit_prompts"], description["guide_prompts"], strict=True)
        ]
        kept = [
            rows(n) if tokens == "all" else rows(n)[last(n)][None] for n in description["preserve_prompts"]
        ]
        scales = (description["lamb"], description["erase_scale"], description["preserve_scale"])
        tolerance = description["suggested_tolerance"]
        for name in (n.partition(":")[2] for n in arrays.files if n.startswith(kind + ":")):
            W = weights[name].detach().double()
            new = edited(W, pairs, gram(torch.cat([W[:0], *kept])), *scales, technique)
            expected = torch.from_numpy(arrays[f"{kind}:{name}"])
            torch.testing.assert_close(new.float(), expected, rtol=tolerance["rtol"], atol=tolerance["atol"])
