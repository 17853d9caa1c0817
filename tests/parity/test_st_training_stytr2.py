"""The four losses of StyTr2's training against the original's, without dropout."""

import pytest
import torch

from style_transfer.core import vgg, weights
from style_transfer.core.vgg import ENCODER
from style_transfer.stytr2 import model
from style_transfer.stytr2.train import stytr2_losses
from tests.parity.test_st_cases import build_files, build_images


def test_training_losses(fixture_file):
    description, _ = fixture_file("st_stytr2")
    files = build_files(description["weights"])
    network = model.load({name: files[name] for name in model.FILES})
    found = weights.read({ENCODER: files[ENCODER]}, [ENCODER], "the VGG encoder")
    encoder = weights.fill(vgg.Encoder(vgg.widths(found[ENCODER])), found, {ENCODER: ""})
    trained = {which: case for which, case in description["cases"].items() if "losses" in case}
    assert trained
    for which, case in trained.items():
        with torch.no_grad():
            terms = stytr2_losses(network, encoder, *build_images(case))
        got = {name: term.item() for name, term in terms.items()}
        assert got == pytest.approx(case["losses"], rel=description["tolerance"]["rtol"], abs=0), which
