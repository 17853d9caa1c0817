"""Which UNet weights a method may change. Names are diffusers'; the rules are the original ESD's."""

from torch import nn

SCOPES = {  # name -> rule on a parameter's name
    "xattn": lambda name: ".attn2." in name,  # cross-attention: 80 tensors, 44 M in SD 1.5
    "xattn_kv": lambda name: ".attn2.to_k." in name or ".attn2.to_v." in name,  # 32 tensors, 19 M
    "selfattn": lambda name: ".attn1." in name,
    "noxattn": lambda name: (
        ".attn2." not in name and not name.startswith(("conv_out.", "conv_norm_out.", "time_embedding."))
    ),
    "full": lambda name: True,
}


def trainable(unet: nn.Module, scope: str) -> dict[str, nn.Parameter]:
    """Name -> parameter of a scope, with gradients on for these alone. An empty scope is an error."""
    weights = {name: weight for name, weight in unet.named_parameters() if SCOPES[scope](name)}
    if not weights:
        raise ValueError(f"scope {scope} selects no weight of this UNet")
    unet.requires_grad_(False)
    for weight in weights.values():
        weight.requires_grad_(True)
    return weights
