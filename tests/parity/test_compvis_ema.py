"""The running average of a CompVis trainer: its rule and the names it is stored under."""

import numpy as np
import torch

from diffusion_model_finetuning.core.formats import EMA, ema_name, lit_ema
from tests.parity import compvis
from tests.seeded_weights import seeded_array


def test_average(fixture_file):
    description, arrays = fixture_file("compvis_ema")
    spec = description["weights"]["start"]
    shapes, seed = spec["shapes"], spec["seed"]
    raw = {
        key: torch.nn.Parameter(torch.from_numpy(seeded_array(key, shape, seed).copy()))
        for key, shape in shapes.items()
    }
    updates, decay = compvis.inputs(description)["updates"], description["config"]["decay"]
    average = lit_ema(raw.values(), decay)
    for i in range(updates):
        for key, tensor in raw.items():
            name = f"step{i}.{key.removeprefix(spec['prefix'])}"
            tensor.data.copy_(torch.from_numpy(np.array(seeded_array(name, tensor.shape, seed))))
        average.step(raw.values())
    got = dict(zip(map(ema_name, raw), average.shadow_params, strict=True))
    got |= {
        EMA + "decay": torch.tensor(average.decay),
        EMA + "num_updates": torch.tensor(average.optimization_step),
    }
    assert got.keys() == set(arrays.files)
    for key in got:
        compvis.close(got[key], arrays[key], description)
