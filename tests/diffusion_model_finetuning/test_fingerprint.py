"""Fingerprints: other pixels have another one, the same pixels the same."""

import json
import shutil

import numpy as np
import pytest

from diffusion_model_finetuning.convert import write_folder
from diffusion_model_finetuning.core.sd import load_sd, sample
from evaluation.core.errors import UserError

CAT = ["A Cats image in Sketch style."], [0], 4, 5.0


@pytest.fixture(scope="module")
def sd(tiny_sd):
    return load_sd(tiny_sd)


@pytest.fixture
def changed(tiny_sd, tmp_path):
    """-> the model with other settings in one of its JSON files."""

    def loaded(file, **settings):
        shutil.copytree(tiny_sd, tmp_path / "model")
        path = tmp_path / "model" / file
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
        return load_sd(tmp_path / "model")

    return loaded


@pytest.mark.parametrize(
    "file, settings",
    [
        ("scheduler/scheduler_config.json", {"beta_end": 0.02}),
        ("scheduler/scheduler_config.json", {"beta_schedule": "linear"}),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}),
        ("text_encoder/config.json", {"hidden_act": "relu"}),
        ("text_encoder/config.json", {"num_attention_heads": 4}),
        ("text_encoder/config.json", {"layer_norm_eps": 0.5}),
        ("unet/config.json", {"attention_head_dim": 8}),
        ("unet/config.json", {"norm_num_groups": 2}),
        ("unet/config.json", {"norm_eps": 0.1}),
        ("unet/config.json", {"act_fn": "relu"}),
        ("unet/config.json", {"flip_sin_to_cos": False}),
        ("unet/config.json", {"freq_shift": 1}),
        ("unet/config.json", {"mid_block_scale_factor": 3}),
        ("vae/config.json", {"scaling_factor": 0.6}),
        ("vae/config.json", {"norm_num_groups": 2}),
        ("vae/config.json", {"act_fn": "relu"}),
        ("tokenizer/tokenizer_config.json", {"pad_token": "!"}),
    ],
)
def test_settings_that_change_pixels(sd, changed, file, settings):
    other = changed(file, **settings)
    assert not np.array_equal(sample(other, *CAT), sample(sd, *CAT))
    assert other.fingerprint() != sd.fingerprint()


@pytest.mark.parametrize(
    "file, settings",
    [
        ("scheduler/scheduler_config.json", {"clip_sample_range": 2.0}),
        ("scheduler/scheduler_config.json", {"timestep_spacing": "trailing"}),  # the grid is the sampler's
        (
            "text_encoder/config.json",
            {"eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1},
        ),  # SD 1.5
        ("text_encoder/config.json", {"attention_dropout": 0.5, "projection_dim": 8}),
        ("unet/config.json", {"sample_size": 16, "_diffusers_version": "0.6.0"}),
        ("vae/config.json", {"sample_size": 512, "force_upcast": True}),
    ],
)
def test_settings_that_do_not(sd, changed, file, settings):
    other = changed(file, **settings)
    assert np.array_equal(sample(other, *CAT, 16), sample(sd, *CAT, 16))
    assert other.fingerprint() == sd.fingerprint()


def test_tokenizers_by_what_they_do(sd, tiny_sd, tmp_path):
    folder = tmp_path / "model"
    write_folder(sd, folder)
    path = folder / "tokenizer/tokenizer.json"
    content = json.loads(path.read_text())
    path.unlink()  # leaves the same words in the older files
    older = load_sd(folder)
    assert older.fingerprint() == sd.fingerprint()
    assert np.array_equal(sample(older, *CAT), sample(sd, *CAT))

    words = content["model"]["vocab"]
    words["cats</w>"], words["trees</w>"] = words["trees</w>"], words["cats</w>"]
    path.write_text(json.dumps(content))
    other = load_sd(folder)
    assert not np.array_equal(sample(other, *CAT), sample(sd, *CAT))
    assert other.fingerprint() != sd.fingerprint()

    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / "tokenizer" / name).unlink()
    with pytest.raises(UserError, match=r"model/tokenizer: has no words; add tokenizer\.json"):
        load_sd(folder)
