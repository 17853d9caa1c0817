"""The six losses of IE-ContraAST's training against the original's, from its weights and its projectors."""

import pytest
import torch

from style_transfer.ie_contrast import model
from style_transfer.ie_contrast.contrast import projectors
from style_transfer.ie_contrast.train import ie_contrast_losses
from tests.parity.test_st_cases import build_files, build_images


def test_training_losses(fixture_file):
    description, arrays = fixture_file("st_ie_contrast")
    files = build_files(description["weights"], training=True)
    network = model.load({name: files[name] for name in model.FILES})
    heads = projectors(network.encoder.widths)
    for name, head in heads.items():
        head.load_state_dict(files[f"(training only) proj_{name}"])
    trained = {which: case for which, case in description["cases"].items() if "losses" in case}
    assert trained
    for which, case in trained.items():
        content, style = build_images(case)
        half = len(content) // 2
        with torch.no_grad():
            image, terms = ie_contrast_losses(network, heads, content[:half], style[:half])
        expected, tolerance = torch.from_numpy(arrays[f"{which}/output"]), description["tolerance"]
        torch.testing.assert_close(image, expected, rtol=tolerance["rtol"], atol=tolerance["atol"])
        terms = {name: term.item() for name, term in terms.items()}
        assert terms == pytest.approx(case["losses"], rel=tolerance["rtol"], abs=0), which
