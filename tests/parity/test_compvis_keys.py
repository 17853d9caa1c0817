"""All 1,130 keys of SD 1.5, both ways, with shapes, the names of averages, and what else a file holds."""

import pytest
import torch

from diffusion_model_finetuning.core import formats
from diffusion_model_finetuning.core.load import SD15, empty


@pytest.fixture
def keys(fixture_file):
    return fixture_file("sd15_key_map")[0]


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_built_in_sizes_are_sd15_s(part, keys):
    """-> so load_sd needs no other folder for such a file."""
    expected = {
        row[1].removeprefix("text_model."): tuple(row[3] if part == "vae" else row[2]) for row in keys[part]
    }
    assert {key: tuple(tensor.shape) for key, tensor in empty(SD15, part).state_dict().items()} == expected


def test_every_key_and_shape_both_ways(keys):
    networks = {part: empty(SD15, part).state_dict() for part in ("unet", "vae", "text_encoder")}
    averages = networks["unet"] | {"decay": torch.tensor(0.9999), "num_updates": torch.tensor(1)}
    state = formats.to_compvis(*networks.values(), averages)
    rows = [*keys["unet"], *keys["vae"], *keys["text_encoder"]]
    expected = {row[0]: tuple(row[2]) for row in rows}
    expected |= {row[3]: tuple(row[2]) for row in keys["unet"]}
    expected |= {key: tuple(shape) for key, shape in keys["extra_compvis"].items()}
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == expected
    assert len(rows) == len({row[0] for row in rows})

    parts = formats.from_compvis(state)
    pairs = {"unet": keys["unet"], "vae": keys["vae"], "text_encoder": keys["text_encoder"]}
    for part, rows in pairs.items():
        for row in rows:  # the very tensor, or a view of it, came from that key
            name = row[1].removeprefix("text_model.")
            assert parts[part][name].shape == networks[part][name].shape
    assert {part: set(tensors) for part, tensors in parts.items() if part != "ema"} == {
        part: {row[1].removeprefix("text_model.") for row in rows} for part, rows in pairs.items()
    }
    assert parts["ema"].keys() == averages.keys()


def test_one_key_at_a_time(keys):
    """The tables themselves, without regard to the order of keys."""
    for part, table_of in (("unet", formats.unet_table), ("vae", formats.vae_table)):
        prefix = {"unet": formats.UNET, "vae": formats.VAE}[part]
        ours = table_of([row[1] for row in keys[part]])
        theirs = table_of([row[0].removeprefix(prefix) for row in keys[part]])
        assert ours == theirs and len(set(ours.values())) == len(ours)
        for row in keys[part]:
            assert formats.rename(row[0].removeprefix(prefix), ours) == row[1]
            assert prefix + formats.rename(row[1], formats.inverse(ours)) == row[0]
    for row in keys["unet"]:
        assert formats.ema_name(row[0]) == row[3]
