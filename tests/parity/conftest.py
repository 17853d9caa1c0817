"""`pytest tests/parity --fixtures DIR` compares with the reference implementations' stored outputs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.seeded_weights import seeded_input


@pytest.fixture
def fixture_file(request):
    """-> load(name): the JSON description and the arrays (or None) of one fixture."""
    folder = Path(request.config.getoption("references"))

    def load(name):
        path = folder / f"{name}.json"
        if not path.exists():
            pytest.skip(f"{folder} has no {name}.json")
        arrays = folder / f"{name}.npz"
        return json.loads(path.read_text()), np.load(arrays) if arrays.exists() else None

    return load


@pytest.fixture
def seeded_case(fixture_file):
    """-> load(name): the description, the arrays that it describes, and its inputs, given or made by rule."""

    def load(name):
        description, arrays = fixture_file(name)
        inputs = {
            key: i["value"]
            if "value" in i
            else torch.from_numpy(
                seeded_input(i["seeded_input_name"], i["shape"], i["seed"], i["low"], i["high"])
            )
            for key, i in description["inputs"].items()
        }
        assert set(description["outputs"]) == set(arrays.files)
        return description, arrays, inputs

    return load
