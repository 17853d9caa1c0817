"""The CompVis autoencoder under diffusers' names: moments, posterior, decoded image."""

import torch
from diffusers import AutoencoderKL

from diffusion_model_finetuning.core.formats import vae_from_compvis, vae_to_compvis
from tests.parity import compvis


def build(config):
    sizes, levels = config["ddconfig"], len(config["ddconfig"]["ch_mult"])
    assert sizes["double_z"] and sizes["attn_resolutions"] == []
    return AutoencoderKL(
        in_channels=sizes["in_channels"],
        out_channels=sizes["out_ch"],
        latent_channels=config["embed_dim"],
        block_out_channels=[sizes["ch"] * factor for factor in sizes["ch_mult"]],
        layers_per_block=sizes["num_res_blocks"],
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
    ).eval()


@torch.no_grad()
def test_autoencoder(fixture_file):
    description, arrays = fixture_file("compvis_vae")
    given, state = compvis.inputs(description), compvis.weights(description, "vae")
    vae = build(description["config"])
    vae.load_state_dict(vae_from_compvis(state))
    posterior = vae.encode(given["image"]).latent_dist
    compvis.close(posterior.parameters, arrays["moments"], description)
    compvis.close(posterior.mode(), arrays["mean"], description)
    compvis.close(posterior.std, arrays["std"], description)
    compvis.close(vae.decode(given["z"]).sample, arrays["decoded"], description)

    back = vae_to_compvis(vae.state_dict())
    assert back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state)
