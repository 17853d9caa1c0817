"""`pytest tests/parity --fixtures DIR` compares with the reference implementations' stored outputs."""

import json
from pathlib import Path

import numpy as np
import pytest


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
