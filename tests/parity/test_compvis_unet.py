"""CompVis UNets, text-to-image and InstructPix2Pix, under diffusers' names: the same predicted noise."""

from types import SimpleNamespace

import pytest
import torch

from diffusion_model_finetuning.core import ip2p
from diffusion_model_finetuning.core.formats import unet_from_compvis, unet_to_compvis
from diffusion_model_finetuning.core.sd import StableDiffusion
from tests.parity import compvis
from tests.parity.test_mu_esd import predict


def converted(description):
    state = compvis.weights(description, "unet")
    unet = compvis.build_unet(description["config"])
    unet.load_state_dict(unet_from_compvis(state))
    back = unet_to_compvis(unet.state_dict())
    assert back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state)
    return unet


@torch.no_grad()
def test_text_to_image(fixture_file):
    description, arrays = fixture_file("compvis_unet")
    given = compvis.inputs(description)
    got = predict(converted(description), given["x"], given["timesteps"], given["context"])
    compvis.close(got, arrays["eps"], description)


@torch.no_grad()
def test_instruct_pix2pix(fixture_file):
    description, arrays = fixture_file("compvis_unet_ip2p")
    given = compvis.inputs(description)
    x = torch.cat([given["x"], given["c_concat"]], dim=1)
    got = predict(converted(description), x, given["timesteps"], given["context"])
    compvis.close(got, arrays["eps"], description)


@torch.no_grad()
def test_inflated(fixture_file):
    """A text-to-image network of the same rule with photos' channels added, which have no influence yet."""
    description, arrays = fixture_file("compvis_unet_ip2p")
    given, rule = compvis.inputs(description), description["weights"]["unet"]
    channels = description["config"]["in_channels"] = given["x"].shape[1]
    rule["shapes"][rule["prefix"] + "input_blocks.0.0.weight"][1] = channels
    vae = SimpleNamespace(config=SimpleNamespace(latent_channels=channels))
    sd = StableDiffusion(converted(description), vae, None, None, None, "fixture")
    ip2p.inflate(sd)
    x = torch.cat([given["x"], given["c_concat"]], dim=1)
    got = predict(sd.unet, x, given["timesteps"], given["context"])
    compvis.close(got, arrays["eps_inflated"], description)


def test_layout_is_read_off_the_keys(fixture_file):
    """A network cut to its cross-attention is renamed by the table of the whole."""
    description, _ = fixture_file("compvis_unet")
    state = compvis.weights(description, "unet")
    whole = unet_from_compvis(state)
    some = {key: tensor for key, tensor in state.items() if ".attn2." in key}
    part = unet_from_compvis(some, complete=whole)
    assert part.keys() == {key for key in whole if ".attn2." in key} and len(part) == len(some)
    with pytest.raises(KeyError, match=r"label_emb\.weight"):
        unet_from_compvis(state | {"label_emb.weight": torch.zeros(1)})
