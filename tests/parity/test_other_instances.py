"""Every parity test on a second instance of its fixture: other sizes, batches, counts, seeds, options.

A reader that assumes what its file says fails here. `instances/` derives these files from the stored ones,
the expected values in float64 by the product's own functions or a second formula: they tell nothing about the
originals, only about the readers.

Not derived: sd15_key_map, the names of one architecture, which has no sizes to change.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from tests.parity.instances import activations, erasing, evaluation, inference, networks, relabelling

STORED = Path(__file__).parents[1] / "fixtures"
FIXED = {"sd15_key_map"}
MAKERS = {
    path.stem: getattr(module, path.stem)
    for path in sorted(STORED.glob("*.json"))
    for module in (activations, erasing, relabelling, inference, networks, evaluation)
    if hasattr(module, path.stem)
}


def write(name, folder):
    description = json.loads((STORED / f"{name}.json").read_text())
    arrays = MAKERS[name](description)
    (folder / f"{name}.json").write_text(json.dumps(description))
    if arrays is not None:
        arrays = {n: a.detach().numpy() if torch.is_tensor(a) else a for n, a in arrays.items()}
        np.savez(folder / f"{name}.npz", **arrays)


def test_every_fixture_has_a_second_instance():
    assert {path.stem for path in STORED.glob("*.json")} - FIXED == set(MAKERS)


def test_readers(tmp_path):
    for name in MAKERS:
        write(name, tmp_path)
    command = [sys.executable, "-m", "pytest", str(Path(__file__).parent), "--ignore", __file__]
    options = ["--fixtures", str(tmp_path), "-q", "-rs", "-p", "no:cacheprovider"]
    ended = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-6000:]
    lacking = {line.rpartition("has no ")[2] for line in ended.stdout.splitlines() if "has no " in line}
    assert lacking == {f"{name}.json" for name in FIXED}
