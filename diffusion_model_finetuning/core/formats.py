"""The two layouts of Stable Diffusion 1's weights: CompVis (one flat dict, `.ckpt`) and diffusers (modules).

    CompVis                                              diffusers
    model.diffusion_model.input_blocks.4.0.in_layers.2   unet: down_blocks.1.resnets.0.conv1
    first_stage_model.decoder.up.3.block.0               vae: decoder.up_blocks.0.resnets.0
    cond_stage_model.transformer.text_model.X            text_encoder: X  (text_model.X before transformers 5)
    model_ema.diffusion_modelinput_blocks40in_layers2... averaged UNet: the name without `model.` and dots

Tensors keep their values and dtypes, so both ways are lossless. Only the autoencoder's attention changes
shape: 1x1 convolutions in CompVis, linear layers in diffusers. `core/key_tables.py` has the names.
"""

import re

import torch
from diffusers.training_utils import EMAModel

from diffusion_model_finetuning.core.key_tables import inverse, rename, unet_table, vae_table

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
EMA = "model_ema."
OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
TEXT_KEY = re.compile(r"(?:text_model\.)?((?:embeddings|encoder|final_layer_norm)\..*)")
Tensors = dict[str, torch.Tensor]


def unet_to_compvis(unet: Tensors) -> Tensors:
    """Tensors by diffusers name -> by CompVis name, without prefix."""
    table = inverse(unet_table(unet))
    return {rename(key, table): tensor for key, tensor in unet.items()}


def unet_from_compvis(unet: Tensors, complete=None) -> Tensors:
    """The other way. For a part of a UNet, `complete` is all keys of that UNet, in either layout."""
    table = unet_table(complete or unet)
    return {rename(key, table): tensor for key, tensor in unet.items()}


def vae_to_compvis(vae: Tensors) -> Tensors:
    table = inverse(vae_table(vae))
    renamed = {rename(key, table): tensor for key, tensor in vae.items()}
    return {k: t[:, :, None, None] if ".attn_1." in k and t.ndim == 2 else t for k, t in renamed.items()}


def vae_from_compvis(vae: Tensors) -> Tensors:
    table = vae_table(vae)
    squeezed = {k: t[:, :, 0, 0] if ".attn_1." in k and t.ndim == 4 else t for k, t in vae.items()}
    return {rename(key, table): tensor for key, tensor in squeezed.items()}


def plain_text(text: Tensors) -> Tensors:
    """A text encoder's tensors under today's names: no `text_model.`, no position ids or projection."""
    found = {match[1]: tensor for key, tensor in text.items() if (match := TEXT_KEY.fullmatch(key))}
    return {key: tensor for key, tensor in found.items() if not key.endswith("position_ids")}


def classic_text(text: Tensors) -> Tensors:
    """Under the names that transformers before 5 and CompVis use."""
    return {f"text_model.{key}": tensor for key, tensor in plain_text(text).items()}


def modern_vae(vae: Tensors) -> Tensors:
    """A diffusers autoencoder's tensors under today's names of its attention."""
    old = re.compile(r"(.*\.attentions\.0\.)(query|key|value|proj_attn)(\..*)")
    return {old.sub(lambda m: m[1] + OLD_VAE_ATTENTION[m[2]] + m[3], key): t for key, t in vae.items()}


def ema_name(key: str) -> str:
    """Where a CompVis trainer stores the average of the tensor `key`: dots are not allowed in its names."""
    return EMA + key.removeprefix("model.").replace(".", "")


def lit_ema(parameters, decay: float = 0.9999) -> EMAModel:
    """CompVis's average: update n = 1, 2, ... keeps min(decay, (1 + n) / (10 + n)) of what it had."""
    return EMAModel(parameters, decay, update_after_step=-1)


def schedule(start: float = 0.00085, end: float = 0.012, steps: int = 1000) -> Tensors:
    """The noise levels a CompVis file carries, float32 [steps] each; beta is linear in its square root."""
    beta = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    a = (1 - beta).cumprod(0)
    before = torch.cat([a.new_ones(1), a[:-1]])
    variance = beta * (1 - before) / (1 - a)  # of q(x_{t-1} | x_t, x_0)
    buffers = {
        "betas": beta,
        "alphas_cumprod": a,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": a.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - a).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - a).log(),
        "sqrt_recip_alphas_cumprod": (1 / a).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / a - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp_min(1e-20).log(),
        "posterior_mean_coef1": beta * before.sqrt() / (1 - a),
        "posterior_mean_coef2": (1 - before) * (1 - beta).sqrt() / (1 - a),
    }
    return {name: buffer.float() for name, buffer in buffers.items()}


def to_compvis(unet: Tensors, vae: Tensors, text: Tensors, ema: Tensors | None = None) -> Tensors:
    """The `state_dict` of a CompVis file, schedule and position ids included.

    The arguments are state dicts of diffusers and transformers modules; `ema` has the UNet's averages under
    the UNet's names, and `decay` and `num_updates`. Tensors keep their dtype.
    """
    named = {UNET + key: tensor for key, tensor in unet_to_compvis(unet).items()}
    state = named | {VAE + key: tensor for key, tensor in vae_to_compvis(vae).items()}
    state |= {TEXT + key: tensor for key, tensor in classic_text(text).items()}
    length = len(plain_text(text)["embeddings.position_embedding.weight"])
    state[f"{TEXT}text_model.embeddings.position_ids"] = torch.arange(length)[None]
    if ema is not None:
        averages = {key: tensor for key, tensor in ema.items() if key not in ("decay", "num_updates")}
        state |= {ema_name(UNET + key): tensor for key, tensor in unet_to_compvis(averages).items()}
        state[EMA + "decay"] = torch.as_tensor(ema["decay"], dtype=torch.float32)
        state[EMA + "num_updates"] = torch.as_tensor(ema["num_updates"], dtype=torch.int32)
    return state | schedule()


def from_compvis(state: Tensors, complete=None) -> dict[str, Tensors]:
    """-> those of unet, vae, text_encoder, ema that a CompVis `state_dict` has, as `to_compvis` takes them.

    `complete`: see `unet_from_compvis`; for averages alone, by diffusers name. KeyError for a key that is no
    part of such a network.
    """

    def under(prefix):
        return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}

    unet = under(UNET)
    vae = {key: tensor for key, tensor in under(VAE).items() if not key.startswith("loss.")}
    parts = {"unet": unet_from_compvis(unet, complete), "text_encoder": plain_text(under(TEXT))}
    if vae:
        parts["vae"] = vae_from_compvis(vae)
    if averages := under(EMA):
        table = unet_table(complete or unet)
        raw = unet or unet_to_compvis(dict.fromkeys(complete or ()))  # a file may have averages alone
        flat = {ema_name(UNET + key).removeprefix(EMA): rename(key, table) for key in raw}
        parts["ema"] = {flat.get(key, key): tensor for key, tensor in averages.items()}
    return {name: tensors for name, tensors in parts.items() if tensors}
